"""What taking an item costs: the same in a queue of ten and of ten thousand, whatever the statistics say."""

from __future__ import annotations

import asyncio

import pytest
from molam_webhook import leases
from molam_webhook.handling import Handling
from molam_webhook.worker import Worker
from processing import settings_with
from pydantic import SecretStr
from support import query, setting, wait_until

pytestmark = [pytest.mark.database, pytest.mark.later_schema]

BACKLOG = 5000
TAKEN = 30
WAITING = """
INSERT INTO webhook_deliveries (event_id, event_type, created, payload, signature, kid, next_attempt_at)
SELECT 'evt_' || i, 'odd', now(), convert_to(repeat('x', 330), 'UTF8'), repeat('s', 90), 'v1',
  now() - interval '1 hour' + i * interval '0.1 s'
FROM generate_series($1::int, $2::int) AS i
"""
ROWS_READ = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'webhook_deliveries'"
PAGES_READ = """
SELECT idx_blks_hit + idx_blks_read FROM pg_statio_user_indexes WHERE indexrelname = 'idx_webhook_deliveries_pending'
"""


def cost(url: str, counter: str) -> float:
    """Take a few items as the worker does; returns what PostgreSQL counted for each."""

    async def take() -> list[str]:
        chosen = settings_with(database_url=SecretStr(url))
        queue = Handling(chosen.molam_handlers, forwarding=False).queue
        connection = await Worker(chosen).connect()
        try:
            items = [await queue.take(connection, 60, durable=False) for _ in range(TAKEN)]
        finally:
            await connection.close()
        return [item.event_id for item in items if item]

    before = int(query(url, counter)[0][0])
    taken = asyncio.run(take())
    assert len(taken) == TAKEN
    assert taken == sorted(taken, key=lambda event_id: int(event_id.removeprefix("evt_")))
    # A connection's share is counted once it has ended.
    wait_until(lambda: int(query(url, counter)[0][0]) > before)
    return (int(query(url, counter)[0][0]) - before) / TAKEN


def test_a_backlog_that_the_statistics_do_not_know_is_not_sorted(url: str) -> None:
    # As of a table that was never looked at; the planner then sorts once there are enough of them.
    query(url, "DELETE FROM pg_statistic WHERE starelid = 'webhook_deliveries'::regclass")
    query(url, WAITING, 1, 8 * BACKLOG)
    assert cost(url, ROWS_READ) < BACKLOG / 10


def test_what_is_done_is_not_walked_through_for_each_item(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query(url, WAITING, 1, BACKLOG)
    query(url, "UPDATE webhook_deliveries SET state = 'done'")
    query(url, WAITING, BACKLOG + 1, BACKLOG + 2 * TAKEN)
    some = cost(url, PAGES_READ)
    monkeypatch.setattr(leases, "LOOK_BACK_SECONDS", 0)
    assert cost(url, PAGES_READ) > 3 * some


def test_an_item_with_an_earlier_time_is_found_a_moment_later(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LOOK_BACK_SECONDS", 0.2)
    query(url, WAITING, 1000, 1000)

    async def take() -> list[str]:
        chosen = settings_with(database_url=SecretStr(url))
        queue = Handling(chosen.molam_handlers, forwarding=False).queue
        connection = await Worker(chosen).connect()
        found: list[str] = []
        async with asyncio.timeout(10):
            while len(found) < 2:
                item = await queue.take(connection, 60, durable=False)
                if item:
                    found.append(item.event_id)
                    if len(found) == 1:
                        await connection.execute(WAITING, 1, 1)
        await connection.close()
        return found

    assert asyncio.run(take()) == ["evt_1000", "evt_1"]


@pytest.mark.parametrize("durable", [False, True])
def test_to_take_an_item_waits_for_no_standby(url: str, *, durable: bool) -> None:
    """Nor does to come too late: the item is locked, so there is something to commit, before it is seen to be taken."""
    chosen = settings_with(database_url=SecretStr(url))
    queue = Handling(chosen.molam_handlers, forwarding=False).queue

    async def race() -> list[str]:
        lanes = [await Worker(chosen).connect() for _ in range(8)]
        found: list[str] = []
        for number in range(50):
            async with lanes[0].transaction():
                await lanes[0].execute("SET LOCAL synchronous_commit = off")
                await lanes[0].execute(WAITING, number, number)
            items = await asyncio.gather(*(queue.take(lane, 60, durable=durable) for lane in lanes))
            found += [item.event_id for item in items if item]
        for lane in lanes:
            await lane.close()
        return found

    with setting(url, "synchronous_standby_names", "nobody"):
        assert asyncio.run(race()) == [f"evt_{number}" for number in range(50)]
