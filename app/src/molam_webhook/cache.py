"""The cache: Valkey (or Redis), for what is quicker remembered than asked for again.

Its loss costs speed and nothing else: whatever goes wrong with it, a value is not there.
"""

from __future__ import annotations

import asyncio
from typing import Any

from circuitbreaker import CircuitBreaker
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from molam_webhook import logs
from molam_webhook.logs import logger

# It answers in less than a millisecond, or it is of no use.
COMMAND_SECONDS = 0.1

# After this many faults in a row it is left alone, for this long.
BREAKER_FAULTS = 3
BREAKER_SECONDS = 2

PROBE_INTERVAL_SECONDS = 1.0

_ERRORS = (RedisError, OSError, TimeoutError)


class Cache:
    """One cache, connected to when it is first asked. No method raises because of a fault of it."""

    def __init__(self, url: str) -> None:
        """Take a URL such as `unix:///run/valkey/valkey.sock` or `redis://localhost:6379/0`."""
        self._client = Redis.from_url(url, retry=Retry(NoBackoff(), 0))
        # Who is cancelled while waiting for it has not seen it work.
        self._breaker = CircuitBreaker(BREAKER_FAULTS, BREAKER_SECONDS, (*_ERRORS, asyncio.CancelledError), "cache")
        self._probe_lock = asyncio.Lock()
        self._probed_at = float("-inf")
        self._healthy = False

    async def get(self, key: str) -> bytes | None:
        """The value of `key`; None where there is none, or where the cache cannot be asked."""
        value = await self._ask("GET", key)
        return value if isinstance(value, bytes) else None

    async def set(self, key: str, value: bytes, seconds: int) -> None:
        """Remember `value` under `key` for so many seconds, if the cache can."""
        await self._ask("SET", key, value, "EX", seconds)

    async def add(self, key: str, amount: int, seconds: int) -> int | None:
        """Add to the number under `key`, which is forgotten so many seconds after its beginning, and return the sum;
        None where the cache cannot be asked.
        """
        # In this order none is ever kept without an end.
        await self._ask("SET", key, 0, "EX", seconds, "NX")
        value = await self._ask("INCRBY", key, amount)
        return value if isinstance(value, int) else None

    async def healthy(self) -> bool:
        """Whether the cache answers. Asks at most once a second, however many callers there are."""
        async with self._probe_lock:
            now = asyncio.get_running_loop().time()
            if now - self._probed_at >= PROBE_INTERVAL_SECONDS:
                self._healthy = await self._ask("PING") is not None
                self._probed_at = asyncio.get_running_loop().time()
            return self._healthy

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _ask(self, *command: str | bytes | int) -> Any:  # noqa: ANN401  the driver knows each command's answer
        """The answer to one command; None where there is none in time."""
        if self._breaker.opened:
            return None
        try:
            with self._breaker:
                async with asyncio.timeout(COMMAND_SECONDS):
                    return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]  # the driver's
        except _ERRORS as error:
            logger.warning("cache_unavailable", **logs.describe(error))
            return None
