"""The cache, with a real server that is killed, stopped and started again: its loss is a value that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from molam_webhook import cache as module
from molam_webhook.cache import Cache
from support import Valkey


@pytest.fixture(autouse=True)
def _short_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BREAKER_SECONDS", 0.3)
    monkeypatch.setattr(module, "PROBE_INTERVAL_SECONDS", 0)


def run(url: str, use: Callable[[Cache], Awaitable[None]]) -> None:
    async def body() -> None:
        cache = Cache(url)
        try:
            await use(cache)
        finally:
            await cache.close()

    asyncio.run(body())


async def back(cache: Cache) -> None:
    """Wait until the cache answers again; the limit only ends a hopeless wait."""
    async with asyncio.timeout(20):
        while not await cache.healthy():
            await asyncio.sleep(0.02)


def test_a_value_is_there_until_its_time_is_over(valkey: Valkey) -> None:
    async def use(cache: Cache) -> None:
        assert await cache.get("k") is None
        await cache.set("k", b"\0v", 1)
        assert await cache.get("k") == b"\0v"
        assert await cache.healthy()
        async with asyncio.timeout(20):
            while await cache.get("k") is not None:
                await asyncio.sleep(0.05)

    run(valkey.url, use)


def test_numbers_add_up_until_their_time_is_over(valkey: Valkey) -> None:
    async def use(cache: Cache) -> None:
        assert [await cache.add("n", 1, 2), await cache.add("n", 2, 2)] == [1, 3]
        # One sum for whoever adds at the same time.
        assert max(await asyncio.gather(*(cache.add("n", 1, 2) for _ in range(5))), key=lambda found: found or 0) == 8
        # Whoever adds later does not lengthen it.
        async with asyncio.timeout(20):
            while await cache.add("n", 1, 60) != 1:
                await asyncio.sleep(0.05)

    run(valkey.url, use)


@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_without_it_a_value_is_not_there_and_it_is_used_again_when_it_is_back(valkey: Valkey, fault: str) -> None:
    async def use(cache: Cache) -> None:
        await cache.set("k", b"v", 60)
        getattr(valkey, fault)()
        for _ in range(5):
            assert await cache.get("k") is None
        await cache.set("k", b"w", 60)
        assert not await cache.healthy()
        valkey.resume()
        await back(cache)
        await cache.set("k", b"x", 60)
        assert await cache.get("k") == b"x"

    run(valkey.url, use)


def test_a_dead_cache_is_not_asked_for_every_call(directory: Path) -> None:
    """Counted by a listener that never answers: three faults, and then nobody comes."""

    async def main() -> None:
        connections = 0

        async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.read()
            writer.close()

        listener = await asyncio.start_unix_server(silence, directory / "silent.sock")
        cache = Cache(f"unix://{directory}/silent.sock")
        for _ in range(20):
            assert await cache.get("k") is None
        assert connections == module.BREAKER_FAULTS
        await cache.close()
        listener.close()

    asyncio.run(main())


def test_a_caller_that_is_cancelled_leaves_no_answer_to_the_next(valkey: Valkey) -> None:
    """What was cancelled in between must not be read as the answer to another command."""

    async def use(cache: Cache) -> None:
        await cache.set("a", b"a", 60)
        await cache.set("b", b"b", 60)
        valkey.stop()
        asked = asyncio.create_task(cache.get("a"))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        valkey.resume()
        await back(cache)
        assert await cache.get("b") == b"b"

    run(valkey.url, use)


def test_its_faults_show_no_password(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def use(cache: Cache) -> None:
        assert await cache.get("k") is None

    run(f"unix://:hunter2@{directory}/nothing.sock", use)
    printed = capfd.readouterr()
    assert "cache_unavailable" in printed.out + printed.err
    assert "hunter2" not in printed.out + printed.err
