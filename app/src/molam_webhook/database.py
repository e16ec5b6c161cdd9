"""Connections to PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from molam_webhook import logs
from molam_webhook.config import ReceiverSettings
from molam_webhook.logs import logger

CONNECT_SECONDS = 2.0
STATEMENT_SECONDS = 4.0
# Where a person waits, who has asked for it.
PATIENT_SECONDS = 60.0
REOPEN_SECONDS = 1.0
PROBE_SECONDS = 2.0
PROBE_INTERVAL_SECONDS = 1.0

# What a database that is down, full, slow or not migrated raises.
# The driver calls it an internal error when a connection ends between two steps of one operation.
ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)

# Whether a delivery could be stored: connected, migrated, granted, and not a standby.
_PROBE = "SELECT has_table_privilege('webhook_deliveries', 'INSERT') AND NOT pg_is_in_recovery()"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"


async def connect(
    url: str, application_name: str, statement_seconds: float = STATEMENT_SECONDS
) -> asyncpg.Connection[asyncpg.Record]:
    """Open one connection. Raises one of ERRORS."""
    options = _options(application_name, statement_seconds)
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url, **options)
    await _insist_on_durability(connection)
    return connection


@asynccontextmanager
async def session(url: str, application_name: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Lend one connection, closed after use, for statements of PATIENT_SECONDS at most. Raises one of ERRORS."""
    connection = await connect(url, application_name, PATIENT_SECONDS)
    try:
        yield connection
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


class Database:
    """The receiver's pool of connections. It opens when the database can be reached, however late that is."""

    def __init__(self, settings: ReceiverSettings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._probe_lock = asyncio.Lock()
        self._probed_at = float("-inf")
        self._healthy = False

    def start(self) -> None:
        """Begin opening the pool; returns at once."""
        self._opening = asyncio.create_task(self._open())

    async def stop(self) -> None:
        """Close every connection, at once if they do not close in good order."""
        if self._opening is not None:
            self._opening.cancel()
        if self._pool is not None:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    def acquire(self) -> AbstractAsyncContextManager[PoolConnectionProxy[asyncpg.Record]]:
        """Lend a connection. Raises one of ERRORS, within CONNECT_SECONDS."""
        if self._pool is None:
            raise ConnectionError("the database has not been reached yet")
        return self._pool.acquire(timeout=CONNECT_SECONDS)

    async def healthy(self) -> bool:
        """Whether deliveries can be stored now. Asks at most once a second, however many callers there are,
        so that the public health endpoint cannot take connections from deliveries."""
        if self._pool is None:
            # Nothing to ask, and nothing to remember: a receiver that starts is ready as soon as the pool is open.
            return False
        async with self._probe_lock:
            now = asyncio.get_running_loop().time()
            if now - self._probed_at >= PROBE_INTERVAL_SECONDS:
                self._healthy = await self._probe()
                self._probed_at = asyncio.get_running_loop().time()
            return self._healthy

    async def _probe(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_SECONDS), self.acquire() as connection:
                return bool(await connection.fetchval(_PROBE))
        except ERRORS as error:
            logger.warning("database_unhealthy", **logs.describe(error))
            return False

    async def _open(self) -> None:
        settings = self._settings
        while True:
            try:
                self._pool = await asyncpg.create_pool(
                    settings.database_url.get_secret_value(),
                    min_size=settings.database_pool_min,
                    max_size=settings.database_pool_max,
                    max_inactive_connection_lifetime=settings.database_pool_idle_seconds,
                    init=_insist_on_durability,
                    reset=_keep_session,
                    **_options("molam-webhook"),
                )
                return
            except ERRORS as error:
                logger.warning("database_unreachable", **logs.describe(error))
                await asyncio.sleep(REOPEN_SECONDS)


def _options(application_name: str, statement_seconds: float = STATEMENT_SECONDS) -> dict[str, Any]:
    return {
        "timeout": CONNECT_SECONDS,
        "command_timeout": statement_seconds,
        "server_settings": {
            "application_name": application_name,
            # The inbox reads what another instance has just committed.
            "default_transaction_isolation": "read committed",
            "statement_timeout": f"{statement_seconds:.0f}s",
            "idle_in_transaction_session_timeout": "10s",
        },
    }


async def _insist_on_durability(connection: Connection) -> None:
    # Whatever the server's default: a 200 promises that the event outlives a crash. Stricter levels are kept.
    if await connection.fetchval("SHOW synchronous_commit") not in ("on", "remote_apply"):
        await connection.execute("SET synchronous_commit = on")


async def _keep_session(_connection: Connection) -> None:
    """Leave a returned connection as it is: nothing here changes its session, and RESET ALL would undo the
    above.
    """
