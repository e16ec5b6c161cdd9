"""Looking up stored events: one with all that belongs to it, or many by what they have in common."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import asyncpg
import orjson

from molam_webhook import event as events
from molam_webhook import orders
from molam_webhook.database import Connection, session
from molam_webhook.event import Event

APPLICATION = "molam-webhook-events"

# Rows that one statement looks at, so that none takes long however large the table is.
PAGE = 5000
PAGE_WITH_PAYLOAD = 200

# Of the bodies that came later under one id, so many are shown; the first ones tell what went wrong.
CONFLICTS_SHOWN = 20

# Of an event: its handlers' state and its forward's taken together.
State = Literal["pending", "done", "dead"]

Order = Literal["ASC", "DESC"]

# How the state of handlers or a forward is shown, in the row of either.
_STATE = "CASE WHEN {0}.state = 'done' AND {0}.last_error IS NOT NULL THEN 'discarded' ELSE {0}.state END"
_HANDLERS_STATE = f"{_STATE.format('d')} AS state"
_FORWARD_STATE = f"{_STATE.format('f')} AS forward"

_EVENT = f"""
SELECT i.event_id, d.event_type, {_HANDLERS_STATE}, d.attempts, i.first_received_at, d.created, d.processed_at,
  CASE WHEN d.state = 'pending' THEN d.next_attempt_at END AS next_attempt_at, d.leased_until, d.last_error, d.kid,
  encode(i.body_sha256, 'hex') AS body_sha256, d.payload,
  (SELECT count(*) FROM event_conflicts c WHERE c.event_id = i.event_id) AS conflicts
FROM event_ids i LEFT JOIN webhook_deliveries d USING (event_id)
WHERE i.event_id = $1
"""  # noqa: S608  made of constants

_FORWARD = f"""
SELECT {_STATE.format("f")} AS state, f.attempts,
  CASE WHEN f.state = 'pending' THEN f.next_attempt_at END AS next_attempt_at, f.leased_until, f.last_error, f.done_at
FROM forwards f JOIN webhook_deliveries d ON d.id = f.delivery_id
WHERE d.event_id = $1
"""  # noqa: S608  made of constants

_ORDER = """
SELECT payment_intent_id, order_id, status, amount, currency, paid_at, failed_at, refunded_at,
  refund_failed_at, last_event_id, updated_at
FROM orders WHERE payment_intent_id = $1
"""

_CONFLICTS = """
SELECT received_at, encode(body_sha256, 'hex') AS body_sha256, payload FROM event_conflicts
WHERE event_id = $1 ORDER BY received_at, body_sha256 LIMIT $2
"""

# The times are NULL where no event matches, or none is done. The seconds are those between the two.
_TALLY = """
SELECT count(*) AS events, count(*) FILTER (WHERE d.state = 'pending') AS pending,
  count(*) FILTER (WHERE d.state = 'done') AS done, count(*) FILTER (WHERE d.state = 'dead') AS dead,
  count(*) FILTER (WHERE f.state = 'pending') AS pending_forwards,
  count(*) FILTER (WHERE f.state = 'dead') AS dead_forwards, min(d.created_at) AS first_received_at,
  max(d.processed_at) AS last_processed_at,
  extract(epoch FROM max(d.processed_at) - min(d.created_at))::float8 AS seconds
FROM webhook_deliveries d LEFT JOIN forwards f ON f.delivery_id = d.id
WHERE d.created_at >= $1 AND starts_with(d.event_id, $2)
"""

# A page of events: {after} says where it begins and ends, {order} is DESC or ASC.
_KEYS = """
SELECT d.id, d.created_at FROM webhook_deliveries d WHERE {after} {also}
ORDER BY d.created_at {order}, d.id {order} LIMIT $4
"""

# Where the handlers or the forward are in that state. Each half picks its own index and stops by itself.
_KEYS_OF_BOTH = """
(SELECT d.id, d.created_at FROM webhook_deliveries d WHERE d.state = '{state}' AND {after} {also}
ORDER BY d.created_at {order}, d.id {order} LIMIT $4)
UNION
(SELECT d.id, d.created_at FROM forwards f JOIN webhook_deliveries d ON d.id = f.delivery_id
WHERE f.state = '{state}' AND {after} {also} ORDER BY d.created_at {order}, d.id {order} LIMIT $4)
ORDER BY created_at {order}, id {order} LIMIT $4
"""

# Done altogether, forwarding included.
DONE = """
AND d.state = 'done' AND NOT EXISTS (SELECT FROM forwards f WHERE f.delivery_id = d.id AND f.state <> 'done')
"""

# Nothing of it was discarded.
_WHOLE = """
AND d.last_error IS NULL AND NOT EXISTS (SELECT FROM forwards f WHERE f.delivery_id = d.id AND f.last_error IS NOT NULL)
"""

_AFTER: dict[Order, str] = {
    "ASC": """(d.created_at, d.id) > (coalesce($1::timestamptz, '-infinity'), $2)
      AND d.created_at < coalesce($3::timestamptz, 'infinity')""",
    "DESC": """(d.created_at, d.id) < (coalesce($1::timestamptz, 'infinity'), $2)
      AND d.created_at >= coalesce($3::timestamptz, '-infinity')""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events; every part that is given must hold. `since` and `until` (exclusive) are times of receipt;
    `payment` is an id that the body names, wherever it does; `kids` are the keys that may have signed. What was
    discarded counts as done, unless `discarded` is False.
    """

    ids: list[str] | None = None
    state: State | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    payment: str | None = None
    conflicts: bool = False
    kids: list[str] | None = None
    discarded: bool = True


async def show(url: str, event_id: str) -> dict[str, Any] | None:
    """The stored event with, under "forward" and "order", what became of it or None, and under "other_bodies" the first
    of its "conflicts"; None where no such event was ever received.

    Raises one of `database.ERRORS`.
    """
    async with session(url, APPLICATION) as connection:
        row = await connection.fetchrow(_EVENT, event_id)
        if row is None:
            return None
        payment = _payment(row["payload"])
        forward = await connection.fetchrow(_FORWARD, event_id)
        order = await connection.fetchrow(_ORDER, payment) if payment is not None else None
        others = await connection.fetch(_CONFLICTS, event_id, CONFLICTS_SHOWN) if row["conflicts"] else []
    # A stored payload is a body that parsed, so it is UTF-8; NULL means that it has been removed.
    payload = row["payload"]
    return dict(row) | {
        "payload": payload.decode() if payload else None,
        "forward": dict(forward) if forward else None,
        "order": dict(order) if order else None,
        "other_bodies": [dict(other) | {"payload": other["payload"].decode()} for other in others],
    }


async def find(url: str, wanted: Filter, limit: int) -> list[dict[str, Any]]:
    """The newest events that match, at most `limit`. Raises one of `database.ERRORS`."""
    columns = f"""d.event_id, d.event_type, {_HANDLERS_STATE}, {_FORWARD_STATE}, d.attempts,
      d.created_at AS received_at, d.kid, d.payload, d.last_error, f.last_error AS forward_error"""
    async with session(url, APPLICATION) as connection:
        rows = scan(connection, wanted, columns, newest_first=True, limit=limit)
        found = [dict(row) async for row in rows]
    return [row | {"payment": _payment(row.pop("payload"))} for row in found]


async def tally(url: str, since: datetime, prefix: str) -> dict[str, Any]:
    """How many events whose ids begin with `prefix` were received since then: in all, by state, and of their forwards
    those that are not done; when the first came and the last was acted on, and the seconds between, or None.

    Raises one of `database.ERRORS`.
    """
    async with session(url, APPLICATION) as connection:
        return dict(await connection.fetchrow(_TALLY, since, prefix) or {})


async def select(url: str, wanted: Filter) -> dict[int, str]:
    """The events that match, oldest first: the delivery's number, and the event's id.

    Raises one of `database.ERRORS`.
    """
    async with session(url, APPLICATION) as connection:
        return {row["id"]: row["event_id"] async for row in scan(connection, wanted, "d.id, d.event_id")}


async def export(url: str, wanted: Filter) -> AsyncIterator[dict[str, Any]]:
    """Every event that matches, oldest first, with its body and signature header as they came."""
    columns = f"""d.event_id, d.event_type, {_HANDLERS_STATE}, {_FORWARD_STATE}, d.attempts,
      d.created_at AS received_at, d.processed_at, d.kid, d.signature, d.payload"""
    async with session(url, APPLICATION) as connection:
        async for row in scan(connection, wanted, columns, page=PAGE_WITH_PAYLOAD):
            yield dict(row) | {"payload": row["payload"].decode()}


async def scan(
    connection: Connection,
    wanted: Filter,
    columns: str,
    *,
    newest_first: bool = False,
    page: int = PAGE,
    limit: int | None = None,
) -> AsyncIterator[asyncpg.Record]:
    """Rows of `columns` (of the delivery `d` and its forward `f`) in the order of their receipt, page by page."""
    order: Order = "DESC" if newest_first else "ASC"
    keys, rows = _statements(wanted, columns, order)
    in_keys = [] if wanted.ids is None else [wanted.ids]
    in_rows = [wanted.event_type, None if wanted.payment is None else orjson.dumps(wanted.payment), wanted.kids]
    begin, end = (wanted.until, wanted.since) if newest_first else (wanted.since, wanted.until)
    # No id is 0: the first page begins at the time itself.
    cursor: tuple[datetime | None, int] = begin, 0
    while found := await connection.fetch(keys, *cursor, end, page, *in_keys):
        matching = await connection.fetch(rows, [key["id"] for key in found], *in_rows, limit)
        for row in matching:
            yield row
        if limit is not None:
            limit -= len(matching)
            if limit == 0:
                return
        cursor = found[-1]["created_at"], found[-1]["id"]


def _statements(wanted: Filter, columns: str, order: Order) -> tuple[str, str]:
    """The statement that picks a page by what an index answers, and the one that reads it and asks the rest."""
    also = ""
    if wanted.conflicts:
        also += " AND d.event_id IN (SELECT event_id FROM event_conflicts)"
    if wanted.ids is not None:
        also += " AND d.event_id = ANY($5)"
    if wanted.state == "done":
        also += DONE if wanted.discarded else DONE + _WHOLE
    keys = _KEYS if wanted.state in (None, "done") else _KEYS_OF_BOTH
    rows = f"""
      SELECT {columns} FROM webhook_deliveries d LEFT JOIN forwards f ON f.delivery_id = d.id
      WHERE d.id = ANY($1) AND ($2::text IS NULL OR d.event_type = $2)
        AND ($3::bytea IS NULL OR position($3 IN d.payload) > 0)
        AND ($4::text[] IS NULL OR d.kid = ANY($4))
      ORDER BY d.created_at {order}, d.id {order} LIMIT $5
    """  # noqa: S608  made of constants
    return keys.format(state=wanted.state, after=_AFTER[order], also=also, order=order), rows


def _payment(payload: bytes | None) -> str | None:
    event = events.parse(payload or b"")
    intent = orders.payment_intent_id(event) if isinstance(event, Event) else None
    return intent if events.is_name(intent) else None
