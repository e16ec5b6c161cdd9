"""A few senders at work while something happens to the host, and what became of their events."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from testinfra.host import Host

from .conftest import Site, new_event


@contextmanager
def load(
    site: Site, senders: int = 4, *, newcomers: int | None = None, pause_seconds: float = 0.05
) -> Iterator[list[tuple[str, int]]]:
    """Send events of their own from a few senders all the while; yields ids and answers, 0 where none came.

    So many of them, half where that is not said, make a connection for each event; the others keep theirs.
    """
    newcomers = (senders + 1) // 2 if newcomers is None else newcomers
    answers: list[tuple[str, int]] = []
    over = threading.Event()

    def send(kept: httpx.Client | None) -> None:
        while not over.is_set():
            event = new_event()
            try:
                answers.append((event["id"], site.send(event, client=kept).status_code))
            except httpx.HTTPError:
                answers.append((event["id"], 0))
            over.wait(pause_seconds)

    keeping = [site.client() if number >= newcomers else None for number in range(senders)]
    threads = [threading.Thread(target=send, args=[kept]) for kept in keeping]
    for sender in threads:
        sender.start()
    try:
        yield answers
    finally:
        over.set()
        for sender in threads:
            sender.join()
        for kept in filter(None, keeping):
            kept.close()


def until_taken(site: Site, event: dict[str, Any]) -> str:
    """Send an event until it is acknowledged; return as what."""
    deadline = time.monotonic() + 60
    while (answer := site.send(event)).status_code != 200:
        assert answer.status_code == 503
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return str(answer.json()["status"])


def stored(host: Host, event_ids: list[str], database: str = "molam_webhook") -> tuple[int, int]:
    """Count the rows of these events in the inbox that the host has, and those that are done and have their order.

    The ids go through a file: there may be thousands.
    """
    host.check_output("install -m 600 -o postgres /dev/null /run/event_ids")
    for start in range(0, len(event_ids), 500):
        lines = "\n".join(event_ids[start : start + 500])
        host.check_output(f"cat >> /run/event_ids <<'END'\n{lines}\nEND")
    count = (
        "SELECT count(*), count(*) FILTER (WHERE d.state = 'done' AND o.status = 'paid') FROM sent "
        "JOIN webhook_deliveries d USING (event_id) LEFT JOIN orders o ON o.last_event_id = event_id"
    )
    answer = host.check_output(
        f"runuser -u postgres -- psql --no-psqlrc --quiet -At {database} <<'END'\n"
        f"CREATE TEMPORARY TABLE sent (event_id text);\n\\copy sent FROM /run/event_ids\n{count};\nEND"
    )
    rows, done = answer.split("|")
    return int(rows), int(done)
