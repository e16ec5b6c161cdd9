"""Group commit: everyone is answered, with their own outcome, and nobody's haste hurts a neighbour."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from molam_webhook.batcher import BATCH_MAX, HELD_BYTES_MAX, TRIES_MAX, WRITERS, Batcher, RefusedError
from molam_webhook.outcomes import Outcome

FATAL = 1000


class Store:
    """Stores numbers in memory. A batch with a negative number is refused; one with FATAL fails for all.
    `open` holds commits back.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.known: set[int] = set()
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, batch: Sequence[int]) -> list[Outcome]:
        self.batches.append(list(batch))
        await self.open.wait()
        if FATAL in batch:
            raise OSError("disk full")
        if min(batch) < 0:
            raise RefusedError
        outcomes = []
        for number in batch:
            outcomes.append(Outcome.DUPLICATE if number in self.known else Outcome.ACCEPTED)
            self.known.add(number)
        return outcomes


@given(st.lists(st.lists(st.integers(-2, 50) | st.just(FATAL), max_size=40), max_size=8))
def test_each_is_told_what_became_of_its_own(bursts: list[list[int]]) -> None:
    async def scenario() -> None:
        store = Store()
        batcher = Batcher(store, queue_max=10_000)
        told: list[tuple[int, Outcome]] = []
        for burst in bursts:
            outcomes = await asyncio.gather(*(batcher.submit(number, 1) for number in burst))
            told.extend(zip(burst, outcomes, strict=True))
            for number, outcome in zip(burst, outcomes, strict=True):
                # One that is bad alone never fails a neighbour; what fails for all may.
                assert (outcome is Outcome.UNAVAILABLE) == (number < 0) or FATAL in burst
        await batcher.finish()
        accepted = [number for number, outcome in told if outcome is Outcome.ACCEPTED]
        assert sorted(accepted) == sorted(store.known)
        for number, outcome in told:
            assert number in store.known or outcome is Outcome.UNAVAILABLE

    asyncio.run(scenario())


def test_where_all_are_bad_the_search_ends() -> None:
    async def scenario() -> None:
        store = Store()
        batcher = Batcher(store, queue_max=10_000)
        outcomes = await asyncio.gather(*(batcher.submit(-1, 1) for _ in range(BATCH_MAX)))
        assert set(outcomes) == {Outcome.UNAVAILABLE}
        assert len(store.batches) == TRIES_MAX

    asyncio.run(scenario())


def test_a_fault_that_is_no_items_own_ends_the_search_and_keeps_what_was_stored() -> None:
    async def scenario() -> None:
        store = Store()
        batcher = Batcher(store, queue_max=10_000)
        # Found bad with the second half, good alone; the third quarter fails for all.
        numbers = [1, 2, 3, 4, FATAL, 5, -1, 6]
        store.open.clear()
        asking = [asyncio.create_task(batcher.submit(number, 1)) for number in numbers]
        store.open.set()
        assert set(await asyncio.gather(*asking)) == {Outcome.UNAVAILABLE}
        assert len(store.batches) == 1

    asyncio.run(scenario())


def test_what_arrives_together_is_committed_together() -> None:
    async def scenario() -> None:
        store = Store()
        batcher = Batcher(store, queue_max=10_000)
        await asyncio.gather(*(batcher.submit(number, 1) for number in range(1000)))
        assert max(map(len, store.batches)) == BATCH_MAX
        assert len(store.batches) <= 1000 / BATCH_MAX + WRITERS

    asyncio.run(scenario())


def test_a_full_queue_turns_away_and_an_empty_one_takes_again() -> None:
    async def scenario() -> None:
        store = Store()
        store.open.clear()
        batcher = Batcher(store, queue_max=10)
        waiting = []
        for number in range(WRITERS + 10):
            waiting.append(asyncio.create_task(batcher.submit(number, 1)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert await batcher.submit(99, 1) is Outcome.UNAVAILABLE
        store.open.set()
        assert set(await asyncio.gather(*waiting)) == {Outcome.ACCEPTED}
        assert await batcher.submit(99, 1) is Outcome.ACCEPTED

    asyncio.run(scenario())


def test_what_is_held_until_its_commit_has_a_bound_in_bytes() -> None:
    async def scenario() -> None:
        store = Store()
        store.open.clear()
        batcher = Batcher(store, queue_max=10_000)
        waiting = []
        # The first ones are in the writers' hands, and held like those that wait.
        for number in range(WRITERS + 2):
            waiting.append(asyncio.create_task(batcher.submit(number, HELD_BYTES_MAX // (WRITERS + 2))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        late = asyncio.create_task(batcher.submit(99, 1))
        await asyncio.sleep(0)
        assert late.done()
        assert late.result() is Outcome.UNAVAILABLE
        store.open.set()
        assert set(await asyncio.gather(*waiting)) == {Outcome.ACCEPTED}
        # Whatever becomes of one, it is held no longer.
        for number, outcome in ((-1, Outcome.UNAVAILABLE), (FATAL, Outcome.UNAVAILABLE), (99, Outcome.ACCEPTED)):
            assert await batcher.submit(number, HELD_BYTES_MAX) is outcome
        assert await batcher.submit(100, HELD_BYTES_MAX + 1) is Outcome.UNAVAILABLE

    asyncio.run(scenario())


def test_a_waiter_that_gives_up_neither_stops_the_commit_nor_its_neighbours() -> None:
    async def scenario() -> None:
        store = Store()
        store.open.clear()
        batcher = Batcher(store, queue_max=10)
        hasty = asyncio.create_task(batcher.submit(1, 1))
        patient = asyncio.create_task(batcher.submit(2, 1))
        await asyncio.sleep(0.01)
        hasty.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hasty
        store.open.set()
        assert await patient is Outcome.ACCEPTED
        assert store.known == {1, 2}

    asyncio.run(scenario())
