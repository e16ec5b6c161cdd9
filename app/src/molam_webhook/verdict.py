"""What becomes of an item that could not be done: tried again later, or parked as dead."""

import random
from dataclasses import dataclass

from molam_webhook import logs
from molam_webhook.handlers import TryLater, Unprocessable

BACKOFF_MAX_SECONDS = 3600.0

# What the server says of itself, not of a statement: lost, without room, shutting down, broken, read-only.
_OUTAGE = ("08", "53", "57P", "58", "25006")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The item's next state (pending or dead), the reason, and the seconds until it is due again."""

    state: str
    fault: str
    pause: float


def judge(error: BaseException, attempts: int, *, attempts_max: int, backoff_seconds: float) -> Verdict:
    """Say what an error means after so many attempts.

    What trying again cannot mend is dead at once, anything else after `attempts_max`; but an outage of the database
    never makes anything dead, since it says nothing about the event.
    """
    pause = backoff(attempts, backoff_seconds)
    match error:
        case Unprocessable():
            return Verdict("dead", _clean(_words(error)), 0.0)
        case TryLater(seconds=seconds):
            fault, pause = _words(error), max(pause, min(seconds, BACKOFF_MAX_SECONDS))
        case _:
            fault = _words(error)
    outage = str(getattr(error, "sqlstate", None)).startswith(_OUTAGE)
    return Verdict("pending" if outage or attempts < attempts_max else "dead", _clean(fault), pause)


def backoff(attempts: int, base_seconds: float) -> float:
    """Seconds to wait after the given number of attempts: doubling, at most an hour, spread by half either way."""
    return min(base_seconds * 2.0 ** (attempts - 1), BACKOFF_MAX_SECONDS) * random.uniform(0.5, 1.5)  # noqa: S311  no secret


def _words(error: BaseException) -> str:
    """What an error says. It may be of a class that is not ours, and fail to say anything."""
    try:
        if isinstance(error, TryLater | Unprocessable):
            return str(error)
        return f"{type(error).__name__}: {logs.describe(error)['message']}"
    except Exception as fault:
        return f"{type(error).__name__}, which could not be put into words: {type(fault).__name__}"


def _clean(text: str) -> str:
    """Text that PostgreSQL can hold, of bounded length: it may come from code or servers that are not ours."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")[: logs.MAX_TEXT_CHARACTERS]
