"""One look at everything: the processes, the queue, the last events, and what to do about what is off."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from molam_webhook import backlog, events
from molam_webhook.backlog import Backlog
from molam_webhook.clock import UNSYNCHRONISED
from molam_webhook.database import ERRORS, session
from molam_webhook.health import UNHEALTHY

ASK_SECONDS = 5.0
LAST_EVENTS = 5

# An event that waits longer has failed at least once, or nobody takes it.
OLD_SECONDS = 300


class Fault(NamedTuple):
    """Something that is off, and what to do next."""

    what: str
    next: str


@dataclass(frozen=True, slots=True)
class Process:
    """What one process says on its admin socket: its name is the socket's. None: it did not say."""

    name: str
    ready: bool
    reason: str | None = None
    release: str | None = None
    uptime_seconds: int | None = None
    database: str | None = None
    cache: str | None = None
    clock: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The look; `backlog` is None where the database could not be asked."""

    processes: list[Process]
    backlog: Backlog | None
    last_events: list[dict[str, Any]]
    faults: list[Fault]


async def look(url: str, sockets: Path, *, forwarding: bool) -> Status:
    """Ask every process that has a socket in the directory `sockets`, and the database at `url`; `forwarding` says
    whether events are to be forwarded. Does not raise.
    """
    processes = [await _ask(path) for path in sorted(sockets.glob("*.sock"))]
    faults = list(_judge_processes(processes))
    waiting, last = None, []
    try:
        async with session(url, "molam-webhook-status") as connection:
            waiting = await backlog.count(connection)
        last = await events.find(url, events.Filter(), LAST_EVENTS)
        faults += _judge_backlog(waiting) + _judge_forwards(waiting, forwarding=forwarding)
    except ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        faults.append(Fault(f"The database cannot be asked: {reason}", "systemctl status 'postgresql*'"))
    return Status(processes, waiting, last, faults)


async def _ask(path: Path) -> Process:
    transport = httpx.AsyncHTTPTransport(uds=str(path), trust_env=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=ASK_SECONDS) as client:
            ready = (await client.get("/readyz")).json()
            health = (await client.get("/health")).json()
    except (httpx.HTTPError, OSError, ValueError) as error:
        return Process(path.stem, ready=False, reason=f"no answer: {error}")
    return Process(
        path.stem,
        ready=ready["status"] == "ready",
        reason=ready.get("reason"),
        release=health["release"],
        uptime_seconds=health["uptime_seconds"],
        database=health["database"],
        cache=health["cache"],
        clock=health.get("clock"),
    )


def _judge_processes(processes: list[Process]) -> list[Fault]:
    faults = []
    # Of the two slots one serves: one that is ready is enough.
    if not any(process.ready for process in processes if process.name.startswith("receiver")):
        faults.append(
            Fault(
                "No receiver is ready: the sender is told to come again, and does so for about 31 hours.",
                "journalctl -u 'molam-webhook@*' -n 50; then systemctl restart molam",
            )
        )
    if not any(process.ready for process in processes if process.name.startswith("worker")):
        faults.append(
            Fault(
                "No worker is ready: events are kept, but nobody acts on them.",
                "journalctl -u 'molam-webhook-worker@*' -n 50; then systemctl restart molam",
            )
        )
    if any(process.cache == UNHEALTHY for process in processes if process.ready):
        faults.append(
            Fault(
                "The cache does not answer: all is slower, and nothing is lost.", "systemctl status 'valkey*' 'redis*'"
            )
        )
    if any(process.clock == UNSYNCHRONISED for process in processes):
        faults.append(
            Fault(
                "The host's clock is not synchronised: what it takes for too old or too new is answered 503, and the "
                "sender comes again.",
                "timedatectl timesync-status; does the host reach its time servers (base_ntp_servers)?",
            )
        )
    return faults


def _judge_backlog(waiting: Backlog) -> list[Fault]:
    faults = []
    if waiting.oldest_pending_seconds > OLD_SECONDS:
        faults.append(
            Fault(
                f"An event has waited for {duration(waiting.oldest_pending_seconds)}.",
                "molam-webhook events list --state pending; then events show ID says why",
            )
        )
    if waiting.dead or waiting.dead_forwards:
        faults.append(
            Fault(
                f"{waiting.dead} events were given up, and the forwarding of {waiting.dead_forwards}; all are stored.",
                "molam-webhook events dead; mend the reason; then molam-webhook events retry --all-dead",
            )
        )
    if waiting.recent_conflicts:
        faults.append(
            Fault(
                f"{waiting.recent_conflicts} times today another body came under a known id; the first one was kept.",
                "molam-webhook events list --conflicts; ask Molam which body holds",
            )
        )
    return faults


def _judge_forwards(waiting: Backlog, *, forwarding: bool) -> list[Fault]:
    if waiting.pending_forwards and not forwarding:
        return [
            Fault(
                f"Forwarding is switched off, and {waiting.pending_forwards} events wait to be forwarded.",
                "set MOLAM_FORWARD_URL again (webhook_app_forward_url), and they are sent",
            )
        ]
    if waiting.oldest_pending_forward_seconds > OLD_SECONDS:
        return [
            Fault(
                f"An event has waited to be forwarded for {duration(waiting.oldest_pending_forward_seconds)}.",
                "molam-webhook events list --state pending; then events show ID says what your own receiver answered",
            )
        ]
    return []


def duration(seconds: float) -> str:
    """A length of time for people, by its two largest units: 3 d 4 h, 5 min 10 s."""
    rest = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, rest = divmod(rest, size)
        if number or parts or unit == "s":
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])
