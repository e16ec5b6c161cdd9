"""Faults under load: whatever breaks, what was answered 200 is stored once and acted on once, and all mends itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import asyncpg
import pytest
from faults.history import SENDERS
from faults.proof import ENOUGH, OURS, Fault, Site, StartSite, backends_killed, prove, restarts
from support import DATABASE, query, setting, wait_until

pytestmark = pytest.mark.database


@contextmanager
def receiver_killed(site: Site) -> Iterator[None]:
    site.service.kill()
    yield
    site.service.restart()


@contextmanager
def worker_killed(site: Site) -> Iterator[None]:
    site.worker.kill()
    yield
    site.worker.restart()


@contextmanager
def both_suspended(site: Site) -> Iterator[None]:
    """Longer than the worker's lease of 1 s."""
    for process in (site.service, site.worker):
        process.suspend()
    time.sleep(3)
    yield
    for process in (site.service, site.worker):
        process.resume()


@contextmanager
def postgres_killed(site: Site) -> Iterator[None]:
    site.postgres.kill()
    try:
        yield
    finally:
        # As the service manager does, until what is left of the old one is gone.
        wait_until(partial(restarts, site.postgres))


@contextmanager
def postgres_stopped(site: Site) -> Iterator[None]:
    site.postgres.stop()
    try:
        yield
    finally:
        site.postgres.start()


@contextmanager
def postgres_read_only(site: Site) -> Iterator[None]:
    with setting(site.url, "default_transaction_read_only", "on"):
        yield


@contextmanager
def out_of_connections(site: Site) -> Iterator[None]:
    with asyncio.Runner() as runner:
        taken = runner.run(_take_all_connections(site))
        try:
            yield
        finally:
            for connection in taken:
                runner.run(connection.close())


async def _take_all_connections(site: Site) -> list[asyncpg.Connection[asyncpg.Record]]:
    administrator = await asyncpg.connect(site.url)
    taken = [administrator]
    while True:
        try:
            taken.append(await asyncpg.connect(site.postgres.url(DATABASE, "molam_webhook_owner")))
        except asyncpg.TooManyConnectionsError:
            # Those that the receiver and the worker have, too.
            if not await administrator.fetchval(_terminate(OURS)):
                return taken


def _terminate(which: str) -> str:
    return f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {which}"


@contextmanager
def backends_terminated(site: Site) -> Iterator[None]:
    for _ in range(10):
        query(site.url, _terminate(OURS))
    yield


@contextmanager
def commits_of_unknown_outcome(site: Site) -> Iterator[None]:
    """Connections end when their commit is on the disk and not yet confirmed, for want of a standby."""
    waiting = f"{OURS} AND wait_event = 'SyncRep'"
    with setting(site.url, "synchronous_standby_names", "nobody"):
        for _ in range(5):
            wait_until(lambda: query(site.url, _terminate(waiting))[0][0])
        yield


@contextmanager
def table_locked(site: Site) -> Iterator[None]:
    """Longer than a statement may take."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(site.url))
        runner.run(connection.execute("BEGIN; LOCK TABLE webhook_deliveries IN EXCLUSIVE MODE"))
        try:
            yield
        finally:
            runner.run(connection.close())


@pytest.mark.parametrize(
    ("fault", "refusals"),
    [
        pytest.param(fault, refusals, id=fault.__name__)
        for fault, refusals in (
            (receiver_killed, ENOUGH),
            (worker_killed, 0),
            (postgres_killed, ENOUGH),
            (backends_killed, 1),
            (postgres_stopped, ENOUGH),
            (postgres_read_only, ENOUGH),
            (out_of_connections, SENDERS),
            (backends_terminated, SENDERS),
            (commits_of_unknown_outcome, 1),
            (table_locked, SENDERS),
        )
    ],
)
def test_nothing_is_lost_and_nothing_is_done_twice(fault: Fault, refusals: int, start_site: StartSite) -> None:
    prove(fault, refusals, start_site())


def test_what_was_in_hand_while_all_stood_still_is_done_once(start_site: StartSite) -> None:
    prove(both_suspended, 0, start_site(worker={"MOLAM_WORKER_LEASE_SECONDS": "1"}))
