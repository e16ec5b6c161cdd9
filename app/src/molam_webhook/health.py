"""How a process is: what its parts say for the health endpoints, and whether work should come to it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from prometheus_client import Gauge

from molam_webhook import logs, schema
from molam_webhook.database import ERRORS, PROBE_SECONDS, Connection
from molam_webhook.logs import logger

if TYPE_CHECKING:
    from molam_webhook.cache import Cache

HEALTHY, UNHEALTHY, DISABLED = "healthy", "unhealthy", "disabled"

_NO_DATABASE = "the database cannot be used"

_CACHE_HEALTHY = Gauge("molam_webhook_cache_healthy", "1 where the cache answers, 0 where it does not, NaN without one")
_CACHE_VALUES = {HEALTHY: 1.0, UNHEALTHY: 0.0, DISABLED: math.nan}


class Health:
    """The health of one process: of its database and its cache, if it has one.

    `works` says whether the process can do its work in the database, without raising; `connect` lends a connection to
    it, and may raise one of `database.ERRORS`.
    """

    def __init__(
        self,
        cache: Cache | None,
        works: Callable[[], Awaitable[bool]],
        connect: Callable[[], AbstractAsyncContextManager[Connection]],
    ) -> None:
        self._works = works
        self._connect = connect
        self._cache = cache
        self._draining = False

    def drain(self) -> None:
        """Say that the process is about to stop: no more work should come to it."""
        self._draining = True

    async def report(self) -> dict[str, str]:
        """Status, database and cache. The loss of the cache costs speed only: the status is the database's."""
        database = _word(await self._works())
        return {"status": database, "database": database, "cache": await self.cache()}

    async def cache(self) -> str:
        """The cache alone; its metric says the same from now on."""
        cache = DISABLED if self._cache is None else _word(await self._cache.healthy())
        _CACHE_HEALTHY.set(_CACHE_VALUES[cache])
        return cache

    async def fault(self) -> str | None:
        """Why no work should come to this process, in a few words; None when it should."""
        if self._draining:
            return "it is stopping"
        if not await self._works():
            return _NO_DATABASE
        try:
            async with asyncio.timeout(PROBE_SECONDS), self._connect() as connection:
                return await schema.fault(connection)
        except ERRORS as error:
            logger.warning("schema_unknown", **logs.describe(error))
            return _NO_DATABASE


def _word(healthy: bool) -> str:
    return HEALTHY if healthy else UNHEALTHY
