"""A history of what senders were told, and its comparison with what became of it (after the manner of Jepsen).

Several senders send signed events, each with an id of its own, and some of them again. Each send is noted with its
answer: a 200's status, the outcome and status of a refusal, or that none came. Afterwards the database must agree.
"""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
from processing import acts
from support import PATH, Service, event_body, query, signed_headers

SENDERS = 8
REPEATS = 0.2
PAUSE_SECONDS = 0.02
# After which a sender gives up (contract, "Retries").
PATIENCE_SECONDS = 10
OK = ("accepted", "duplicate")
UNKNOWN = "unknown"


def never(_accepted: int) -> bool:
    """However many there are, there are not too many."""
    return False


@dataclass(frozen=True, slots=True)
class Send:
    """One send: when it began and ended (seconds, monotonic), and what it was answered."""

    event_id: str
    began: float
    ended: float
    answer: str

    @property
    def ok(self) -> bool:
        """Whether the sender was told that the event is safe."""
        return self.answer in OK


class Recorder:
    """Sends to a service, side by side, for as long as it is entered, and notes the answers. Each sender rests for
    `rest_seconds` after an answer, and for as long as `too_many` says so of the events that were accepted.
    """

    def __init__(self, service: Service, rest_seconds: float, too_many: Callable[[int], bool]) -> None:
        self._service = service
        self._rest_seconds = rest_seconds
        self._too_many = too_many
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(SENDERS)
        self.sends: list[Send] = []

    def __enter__(self) -> Self:
        self._senders = [self._pool.submit(self._send_on, number) for number in range(SENDERS)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._pool.shutdown()
        for sender in self._senders:
            sender.result()

    def succeeded(self, since: float = 0) -> int:
        """How many sends that began since then were answered 200."""
        return sum(send.ok and send.began >= since for send in tuple(self.sends))

    def _accepted(self) -> int:
        return sum(send.answer == "accepted" for send in tuple(self.sends))

    def failed(self, since: float) -> int:
        """How many sends that ended since then were refused or not answered."""
        return sum(not send.ok and send.ended >= since for send in tuple(self.sends))

    def _send_on(self, sender: int) -> None:
        chance = random.Random(sender)  # noqa: S311  repeatable, and nothing is kept secret by it
        with self._service.client() as client:
            number = 0
            while not self._stopped.is_set():
                if self.sends and chance.random() < REPEATS:
                    event_id = chance.choice(self.sends).event_id
                else:
                    event_id = f"evt_{sender}_{number}"
                    number += 1
                began = time.monotonic()
                answer = _send(client, event_id)
                self.sends.append(Send(event_id, began, time.monotonic(), answer))
                time.sleep(self._rest_seconds if answer in OK else PAUSE_SECONDS)
                while self._too_many(self._accepted()) and not self._stopped.is_set():
                    time.sleep(PAUSE_SECONDS)


def _send(client: httpx.Client, event_id: str) -> str:
    body = event_body(event_id)
    try:
        answer = client.post(PATH, content=body, headers=signed_headers(body), timeout=PATIENCE_SECONDS)
    except httpx.HTTPError:
        return UNKNOWN
    if answer.status_code == 200:
        return str(answer.json()["status"])
    return f"{answer.json()['error']} ({answer.status_code})"


def check(url: str, sends: list[Send]) -> None:
    """Compare a history with the database, after the worker has acted on everything. Fails with the history of each
    event that is not as it should be.
    """
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for send in sends:
        answers[send.event_id][send.answer] += 1
    safe = {send.event_id for send in sends if send.ok}
    rows = query(url, "SELECT event_id, payload, state FROM webhook_deliveries")
    known = Counter(row[0] for row in query(url, "SELECT event_id FROM event_ids"))
    stored = Counter(row["event_id"] for row in rows)
    acted = Counter(acts(url))
    wrong = {
        "answered 200 and not stored": safe - stored.keys(),
        "stored more than once": {event_id for event_id, number in stored.items() if number > 1},
        "stored and not known, or known and not stored": stored.keys() ^ known.keys(),
        "stored and never sent": stored.keys() - answers.keys(),
        "stored with another body": {row["event_id"] for row in rows if row["payload"] != event_body(row["event_id"])},
        "accepted more than once": {event_id for event_id, counts in answers.items() if counts["accepted"] > 1},
        "not acted on": stored.keys() - acted.keys(),
        "acted on more than once": {event_id for event_id, number in acted.items() if number > 1},
        "acted on and not stored": acted.keys() - stored.keys(),
        "not done": {row["event_id"] for row in rows if row["state"] != "done"},
    }
    found = {name: events for name, events in wrong.items() if events}
    assert not found, _tell(found, sends)


def _tell(found: dict[str, set[str]], sends: list[Send]) -> str:
    start = min(send.began for send in sends)
    lines = [f"{len(events)} {name}: {', '.join(sorted(events)[:5])}" for name, events in found.items()]
    concerned = set[str]().union(*found.values())
    lines += [
        f"{send.began - start:9.3f} to {send.ended - start:9.3f} s  {send.event_id}  {send.answer}"
        for send in sorted(sends, key=lambda send: send.began)
        if send.event_id in concerned
    ]
    lines.append(f"all answers: {dict(Counter(send.answer for send in sends))}")
    return "\n".join(lines)
