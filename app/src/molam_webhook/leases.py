"""Queues in the database, and the leases under which their items are worked on.

A queue is a table of items with a state: pending, done or dead. Whoever takes an item gets a lease on it: a token, and
a time until which nobody else takes it. Every mark on an item demands the token, so that whoever has lost the lease
marks nothing. An item whose lease ran out is abandoned: the worker that had it died, stood still, or lost the
database.

A lease also names the database session under which it was taken. Where that has ended the item is abandoned at once,
and need not wait until the lease runs out; but attempts at one that was left so several times are some seconds apart.
"""

# ruff: noqa: S608  every statement is made of constants

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from molam_webhook.database import Connection

# What a connection that takes items is set to, and what ends it for the transaction of the handlers: a queue is read in
# its index's order, never sorted. Statistics are from before a backlog came, so that the planner expects a few rows and
# would sort all of them, for every single item: 80 ms each in a backlog of 60 000.
IN_ORDER = "SET enable_sort = off"
END_IN_ORDER = "set_config('enable_sort', 'on', true)"

# What is done leaves its entries in the index until the next vacuum, by the hundred thousand where the table is large.
# So one look in a while begins at the front, and the others where the last item was, less the time by which an item may
# be committed after it was due. What comes with an earlier time is found by the next look from the front.
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
LOOK_BACK_SECONDS = 1.0
LATE = timedelta(seconds=5)

# What is abandoned again and again may be what ends its workers, or the database may be coming and going: after so many
# attempts the next one begins so many seconds after the last one began, or all would be used up within seconds. Short
# enough that the item is in hand again 10 s after whatever it was is over: a worker looks every 2 s.
AT_ONCE = 3
APART_SECONDS = 7.0

# Items are taken from the head of a queue, so that abandoned ones are found there, however long the queue is.
HEAD = 1000


class LeaseLost(Exception):
    """The item is ours no longer: somebody took it over, or put it back by hand."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item in hand: the delivery's id and what was delivered, since when it was due, the lease's token, and the
    attempts with this one.
    """

    id: int
    lease: UUID
    attempts: int
    due: datetime
    event_id: str
    event_type: str
    payload: bytes
    received_at: datetime


class Abandoned(NamedTuple):
    """An item that its worker left: the delivery's id, the lease's token, the attempts so far, what was delivered."""

    id: int
    lease: UUID
    attempts: int
    event_id: str
    event_type: str


class Queue:
    """The queue in `table`, where `key` names a delivery and `done_at` says when it was done.

    `besides` is one more part of the statement that takes an item; it finds the delivery's id in `taken`. All methods
    raise what the database raises.
    """

    def __init__(self, name: str, table: str, *, key: str, done_at: str, besides: str = "") -> None:
        self.name = name
        self._since = BEGINNING
        self._look_back_at = 0.0
        due = "state = 'pending' AND next_attempt_at <= now()"
        gone = "leased_by <> ALL (SELECT pid FROM pg_stat_activity)"
        left_behind = f"lease IS NOT NULL AND (leased_until <= now() OR {gone})"
        # Of leases of $1 seconds.
        apart = f"leased_until <= now() + make_interval(secs => $1::float8 - {APART_SECONDS})"
        abandoned = f"state = 'pending' AND {left_behind}"
        held = f"{key} = $1 AND lease = $2 AND state = 'pending'"
        release = "lease = NULL, leased_until = NULL, leased_by = NULL"
        # Nobody has to wait until a lease is on the disk, or on a standby's. A crash of the database that takes it back
        # takes its token back as well, so that no mark can be made with it; and a mark that is on the disk is so after
        # its lease.
        # It is set before any row is looked at: who locks one that another has just taken has something to commit, too.
        commit = "(SELECT set_config('synchronous_commit', CASE WHEN $3 THEN 'local' ELSE 'off' END, true))"
        take = f"""
WITH free AS (
  SELECT {key} FROM {table} WHERE {commit} IS DISTINCT FROM '' AND {{which}}
  ORDER BY next_attempt_at, {key} LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
), taken AS (
  UPDATE {table} q SET lease = $1, leased_until = now() + make_interval(secs => $2), leased_by = pg_backend_pid(),
    attempts = q.attempts + 1
  FROM free WHERE q.{key} = free.{key}
  RETURNING q.{key} AS id, q.attempts, q.next_attempt_at AS due
){besides}
SELECT t.id, $1::uuid AS lease, t.attempts, t.due, d.event_id, d.event_type, d.payload, d.created_at AS received_at
FROM taken t JOIN webhook_deliveries d USING (id)
"""
        self._take = take.format(which=f"{due} AND next_attempt_at >= $4 AND leased_until IS NULL")
        # Whoever has the lease may have got it since: the token has to be the one that was found.
        found = f"lease = ${{}} AND {abandoned}"
        self._take_over = take.format(which=f"{key} = $4 AND {found.format(5)}")
        self._abandoned = f"""
WITH head AS (SELECT * FROM {table} WHERE {due} ORDER BY next_attempt_at, {key} LIMIT {HEAD}),
abandoned AS (
  SELECT {key} AS id, lease, attempts FROM head WHERE {left_behind} AND (attempts <= {AT_ONCE} OR {apart})
)
SELECT d.id, a.lease, a.attempts, d.event_id, d.event_type FROM abandoned a JOIN webhook_deliveries d USING (id)
"""
        # Whoever stood still with the item may still have it locked, for as long as the server lets it.
        left = (
            f"{key} = (SELECT {key} FROM {table} WHERE {key} = $1 AND {found.format(2)} FOR NO KEY UPDATE SKIP LOCKED)"
        )
        reason = "concat_ws('; before that: ', $3::text, last_error)"
        self._bury = f"UPDATE {table} SET state = 'dead', last_error = {reason}, {release} WHERE {left}"
        self._give_back = f"UPDATE {table} SET {release} WHERE {left}"
        self._hold = f"SELECT {END_IN_ORDER} FROM {table} WHERE {held} FOR NO KEY UPDATE"
        self._done = f"UPDATE {table} SET state = 'done', {done_at} = now(), last_error = NULL, {release} WHERE {held}"
        # Each taking counts an attempt, so these are done by the item's own.
        self._was_done = f"SELECT FROM {table} WHERE {key} = $1 AND attempts = $2 AND state = 'done'"
        self._failed = f"""
UPDATE {table} SET state = $3, last_error = $4, next_attempt_at = now() + make_interval(secs => $5), {release}
WHERE {held}
"""

    async def take(self, connection: Connection, seconds: float, *, durable: bool) -> Item | None:
        """Take the item that has been due longest, under a lease of so many seconds; None when none is due.

        With `durable`, the lease and the count of the attempt outlive even a crash of the database, of this one: were a
        standby waited for, each attempt would be lost to that wait while there is none, and the item soon be dead.
        """
        now = time.monotonic()
        if now >= self._look_back_at:
            self._since, self._look_back_at = BEGINNING, now + LOOK_BACK_SECONDS
        row = await connection.fetchrow(self._take, uuid4(), seconds, durable, self._since)
        if row is None:
            return None
        item = Item(**row)
        self._since = max(self._since, item.due - LATE)
        return item

    async def abandoned(self, connection: Connection, seconds: float) -> list[Abandoned]:
        """The abandoned items at the head of the queue that may be taken over, of leases of so many seconds."""
        return [Abandoned(*row) for row in await connection.fetch(self._abandoned, seconds)]

    async def take_over(self, connection: Connection, found: Abandoned, seconds: float) -> Item | None:
        """Take an abandoned item; None where somebody else did."""
        row = await connection.fetchrow(self._take_over, uuid4(), seconds, True, found.id, found.lease)
        return Item(**row) if row else None

    async def bury(self, connection: Connection, found: Abandoned, reason: str) -> bool:
        """Park an abandoned item as dead; False where somebody else has it."""
        return await connection.execute(self._bury, found.id, found.lease, reason) == "UPDATE 1"

    async def give_back(self, connection: Connection, found: Abandoned) -> None:
        """Let anybody take an abandoned item again, unless somebody else has it."""
        await connection.execute(self._give_back, found.id, found.lease)

    async def hold(self, connection: Connection, item: Item) -> None:
        """Keep everybody else from the item until the transaction ends. Raises LeaseLost."""
        if await connection.fetchrow(self._hold, item.id, item.lease) is None:
            raise LeaseLost

    async def done(self, connection: Connection, item: Item) -> None:
        """Mark the item done, if this attempt has not done so already. Raises LeaseLost."""
        await self._mark(connection, item, self._done)

    async def failed(self, connection: Connection, item: Item, state: str, fault: str, pause: float) -> bool:
        """Give the item back as `state` (pending or dead), with the reason, due again after `pause` seconds. Returns
        False where the attempt is done after all, and only its COMMIT was answered late. Raises LeaseLost.
        """
        return await self._mark(connection, item, self._failed, state, fault, pause)

    async def _mark(self, connection: Connection, item: Item, statement: str, *arguments: object) -> bool:
        """Whether the item was marked so, or was done by this attempt before. Raises LeaseLost."""
        if await connection.execute(statement, item.id, item.lease, *arguments) == "UPDATE 1":
            return True
        if await connection.fetchrow(self._was_done, item.id, item.attempts) is None:
            raise LeaseLost
        return False
