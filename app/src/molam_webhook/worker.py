"""The worker: takes what is due from the queues in the database and does it, a few at a time, each under a lease.

Whatever befalls a worker, nothing is lost: what it left is taken over, within seconds where its database session has
ended, and when the lease runs out where it only stands still. What was abandoned may have killed its worker, so it is
done with nothing beside it. If it kills again no other item is blamed, and after so many attempts it is parked as dead.

A handler may also hold the worker for ever, and with it every lane. Then the worker says so, and no longer tells the
service manager that it is well: it is ended and started again, and the item is abandoned like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Protocol, TypeAlias
from uuid import UUID

import asyncpg
from prometheus_client import Counter

from molam_webhook import event as events
from molam_webhook import logs, notify, orders
from molam_webhook.config import WorkerSettings
from molam_webhook.database import ERRORS, REOPEN_SECONDS, Connection, connect
from molam_webhook.event import Event
from molam_webhook.forward import forwarding
from molam_webhook.handlers import TryLater, Unprocessable
from molam_webhook.handling import Handling
from molam_webhook.inbox import CHANNEL
from molam_webhook.lanes import Bell, Floor
from molam_webhook.leases import IN_ORDER, Abandoned, Item, LeaseLost, Queue
from molam_webhook.logs import logger
from molam_webhook.verdict import Verdict, judge

# An attempt ends well before its lease does.
ATTEMPT_SHARE = 2 / 3

# An attempt that is not over after so many leases was cut off, and does not end.
STUCK_LEASES = 2

# While the database is away each connection says so at once, and then at every thirtieth try.
TELL_EVERY = 30

# Not one of a pool's: it is opened and closed here.
Own: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_ATTEMPTS = Counter(
    "molam_webhook_attempts",
    "Attempts of the worker, by queue (inbox or forwards) and what came of them (done, pending, dead or lost)",
    ["queue", "outcome"],
)


class OutOfTime(TryLater):
    """An attempt was cut off at its limit."""


class Work(Protocol):
    """A queue and what is done with its items; whether that may kill the worker; what a success and a failure are
    called in the log.
    """

    queue: Queue
    may_kill: bool
    done_word: str
    failed_word: str

    async def perform(self, connection: Connection, item: Item) -> None:
        """Do it and mark it done. Raises LeaseLost, or why it could not be done."""


class Worker:
    """Works on the inbox, and on the outbox where events are forwarded, until it is stopped.

    `on_stop` is called when it is told to stop, while what is in hand is yet to be finished.
    """

    def __init__(self, settings: WorkerSettings, on_stop: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._on_stop = on_stop
        self._attempt_seconds = settings.molam_worker_lease_seconds * ATTEMPT_SHARE
        self._stopped = asyncio.Event()
        self._watchman = Bell()
        self._lanes: list[tuple[Work, Bell]] = []
        self._ready = False
        # Whether the database was ever lost in mid-event: perhaps the event did it, so attempts must then outlive it.
        self._interrupted = False
        # What is in hand, by lease, and since when.
        self._in_hand: dict[UUID, tuple[Item, float]] = {}

    async def run(self) -> None:
        """Work until stopped (SIGTERM, SIGINT), over new connections whenever the database goes away."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        settings = self._settings
        async with forwarding(settings) as forward, asyncio.TaskGroup() as tasks:
            works: list[Work] = [Handling(settings.molam_handlers, forwarding=forward is not None)]
            if forward is not None:
                works.append(forward)
            self._lanes = [(work, Bell()) for work in works]
            floor = Floor(settings.molam_worker_concurrency * len(works))
            tasks.create_task(self._beat())
            tasks.create_task(self._persist(partial(self._watch, floor)))
            for work, bell in self._lanes:
                for _ in range(settings.molam_worker_concurrency):
                    tasks.create_task(self._persist(partial(self._serve, floor, work, bell)))

    def stop(self) -> None:
        """Stop once what is in hand is finished."""
        notify.notify("STOPPING=1")
        self._on_stop()
        self._stopped.set()
        self._watchman.ring()
        self._ring()

    async def step(self, connection: Own, work: Work) -> bool:
        """Take one item that is due and finish it, or record why not; False when none is due.

        Raises one of `database.ERRORS` where nothing could be recorded: the lease then runs out.
        """
        seconds = self._settings.molam_worker_lease_seconds
        item = await work.queue.take(connection, seconds, durable=self._interrupted)
        if item is None:
            return False
        # Where one was due there may be more, and what is taken from the inbox may be due for the outbox.
        self._ring()
        await self._attempt(connection, work, item)
        return True

    async def take_over(self, connection: Own, work: Work, floor: Floor) -> None:
        """See to what other workers abandoned. What may have killed them is done one by one and nothing beside it, and
        buried after so many attempts; the rest is anybody's again.

        Raises one of `database.ERRORS`.
        """
        settings = self._settings
        seconds = settings.molam_worker_lease_seconds
        for found in await work.queue.abandoned(connection, seconds):
            if found.lease in self._in_hand:
                # Only the session is lost: the attempt goes on, and nothing is to be done beside it.
                continue
            if found.attempts >= settings.molam_worker_max_attempts:
                await self._bury(connection, work, found)
                continue
            if not work.may_kill:
                await work.queue.give_back(connection, found)
                self._ring()
                continue
            async with floor.alone():
                if self._stopped.is_set() or connection.is_closed():
                    return
                item = await work.queue.take_over(connection, found, seconds)
                if item is not None:
                    await self._attempt(connection, work, item)

    async def _bury(self, connection: Own, work: Work, found: Abandoned) -> None:
        limit = self._settings.molam_worker_max_attempts
        fault = f"its worker ended over it, or lost the database, at attempt {found.attempts} of {limit}"
        if await work.queue.bury(connection, found, fault):
            _ATTEMPTS.labels(work.queue.name, "dead").inc()
            fields = {"event_id": found.event_id, "event_type": found.event_type, "attempts": found.attempts}
            logger.error(work.failed_word, **fields, outcome="dead", fault=fault)

    async def _watch(self, floor: Floor, connection: Own) -> None:
        """Wake the lanes when something comes, and look for what was abandoned."""
        # A connection that ends while nothing happens must wake us as well.
        connection.add_termination_listener(lambda _connection: self._watchman.ring())
        await connection.add_listener(CHANNEL, lambda *_notification: self._ring())
        if not self._ready:
            self._ready = True
            notify.ready()
        # Nobody told us of what came before we listened.
        self._ring()
        settings = self._settings
        while not self._stopped.is_set() and not connection.is_closed():
            for work, _ in self._lanes:
                await self.take_over(connection, work, floor)
            await self._watchman.wait(min(settings.molam_worker_poll_seconds, settings.molam_worker_lease_seconds))

    async def _serve(self, floor: Floor, work: Work, bell: Bell, connection: Own) -> None:
        """Do what is due in one queue, item by item."""
        while not self._stopped.is_set() and not connection.is_closed():
            async with floor.shared():
                found = not self._stopped.is_set() and await self.step(connection, work)
            if not found:
                await bell.wait(self._settings.molam_worker_poll_seconds)
        # A ring wakes one: whoever ends passes it on.
        bell.ring()

    async def _attempt(self, connection: Own, work: Work, item: Item) -> None:
        fields = _describe(item)
        verdict: Verdict | None = None
        outcome = "done"
        try:
            with self._having(item):
                error = await self._perform(connection, work, item)
            if error is not None:
                verdict = judge(
                    error,
                    item.attempts,
                    attempts_max=self._settings.molam_worker_max_attempts,
                    backoff_seconds=self._settings.molam_worker_backoff_seconds,
                )
                outcome = verdict.state
                async with self._usable(connection, error) as usable:
                    if not await work.queue.failed(usable, item, verdict.state, verdict.fault, verdict.pause):
                        verdict, outcome = None, "done"
        except LeaseLost:
            outcome = "lost"
        except ERRORS:
            self._interrupted = True
            logger.warning("event_abandoned", **fields, fault=verdict and verdict.fault, attempts=item.attempts)
            raise
        _ATTEMPTS.labels(work.queue.name, outcome).inc()
        fields |= {"outcome": outcome, "attempts": item.attempts}
        if outcome == "lost":
            logger.warning("lease_lost", **fields)
        elif verdict is None:
            logger.info(work.done_word, **fields)
        else:
            log = logger.error if outcome == "dead" else logger.warning
            log(work.failed_word, **fields, fault=verdict.fault, pause_seconds=round(verdict.pause, 1))

    async def _perform(self, connection: Own, work: Work, item: Item) -> BaseException | None:
        """Make one attempt, within its time; returns why it failed, or None. Raises LeaseLost."""
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(self._attempt_seconds) as limit:
                await work.perform(connection, item)
        except LeaseLost:
            raise
        except asyncio.CancelledError as error:
            # A handler may raise this by itself, and must not take the lane with it.
            if task is not None and task.cancelling():
                raise
            return error
        except Exception as error:
            return OutOfTime(f"not finished within {self._attempt_seconds:.0f} s") if limit.expired() else error
        return None

    @contextlib.contextmanager
    def _having(self, item: Item) -> Iterator[None]:
        self._in_hand[item.lease] = item, time.monotonic()
        try:
            yield
        finally:
            del self._in_hand[item.lease]

    async def _beat(self) -> None:
        """Say all the while that we are well, as long as no attempt is stuck."""
        told: set[UUID] = set()
        while not self._stopped.is_set():
            since = time.monotonic() - STUCK_LEASES * self._settings.molam_worker_lease_seconds
            stuck = [item for item, begun in self._in_hand.values() if begun < since]
            if not stuck:
                notify.beat()
            for item in stuck:
                if item.lease not in told:
                    told.add(item.lease)
                    logger.error("attempt_stuck", **_describe(item), attempts=item.attempts)
            await self._pause(notify.BEAT_SECONDS)

    @contextlib.asynccontextmanager
    async def _usable(self, connection: Own, error: BaseException) -> AsyncIterator[Connection]:
        """Lend the connection of an attempt, or another one where it is not known what became of its transaction.

        What was sent last may have been done unseen, after its time was over. If that was the beginning of the
        transaction, all that the connection did from then on would be within it, and never be committed.

        Of a lost one it is known: the database is what failed, so nothing is recorded, and the lease runs out.
        """
        known = isinstance(error, TryLater | Unprocessable) or connection.is_closed()
        if known and not isinstance(error, OutOfTime):
            yield connection
            return
        await _close(connection)
        another = await self.connect()
        try:
            yield another
        finally:
            await _close(another)

    async def _persist(self, serve: Callable[[Own], Awaitable[None]]) -> None:
        """Let `serve` work over a connection of its own until stopped, over a new one whenever that is lost."""
        failures = 0
        while not self._stopped.is_set():
            try:
                connection = await self.connect()
                try:
                    failures = 0
                    await serve(connection)
                finally:
                    await _close(connection)
            except ERRORS as error:
                if failures % TELL_EVERY == 0:
                    logger.warning("database_lost", **logs.describe(error))
                failures += 1
                await self._pause(REOPEN_SECONDS)

    async def connect(self) -> Own:
        """Open a connection that is set as the queues need it. Raises what the database raises."""
        connection = await connect(self._settings.database_url.get_secret_value(), "molam-webhook-worker")
        # The server ends the transaction of a worker that stands still, or its event could not be taken over.
        milliseconds = round(self._settings.molam_worker_lease_seconds * 1000)
        await connection.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}; {IN_ORDER}")
        return connection

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return

    def _ring(self) -> None:
        for _, bell in self._lanes:
            bell.ring()


def _describe(item: Item) -> dict[str, object]:
    """An item as log fields."""
    event = events.parse(item.payload)
    fields: dict[str, object] = {"event_id": item.event_id, "event_type": item.event_type}
    if isinstance(event, Event):
        fields["payment_id"] = orders.payment_intent_id(event)
        fields["amount"] = (event.data or {}).get("amount")
    return fields


async def _close(connection: Own) -> None:
    try:
        await connection.close(timeout=REOPEN_SECONDS)
    except ERRORS:
        connection.terminate()
