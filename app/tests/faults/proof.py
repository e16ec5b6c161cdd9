"""The proof that a fault under load loses nothing and does nothing twice, and that all mends itself."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple

from faults.history import Recorder, check
from processing import Start, WorkerProcess, pending
from support import Postgres, Service, query, wait_until

RECOVERY_SECONDS = 10
ENOUGH = 100


class Site(NamedTuple):
    """What a fault can befall; `url` is the database's, as its administrator."""

    postgres: Postgres
    url: str
    service: Service
    worker: WorkerProcess


Fault = Callable[[Site], AbstractContextManager[None]]


def restarts(postgres: Postgres) -> bool:
    """Start PostgreSQL as the service manager does; whether it came up."""
    with suppress(subprocess.CalledProcessError):
        postgres.start()
        return True
    return False


def prove(
    fault: Fault,
    refusals: int,
    postgres: Postgres,
    url: str,
    serve: Callable[..., Service],
    start_worker: Start,
    *,
    lease_seconds: str = "30",
) -> None:
    """Let a fault happen under load, until it has cost at least so many sends their 200; then compare.

    The worker waits and looks as often as it does by default. What is left has to be done in good time all the same.
    """
    site = Site(
        postgres,
        url,
        serve(DATABASE_POOL_MAX="4"),
        start_worker(
            MOLAM_HANDLERS="witness",
            MOLAM_WORKER_LEASE_SECONDS=lease_seconds,
            MOLAM_WORKER_POLL_SECONDS="2",
        ),
    )
    with Recorder(site.service) as recorder:
        wait_until(lambda: recorder.succeeded() >= ENOUGH)
        began = time.monotonic()
        with fault(site):
            wait_until(lambda: recorder.failed(began) >= refusals)
        ended = time.monotonic()
        wait_until(lambda: recorder.succeeded(ended) >= ENOUGH, RECOVERY_SECONDS)
    assert site.service.stop() == 0
    # A connection whose client was killed may be committing yet.
    receivers = "SELECT FROM pg_stat_activity WHERE application_name = 'molam-webhook'"
    wait_until(lambda: not query(url, receivers))
    deaths = site.worker.live_through(lambda: not pending(url), RECOVERY_SECONDS)
    assert site.worker.stop() == 0
    check(url, recorder.sends)
    assert not deaths, "the worker ended by itself, and would have to be started again"
