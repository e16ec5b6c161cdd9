"""Group commit: requests that arrive together are stored together, each told its own outcome.

There is no timer. A request that finds a free writer starts a batch with whatever arrives in the same turn
of the event loop; while all writers are busy committing, the next batch gathers.

A batch that is refused for what is in it is halved until the bad item stands alone, so that one item never fails
its neighbours. What was verified and still refused is not the sender's fault: it is UNAVAILABLE like all that could not
be stored, and comes again.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from molam_webhook import logs
from molam_webhook.logs import logger
from molam_webhook.outcomes import Outcome

BATCH_MAX = 256
WRITERS = 2
# Bytes of what is not committed yet. While a batch is sent, the driver holds it once more.
HELD_BYTES_MAX = 64 * 1024 * 1024
# Enough to find thirty bad items in a full batch. Where far more are bad, it is not the items that are wrong.
TRIES_MAX = 256

T = TypeVar("T")


class RefusedError(Exception):
    """A batch was refused for what one of its items holds. Smaller batches may pass."""


class Batcher(Generic[T]):
    """Gathers items into batches of up to BATCH_MAX for `store`, which commits a batch and returns its
    outcomes in order, or raises having promised nothing: RefusedError where smaller batches may pass. At
    most `queue_max` items wait, and what is held until its commit is HELD_BYTES_MAX at most; beyond that items are
    turned away.
    """

    def __init__(self, store: Callable[[Sequence[T]], Awaitable[Sequence[Outcome]]], queue_max: int) -> None:
        self._store = store
        self._queue_max = queue_max
        self._queue: deque[tuple[T, int, asyncio.Future[Outcome]]] = deque()
        self._held_bytes = 0
        self._writers: set[asyncio.Task[None]] = set()

    async def submit(self, item: T, size: int) -> Outcome:
        """Store `item`, of `size` bytes, with its neighbours and say what became of it; UNAVAILABLE where that is not
        known.

        A caller that stops waiting changes nothing for the others, nor for the commit.
        """
        if len(self._queue) >= self._queue_max or self._held_bytes + size > HELD_BYTES_MAX:
            return Outcome.UNAVAILABLE
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queue.append((item, size, answer))
        self._held_bytes += size
        if len(self._writers) < WRITERS:
            writer = asyncio.create_task(self._drain())
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return await answer

    @property
    def waiting(self) -> int:
        """How many items no writer has taken yet."""
        return len(self._queue)

    async def finish(self) -> None:
        """Wait until everything submitted has been stored or turned away."""
        while self._writers:
            await asyncio.wait(self._writers)

    async def _drain(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
            outcomes = await self._stored([item for item, _, _ in batch])
            for (_, size, answer), outcome in zip(batch, outcomes, strict=True):
                self._held_bytes -= size
                # A waiter that has given up has cancelled its future.
                if not answer.done():
                    answer.set_result(outcome)

    async def _stored(self, items: Sequence[T]) -> Sequence[Outcome]:
        # Until an item is known to be stored, nobody may be told that it is safe.
        outcomes = [Outcome.UNAVAILABLE] * len(items)
        parts = [(0, len(items))]
        tries = 0
        while parts and tries < TRIES_MAX:
            start, end = parts.pop()
            tries += 1
            try:
                outcomes[start:end] = await self._store(items[start:end])
            except RefusedError:
                if end - start > 1:
                    # The first half is taken first: of two items with the same id, the first is the one kept.
                    middle = (start + end) // 2
                    parts += [(middle, end), (start, middle)]
            except Exception as error:
                # Not the items' doing, so the others would fare no better.
                logger.error("batch_not_stored", size=len(items), **logs.describe(error))
                return outcomes
        if parts:
            logger.error("batch_not_stored", size=len(items), error="TooManyRefused", tries=tries)
        return outcomes
