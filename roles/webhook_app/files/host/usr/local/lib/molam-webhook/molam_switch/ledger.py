"""What served on this host and when: one line of JSON for each switch, made or not, and for each mark on a release.

An attempt is written down before it begins. What was cut off (a kill, a reboot) gets its line from the next one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from . import slots

LEDGER = slots.STATE / "ledger.jsonl"
BEGUN = slots.STATE / "begun.json"

DEPLOY, ROLLBACK, APPLY, BAD, GOOD = "deploy", "rollback", "apply", "bad", "good"
DONE, FAILED, CUT_OFF = "done", "failed", "cut off"


@dataclass
class Entry:
    """One line. Times are UTC; ``steps`` are seconds; ``before`` is the slot that served when it began."""

    at: str
    by: str
    action: str
    from_release: str | None
    to_release: str
    commit: str | None = None
    before: str | None = None
    seconds: float | None = None
    steps: dict[str, float] = field(default_factory=dict)
    result: str = CUT_OFF
    why: str = ""


def who() -> str:
    """Return who is at work here: the one who logged in, whoever they are by now."""
    return os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or f"uid {os.getuid()}"


def now() -> str:
    """Return this second, as the ledger writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def read() -> list[Entry]:
    """Return the whole ledger, the oldest line first. Of a line that a full disk cut off nothing can be told."""
    entries = []
    for line in LEDGER.read_text().splitlines() if LEDGER.exists() else []:
        with suppress(ValueError, TypeError):
            entries.append(_entry(line))
    return entries


def _entry(line: str) -> Entry:
    """Return what a line says; fields of a later time are left out. Raises ValueError or TypeError."""
    return Entry(**{name: value for name, value in json.loads(line).items() if name in Entry.__dataclass_fields__})


def append(entry: Entry) -> None:
    """Write a line that is on the disk when this returns. One that was cut off half-way stays a line of its own."""
    with LEDGER.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write(json.dumps(asdict(entry)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def begun() -> Entry | None:
    """Return the attempt that is being made, or was cut off."""
    with suppress(FileNotFoundError, ValueError, TypeError):
        return _entry(BEGUN.read_text())
    return None


def _cut_off() -> list[Entry]:
    """Return the line of an attempt that was cut off, if there is one. It was made if another slot serves since."""
    entry = begun()
    if entry is not None and slots.active() != entry.before:
        entry.result, entry.why = DONE, "cut off before its end"
    return [] if entry is None else [entry]


def settled() -> list[Entry]:
    """Return the ledger as it is once the line of an attempt that was cut off is written."""
    return read() + _cut_off()


def settle() -> None:
    """Write the line of an attempt that was cut off."""
    for entry in _cut_off():
        append(entry)
    # Also where it was cut off while it was written: nothing had begun.
    BEGUN.unlink(missing_ok=True)


class Steps:
    """Says what is being done, and keeps how long each step took."""

    def __init__(self) -> None:
        """Nothing is being done yet."""
        self.seconds: dict[str, float] = {}
        self._name = ""
        self._began = 0.0

    def __call__(self, name: str, text: str) -> None:
        """Say that a step begins, which ends the one before."""
        self.end()
        self._name, self._began = name, time.monotonic()
        print(text, flush=True)

    def end(self) -> None:
        """End the step that was begun."""
        if self._name:
            self.seconds[self._name] = round(time.monotonic() - self._began, 2)
        self._name = ""


@contextmanager
def recorded(entry: Entry) -> Iterator[Steps]:
    """Lend what says the steps of an attempt, and write its line, however it ends."""
    steps, began = Steps(), time.monotonic()
    BEGUN.write_text(json.dumps(asdict(entry)))
    try:
        yield steps
        entry.result = DONE
    except Exception as error:
        # It may be made all the same, and not to its end.
        entry.result = FAILED if slots.active() == entry.before else DONE
        entry.why = str(error)[:2000]
        raise
    finally:
        steps.end()
        entry.seconds, entry.steps = round(time.monotonic() - began, 2), steps.seconds
        append(entry)
        BEGUN.unlink()


def bad(entries: Iterable[Entry]) -> dict[str, str]:
    """Return the releases that are never chosen by themselves, and why.

    One that was left by a rollback is bad until somebody names it in a deploy, a rollback or a mark.
    """
    marked: dict[str, str] = {}
    for entry in entries:
        if entry.result != DONE:
            continue
        if entry.action == BAD:
            marked[entry.to_release] = entry.why
        elif entry.action != APPLY:
            marked.pop(entry.to_release, None)
        if entry.action == ROLLBACK and entry.from_release not in (None, entry.to_release):
            marked[entry.from_release] = f"left by the rollback of {entry.at}"
    return marked


def path(entries: Iterable[Entry]) -> list[str]:
    """Return the releases that led to the one that serves, which is the last one.

    A deploy goes one further, a rollback goes back to where that release was left.
    """
    way: list[str] = []
    for entry in entries:
        if entry.result != DONE or entry.action not in {DEPLOY, ROLLBACK}:
            continue
        if entry.action == ROLLBACK:
            way = way[: _last(way, entry.to_release)]
        if way[-1:] != [entry.to_release]:
            way.append(entry.to_release)
    return way


def _last(way: list[str], release: str) -> int:
    return max((index for index, name in enumerate(way) if name == release), default=0)


def before(entries: list[Entry]) -> str | None:
    """Return the release that a rollback goes to by itself; None where there is none."""
    refused = bad(entries)
    way = path(entries)
    return next((name for name in reversed(way[:-1]) if name not in refused and name != way[-1]), None)


def last_served(entries: Iterable[Entry]) -> dict[str, str]:
    """Return when each release was last put in use."""
    return {entry.to_release: entry.at for entry in entries if entry.result == DONE and entry.action != BAD}
