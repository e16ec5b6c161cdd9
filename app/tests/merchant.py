"""Handlers as a merchant would write them, found by entry point; they fail on demand.

Each call leaves a row of its own in shop.acts. What else happens is said by the event's data (`do`) or, for every
event of one process, by the variable SHOP_DO.
"""

import asyncio
import os
import signal
from datetime import datetime
from uuid import uuid4

from molam_webhook.config import ApiSettings
from molam_webhook.database import Connection
from molam_webhook.event import Event
from molam_webhook.handlers import Unprocessable
from molam_webhook.payment_intents import PaymentIntents

ENTRY_POINTS = """
[molam_webhook.handlers]
witness = merchant:witness
counter = merchant:Counter
inquirer = merchant:Inquirer
synchronous = merchant:synchronous
missing = merchant:missing
broken = merchant_that_is_not_there:handler
"""

SCHEMA = """
CREATE SCHEMA IF NOT EXISTS shop;
CREATE TABLE IF NOT EXISTS shop.acts (act uuid PRIMARY KEY, event_id text NOT NULL, position integer);
TRUNCATE shop.acts;
GRANT USAGE ON SCHEMA shop TO molam_webhook_worker;
GRANT SELECT, INSERT ON shop.acts TO molam_webhook_worker
"""


class Panic(BaseException):
    """What a library raises that nobody is to catch."""


async def witness(connection: Connection, event: Event, _received_at: datetime) -> None:
    """Leave a row, then do as told."""
    await connection.execute("INSERT INTO shop.acts (act, event_id) VALUES ($1, $2)", uuid4(), event.id)
    match os.environ.get("SHOP_DO") or (event.data or {}).get("do"):
        case "die":
            # Not before the others are at work as well.
            await asyncio.sleep(0.1)
            os._exit(9)
        case "stand still":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "linger":
            await asyncio.sleep(0.3)
        case "hang":
            await asyncio.sleep(3600)
        case "cancel":
            raise asyncio.CancelledError
        case "panic":
            raise Panic("it is not an Exception")
        case "refuse":
            raise Unprocessable("it is not ours")


class Counter:
    """Leaves rows that count the events of this process."""

    def __init__(self) -> None:
        self._count = 0

    async def __call__(self, connection: Connection, event: Event, _received_at: datetime) -> None:
        self._count += 1
        insert = "INSERT INTO shop.acts (act, event_id, position) VALUES ($1, $2, $3)"
        await connection.execute(insert, uuid4(), event.id, self._count)


class Inquirer:
    """Asks the Molam API about one payment that all events share."""

    def __init__(self) -> None:
        self._intents = PaymentIntents(ApiSettings.load())

    async def __call__(self, _connection: Connection, _event: Event, _received_at: datetime) -> None:
        await self._intents.payment_intent("pi_shared")


def synchronous(_connection: Connection, _event: Event, _received_at: datetime) -> None:
    """No handler: it is not async."""
