"""Sending events as Molam would: signed, over HTTPS or straight to a unix socket (contract, "What is sent")."""

import asyncio
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import quantiles
from typing import Any

import httpx
import orjson

from molam_webhook import signature

# The sender gives up on a try after this long.
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """How to send: where to, and what to sign with.

    `connect_to` is where to connect instead, HOST:PORT or unix:PATH; the Host field, the name in the TLS handshake
    and the certificate's check remain those of `url`. `trust` says whose certificates hold; None is the system's list.
    `forge` spoils the MAC. `at` is signed as the time of sending in place of now. `times` is how often each event is
    sent, one after the other.
    """

    url: str
    secret: bytes
    kid: str | None = None
    trust: ssl.SSLContext | None = None
    connect_to: str | None = None
    forge: bool = False
    at: datetime | None = None
    times: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What was sent and what came back. Without an answer the status is None and `answer` says why."""

    url: str
    event_id: str
    event_type: str
    kid: str | None
    status: int | None
    answer: str
    latency_ms: float


def make_event(
    event_type: str, event_id: str, *, payment_intent: str, order_id: str, amount: int, currency: str
) -> dict[str, Any]:
    """Make an event that is created now; a refund is given an id of its own and names its payment."""
    data: dict[str, Any] = {"id": payment_intent}
    if event_type.startswith("refund."):
        data = {"id": f"re_{payment_intent}", "payment_intent": payment_intent}
    status = event_type.rpartition(".")[2]
    data |= {"amount": amount, "currency": currency, "status": status, "metadata": {"order_id": order_id}}
    return {"id": event_id, "type": event_type, "created": int(time.time()), "data": data}


def send(sender: Sender, events: Iterable[dict[str, Any]], concurrency: int = 1) -> list[Report]:
    """Sign the events and post them, `concurrency` at once; the reports, in the order in which answers came."""
    return asyncio.run(_send(sender, iter(events), concurrency))


def spread(reports: Sequence[Report]) -> dict[str, float]:
    """How long the answers took, in milliseconds: `p50_ms`, `p99_ms` and `max_ms`. There has to be one."""
    latencies = [report.latency_ms for report in reports]
    cuts = quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else latencies * 99
    return {"p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1), "max_ms": max(latencies)}


async def _send(sender: Sender, events: Iterator[dict[str, Any]], concurrency: int) -> list[Report]:
    reports: list[Report] = []
    target = httpx.URL(sender.url)
    extensions = {"sni_hostname": target.host}
    host = target.netloc.decode()
    socket_path = None
    if sender.connect_to is not None and sender.connect_to.startswith("unix:"):
        socket_path = sender.connect_to.removeprefix("unix:")
    elif sender.connect_to is not None:
        address, _, port = sender.connect_to.rpartition(":")
        target = target.copy_with(host=address.strip("[]"), port=int(port))
    # A proxy named in the environment is for the web, not for a check of this very host.
    transport = httpx.AsyncHTTPTransport(
        verify=sender.trust or ssl.create_default_context(),
        uds=socket_path,
        trust_env=False,
        limits=httpx.Limits(max_connections=concurrency),
    )
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT_SECONDS, trust_env=False) as client:

        async def post(event: dict[str, Any]) -> Report:
            body = orjson.dumps(event)
            headers = {"Content-Type": "application/json", "Host": host, "Molam-Signature": _sign(sender, body)}
            started = time.perf_counter()
            try:
                response = await client.post(target, content=body, headers=headers, extensions=extensions)
                status, answer = response.status_code, response.text
            except (httpx.HTTPError, OSError) as error:
                status, answer = None, str(error) or type(error).__name__
            latency_ms = round((time.perf_counter() - started) * 1000, 1)
            return Report(sender.url, event["id"], event["type"], sender.kid, status, answer, latency_ms)

        async def post_all() -> None:
            for event in events:
                for _ in range(sender.times):
                    reports.append(await post(event))

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(post_all())
    return reports


def _sign(sender: Sender, body: bytes) -> str:
    now_ms = time.time_ns() // 1_000_000 if sender.at is None else round(sender.at.timestamp() * 1000)
    return signature.sign(body + b" " if sender.forge else body, sender.secret, now_ms, sender.kid)
