"""The worker: takes pending events from the inbox and applies them, each with its done mark in one
transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable
from datetime import datetime

import asyncpg

from molam_webhook import event as events
from molam_webhook import logs, orders
from molam_webhook.config import WorkerSettings
from molam_webhook.database import ERRORS, REOPEN_SECONDS, Connection, connect
from molam_webhook.event import Event
from molam_webhook.inbox import CHANNEL
from molam_webhook.logs import logger
from molam_webhook.notify import notify
from molam_webhook.outcomes import Outcome

BACKOFF_MAX_SECONDS = 3600.0

# Applies an event's effects over the connection, in the worker's transaction; returns why it cannot, or None.
Handler = Callable[[Connection, Event, datetime], Awaitable[str | None]]

_CLAIM = """
SELECT id, event_id, event_type, payload, attempts, created_at FROM webhook_deliveries
WHERE state = 'pending' AND next_attempt_at <= now()
ORDER BY next_attempt_at, id LIMIT 1
FOR UPDATE SKIP LOCKED
"""

_DONE = """
UPDATE webhook_deliveries SET state = 'done', attempts = attempts + 1, processed_at = now(), last_error = NULL
WHERE id = $1
"""

_FAILED = """
UPDATE webhook_deliveries
SET state = $2, attempts = attempts + 1, last_error = $3, next_attempt_at = now() + make_interval(secs => $4)
WHERE id = $1
"""


class Worker:
    """Applies pending events one after another over a connection of its own, until it is stopped."""

    def __init__(self, settings: WorkerSettings, handler: Handler = orders.apply) -> None:
        self._settings = settings
        self._handler = handler
        self._wake = asyncio.Event()
        self._stopping = False
        self._ready = False

    async def run(self) -> None:
        """Work until stopped (SIGTERM, SIGINT), reconnecting whenever the database goes away."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        while not self._stopping:
            try:
                await self._work()
            except ERRORS as error:
                logger.warning("database_lost", **logs.describe(error))
                await self._sleep(REOPEN_SECONDS)

    def stop(self) -> None:
        """Stop once the event in hand is finished."""
        notify("STOPPING=1")
        self._stopping = True
        self._wake.set()

    async def step(self, connection: Connection) -> bool:
        """Take one pending event and finish it, or record why not; False when none is due."""
        async with connection.transaction():
            row = await connection.fetchrow(_CLAIM)
            if row is None:
                return False
            event = events.parse(row["payload"])
            fault = await self._apply(connection, event, row["created_at"])
            outcome, pause = "done", 0.0
            if fault is None:
                await connection.execute(_DONE, row["id"])
            else:
                attempts = row["attempts"] + 1
                outcome = "pending" if attempts < self._settings.molam_worker_max_attempts else "dead"
                pause = backoff(attempts, self._settings.molam_worker_backoff_seconds)
                await connection.execute(_FAILED, row["id"], outcome, fault, pause)
        fields = {"event_id": row["event_id"], "event_type": row["event_type"], "outcome": outcome}
        if isinstance(event, Event):
            fields["payment_id"] = orders.payment_intent_id(event)
            fields["amount"] = (event.data or {}).get("amount")
        if fault is None:
            logger.info("event_applied", **fields)
        else:
            log = logger.error if outcome == "dead" else logger.warning
            log("event_failed", **fields, fault=fault, attempts=attempts, pause_seconds=round(pause, 1))
        return True

    async def _work(self) -> None:
        connection = await connect(self._settings.database_url.get_secret_value(), "molam-webhook-worker")
        try:
            # A connection that ends while nothing happens must wake us as well.
            connection.add_termination_listener(lambda _connection: self._wake.set())
            await connection.add_listener(CHANNEL, lambda *_notification: self._wake.set())
            if not self._ready:
                self._ready = True
                notify("READY=1")
            while not self._stopping:
                self._wake.clear()
                while not self._stopping and await self.step(connection):
                    pass
                await self._sleep(self._settings.molam_worker_poll_seconds)
        finally:
            await _close(connection)

    async def _apply(self, connection: Connection, event: Event | Outcome, received_at: datetime) -> str | None:
        """Run the handler so that either all of its effects are kept or none; returns what went wrong, or
        None.
        """
        if isinstance(event, Outcome):
            return f"the stored payload is {event}"
        try:
            # A savepoint: the failure must be recorded in the transaction that holds the event.
            async with connection.transaction():
                fault = await self._handler(connection, event, received_at)
                if fault is not None:
                    raise _Refused(fault)
        except _Refused as refusal:
            return str(refusal)
        except Exception as error:
            # Where the connection was lost, recording this fails as well: the event is not blamed.
            return f"{type(error).__name__}: {logs.describe(error)['message']}"
        return None

    async def _sleep(self, seconds: float) -> None:
        if not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), seconds)


class _Refused(Exception):
    """A handler's reason, on its way out of the savepoint that it undoes."""


def backoff(attempts: int, base_seconds: float) -> float:
    """Seconds to wait after the given number of attempts: doubling, at most an hour, spread by half either
    way.
    """
    return min(base_seconds * 2.0 ** (attempts - 1), BACKOFF_MAX_SECONDS) * random.uniform(0.5, 1.5)  # noqa: S311  no secret


async def _close(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    try:
        await connection.close(timeout=REOPEN_SECONDS)
    except ERRORS:
        connection.terminate()
