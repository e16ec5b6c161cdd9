"""The event in a request body: strict JSON, then the members the contract demands ("What is answered")."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

import orjson

from molam_webhook.outcomes import Outcome

MAX_NAME_CHARACTERS = 255

# In text that is known to be JSON these are all the tokens that matter to nesting; strings match as the
# empty group.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|([{}\[\]:])')


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `id` and `type` as sent, `created` in UTC where it could be read, `data` where it is an
    object.
    """

    id: str
    type: str
    created: datetime | None
    data: dict[str, Any] | None


def parse(body: bytes) -> Event | Outcome:
    """Read an event from a verified body; INVALID_JSON or INVALID_EVENT where it is none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Outcome.INVALID_JSON
    if not isinstance(document, dict) or _repeats_a_member(body, document):
        return Outcome.INVALID_EVENT
    event_id, event_type, data = document.get("id"), document.get("type"), document.get("data")
    if not is_name(event_id) or not is_name(event_type):
        return Outcome.INVALID_EVENT
    created = read_time(document.get("created"))
    return Event(event_id, event_type, created, data if isinstance(data, dict) else None)


def is_name(value: object) -> TypeGuard[str]:
    """Whether `value` is text of 1 to 255 characters that PostgreSQL can hold (no NUL)."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS and "\0" not in value


def read_time(value: object) -> datetime | None:
    """Read unix seconds or an ISO time (UTC where it names no zone); None for anything else."""
    try:
        if isinstance(value, str):
            time = datetime.fromisoformat(value)
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _repeats_a_member(body: bytes, document: dict[str, Any]) -> bool:
    """Whether a name stands twice at the top level (parsers keep the last in silence)."""
    try:
        # What is, byte by byte, as we would write it has each name once. Most senders write so, and counting takes
        # ten times as long.
        if orjson.dumps(document) == body:
            return False
    except orjson.JSONEncodeError:
        # Nested deeper than can be written, though not than can be read.
        pass
    return _member_count(body) != len(document)


def _member_count(body: bytes) -> int:
    """Count the members of the top-level object, repeated names included."""
    depth = members = 0
    for token in _TOKEN.findall(body):
        if token == b":":
            members += depth == 1
        elif token in (b"{", b"["):
            depth += 1
        elif token:
            depth -= 1
    return members
