"""Sending one event as Molam would: signed, over HTTPS or straight to a unix socket (contract, "What is
sent").
"""

import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from molam_webhook import signature

# The sender gives up on a try after this long.
TIMEOUT_SECONDS = 10.0


class SendError(Exception):
    """No answer came; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was sent and what came back."""

    url: str
    event_id: str
    event_type: str
    kid: str | None
    status: int
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


def send(
    url: str,
    event: dict[str, Any],
    secret: bytes,
    *,
    kid: str | None,
    forge: bool = False,
    cacert: Path | None = None,
    connect_to: str | None = None,
) -> Report:
    """Sign `event` and post it to `url`.

    `forge` spoils the MAC. `connect_to` is where to connect instead, HOST:PORT or unix:PATH; the Host
    field, the name in the TLS handshake and the certificate's check remain those of `url`. Raises
    SendError.
    """
    body = orjson.dumps(event)
    signed = body + b" " if forge else body
    target = httpx.URL(url)
    headers = {
        "Content-Type": "application/json",
        "Host": target.netloc.decode(),
        "Molam-Signature": signature.sign(signed, secret, time.time_ns() // 1_000_000, kid),
    }
    socket_path, extensions = None, {"sni_hostname": target.host}
    if connect_to is not None and connect_to.startswith("unix:"):
        socket_path = connect_to.removeprefix("unix:")
    elif connect_to is not None:
        host, _, port = connect_to.rpartition(":")
        target = target.copy_with(host=host.strip("[]"), port=int(port))
    try:
        context = ssl.create_default_context(cafile=cacert)
        # A proxy named in the environment is for the web, not for a check of this very host.
        transport = httpx.HTTPTransport(verify=context, uds=socket_path, trust_env=False)
        with httpx.Client(transport=transport, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            started = time.perf_counter()
            response = client.post(target, content=body, headers=headers, extensions=extensions)
            latency_ms = (time.perf_counter() - started) * 1000
    except (httpx.HTTPError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise SendError(f"No answer from {connect_to or target.netloc.decode()}: {reason}.") from error
    return Report(url, event["id"], event["type"], kid, response.status_code, response.text, round(latency_ms, 1))
