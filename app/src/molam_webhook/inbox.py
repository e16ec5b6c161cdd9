"""The inbox: verified deliveries, each event once, durable before anyone is told (contract, "What is
answered").
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from molam_webhook.database import STATEMENT_SECONDS, Database
from molam_webhook.event import Event
from molam_webhook.logs import logger
from molam_webhook.outcomes import Outcome

CHANNEL = "molam_webhook_inbox"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified delivery: the event, the raw body, the signature header and the kid that signed it."""

    event: Event
    payload: bytes
    signature: str
    kid: str
    body_sha256: bytes

    @classmethod
    def of(cls, event: Event, payload: bytes, signature: str, kid: str) -> "Delivery":
        """Make a delivery, hashing its body (SHA-256)."""
        return cls(event, payload, signature, kid, hashlib.sha256(payload).digest())


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
    known="SELECT event_id, body_sha256 FROM event_ids WHERE event_id = ANY($1::text[])",
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
    known="SELECT event_id, body_sha256 FROM selftest_events WHERE event_id = ANY($1::text[])",
    conflict=None,
)


class Inbox:
    """Stores batches of deliveries in one ledger of the database."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    async def store(self, batch: Sequence[Delivery]) -> list[Outcome]:
        """Commit a batch and say, in its order, which events are new and which were known.

        Raises one of `database.ERRORS` where the commit failed or its fate is unknown. The same id twice in
        a batch is the first one and its duplicates. Another body under a known id is kept aside and logged
        as an error.
        """
        first: dict[str, Delivery] = {}
        for delivery in batch:
            first.setdefault(delivery.event.id, delivery)
        conflicts: dict[tuple[str, bytes], Delivery] = {}
        # READ COMMITTED is part of the design: `known` must see what another instance committed meanwhile.
        async with (
            asyncio.timeout(STATEMENT_SECONDS),
            self._database.acquire() as connection,
            connection.transaction(isolation="read_committed"),
        ):
            fresh = {row[0] for row in await connection.fetch(self._ledger.insert, *_columns(list(first.values())))}
            kept = {event_id: first[event_id].body_sha256 for event_id in fresh}
            if old := [event_id for event_id in first if event_id not in fresh]:
                kept |= {row[0]: row[1] for row in await connection.fetch(self._ledger.known, old)}
            for delivery in batch:
                if delivery.body_sha256 != kept[delivery.event.id]:
                    conflicts.setdefault((delivery.event.id, delivery.body_sha256), delivery)
            if conflicts and self._ledger.conflict:
                rows = [(event_id, sha, conflicts[event_id, sha].payload) for event_id, sha in sorted(conflicts)]
                await connection.execute(self._ledger.conflict, *map(list, zip(*rows, strict=True)))
        for event_id, _ in conflicts:
            logger.error("event_conflict", event_id=event_id)
        return [
            Outcome.ACCEPTED
            if delivery.event.id in fresh and delivery is first[delivery.event.id]
            else Outcome.DUPLICATE
            for delivery in batch
        ]


def _columns(deliveries: Sequence[Delivery]) -> list[list[object]]:
    rows = [
        (d.event.id, d.body_sha256, d.event.type, d.event.created, d.payload, d.signature, d.kid) for d in deliveries
    ]
    return [list(column) for column in zip(*rows, strict=True)]
