"""The receiver's connections to the database: as many as it should have, and no more."""

import asyncio

import pytest
from molam_webhook.config import ReceiverSettings
from molam_webhook.database import Database
from support import DEADLINE_SECONDS, SECRET, Postgres, query

pytestmark = pytest.mark.database

_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'molam-webhook'"


def test_the_pool_opens_5_connections_and_20_under_load(
    postgres: Postgres, database: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres.url(database, "molam_webhook"))
    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", SECRET)
    # Not the default of 30 s, which nobody wants to wait for.
    monkeypatch.setenv("DATABASE_POOL_IDLE_SECONDS", "0.5")

    async def sessions() -> int:
        return int((await asyncio.to_thread(query, url, _SESSIONS))[0][0])

    async def sessions_become(number: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await sessions() != number:
                await asyncio.sleep(0.02)

    async def run() -> None:
        pool = Database(ReceiverSettings.load())
        released = asyncio.Event()

        async def borrow() -> int:
            async with pool.acquire() as connection:
                await released.wait()
                return int(await connection.fetchval("SELECT 1"))

        await sessions_become(0)
        pool.start()
        await sessions_become(5)
        borrowers = [asyncio.create_task(borrow()) for _ in range(20)]
        await sessions_become(20)
        # Who comes now waits for one of them. Each look is a new session of its own: time enough to open another.
        borrowers += [asyncio.create_task(borrow()) for _ in range(5)]
        assert {await sessions() for _ in range(10)} == {20}
        released.set()
        assert sum(await asyncio.gather(*borrowers)) == 25
        await sessions_become(5)
        await pool.stop()
        await sessions_become(0)

    asyncio.run(run())
