"""How the lanes of one worker are woken, and how one of them gets to work alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Bell:
    """Wakes one sleeper at each ring; a ring that finds nobody asleep is kept for the next."""

    def __init__(self) -> None:
        self._rung: asyncio.Queue[None] = asyncio.Queue(1)

    def ring(self) -> None:
        """Wake one."""
        if not self._rung.full():
            self._rung.put_nowait(None)

    async def wait(self, seconds: float) -> None:
        """Sleep until woken, for so many seconds at the most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.get()


class Floor:
    """A place where up to `lanes` work side by side, or one alone."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._free = asyncio.Semaphore(lanes)

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Work beside others."""
        async with self._free:
            yield

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Work with nobody beside, as soon as those at work have finished. Only one at a time may ask for this."""
        async with contextlib.AsyncExitStack() as taken:
            for _ in range(self._lanes):
                await taken.enter_async_context(self._free)
            yield
