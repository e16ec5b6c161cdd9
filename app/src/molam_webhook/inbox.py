"""The inbox: verified deliveries, each event once, durable before anyone is told (contract, "What is
answered").
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import asyncpg

from molam_webhook import logs, metrics
from molam_webhook.batcher import RefusedError
from molam_webhook.database import STATEMENT_SECONDS, Connection, Database
from molam_webhook.event import Event
from molam_webhook.logs import logger
from molam_webhook.outcomes import Outcome

CHANNEL = "molam_webhook_inbox"

# SQLSTATE classes of what is wrong with a row rather than with the database: data, constraints, a limit that one
# value exceeds, a trigger's own refusal.
_ROWS_FAULT = ("22", "23", "54", "P0")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified delivery as it is stored: what the event says of itself, the raw body and its hash, the signature
    header and the kid that signed it.

    Not what the body was parsed to: that takes up to twenty-five times its memory, and this one waits for its commit.
    """

    event_id: str
    event_type: str
    created: datetime | None
    payload: bytes
    signature: str
    kid: str
    body_sha256: bytes

    @classmethod
    def of(cls, event: Event, payload: bytes, signature: str, kid: str) -> "Delivery":
        """Make a delivery, hashing its body (SHA-256)."""
        return cls(event.id, event.type, event.created, payload, signature, kid, hashlib.sha256(payload).digest())


class Ledger(NamedTuple):
    """The statements of one place that events are kept in.

    `insert` takes columns as arrays (event_id, body_sha256, event_type, created, payload, signature, kid),
    locks rows in the order of their ids, or two instances could deadlock, and returns the ids that were
    new. `known` returns id and hash of stored events. `conflict` records other bodies under known ids
    (event_id, body_sha256, payload).
    """

    insert: str
    known: str
    conflict: str | None


_SENT = """
  SELECT * FROM unnest(
    $1::text[], $2::bytea[], $3::text[], $4::timestamptz[], $5::bytea[], $6::text[], $7::text[])
  AS sent(event_id, body_sha256, event_type, created, payload, signature, kid)
"""

# Stored events, and where commits wait for a standby, a wait for it: an event whose first delivery was not confirmed
# there is on this host alone, and a duplicate that is answered 200 promises as much as the first one.
_KNOWN = """
SELECT event_id, body_sha256,
  CASE WHEN current_setting('synchronous_standby_names') <> '' THEN pg_logical_emit_message(true, 'molam', '') END
FROM {table} WHERE event_id = ANY($1::text[])
"""

INBOX = Ledger(
    insert=f"""
WITH sent AS ({_SENT}), fresh AS (
  INSERT INTO event_ids (event_id, body_sha256)
  SELECT event_id, body_sha256 FROM sent ORDER BY event_id COLLATE "C"
  ON CONFLICT DO NOTHING
  RETURNING event_id
), stored AS (
  INSERT INTO webhook_deliveries (event_id, event_type, created, payload, signature, kid)
  SELECT event_id, event_type, created, payload, signature, kid FROM sent JOIN fresh USING (event_id)
)
SELECT event_id, pg_notify('{CHANNEL}', '') FROM fresh
""",  # noqa: S608  made of constants
    known=_KNOWN.format(table="event_ids"),
    conflict="""
INSERT INTO event_conflicts (event_id, body_sha256, payload)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[])
ON CONFLICT DO NOTHING
""",
)

# The self-test proves the whole way to disk and back, in a table that no handler reads.
SELFTEST = Ledger(
    insert=f"""
INSERT INTO selftest_events (event_id, body_sha256)
SELECT event_id, body_sha256 FROM ({_SENT}) AS sent ORDER BY event_id COLLATE "C"
ON CONFLICT DO NOTHING
RETURNING event_id
""",  # noqa: S608  made of constants
    known=_KNOWN.format(table="selftest_events"),
    conflict=None,
)


class Inbox:
    """Stores batches of deliveries in one ledger of the database."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    async def store(self, batch: Sequence[Delivery]) -> list[Outcome]:
        """Commit a batch and say, in its order, which events are new and which were known.

        The same id twice in a batch is the first one and its duplicates. Another body under a known id is
        kept aside and logged as an error. Raises RefusedError where the database refuses the batch for what
        is in a row, and one of `database.ERRORS` where the commit failed or its fate is unknown.
        """
        first: dict[str, Delivery] = {}
        for delivery in batch:
            first.setdefault(delivery.event_id, delivery)
        metrics.BATCH_SIZE.observe(len(batch))
        try:
            with metrics.COMMIT_SECONDS.time():
                fresh = await self._insert(batch, first)
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "")[:2] not in _ROWS_FAULT:
                raise
            if len(batch) == 1:
                logger.error("event_refused", event_id=batch[0].event_id, **logs.describe(error))
            raise RefusedError from error
        return [
            Outcome.ACCEPTED
            if delivery.event_id in fresh and delivery is first[delivery.event_id]
            else Outcome.DUPLICATE
            for delivery in batch
        ]

    async def _insert(self, batch: Sequence[Delivery], first: dict[str, Delivery]) -> set[str]:
        """Commit the events of `first` and, where not all of `batch` is new, its conflicts; returns the new ids."""
        async with asyncio.timeout(STATEMENT_SECONDS), self._database.acquire() as connection:
            # A statement that is its own transaction: one round trip, committed when it returns.
            rows = await connection.fetch(self._ledger.insert, *_columns(first.values()))
            fresh = {row[0] for row in rows}
            if len(fresh) < len(batch):
                await self._note_conflicts(connection, batch, first, fresh)
            return fresh

    async def _note_conflicts(
        self, connection: Connection, batch: Sequence[Delivery], first: dict[str, Delivery], fresh: set[str]
    ) -> None:
        """Keep aside, and log, each delivery whose body is not the one that is kept under its id."""
        kept = {event_id: first[event_id].body_sha256 for event_id in fresh}
        if old := [event_id for event_id in first if event_id not in fresh]:
            # A statement later than the insert, so that it sees what another instance committed meanwhile.
            kept |= {row[0]: row[1] for row in await connection.fetch(self._ledger.known, old)}
        conflicts = {(d.event_id, d.body_sha256): d.payload for d in batch if d.body_sha256 != kept[d.event_id]}
        if conflicts and self._ledger.conflict:
            ids, hashes = zip(*sorted(conflicts), strict=True)
            payloads = [conflicts[key] for key in sorted(conflicts)]
            await connection.execute(self._ledger.conflict, list(ids), list(hashes), payloads)
        metrics.CONFLICTS.inc(len(conflicts))
        for event_id, _ in conflicts:
            logger.error("event_conflict", event_id=event_id)


def _columns(deliveries: Iterable[Delivery]) -> list[list[object]]:
    rows = [(d.event_id, d.body_sha256, d.event_type, d.created, d.payload, d.signature, d.kid) for d in deliveries]
    return [list(column) for column in zip(*rows, strict=True)]
