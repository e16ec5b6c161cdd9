"""The proof that a fault under load loses nothing and does nothing twice, and that all mends itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NamedTuple

from faults.history import Recorder, Send, check, never
from processing import WorkerProcess
from support import Postgres, Service, query, wait_until

OURS = "application_name LIKE 'molam-webhook%'"

RECOVERY_SECONDS = 10
ENOUGH = 100


class Site(NamedTuple):
    """What a fault can befall; `url` is the database's, as its administrator."""

    postgres: Postgres
    url: str
    service: Service
    worker: WorkerProcess


Fault = Callable[[Site], AbstractContextManager[None]]
StartSite = Callable[..., Site]

_LEFT = """
SELECT (SELECT count(*) FROM webhook_deliveries WHERE state = 'pending')
  + (SELECT count(*) FROM forwards WHERE state = 'pending')
"""


def restarts(postgres: Postgres) -> bool:
    """Start PostgreSQL as the service manager does; whether it came up."""
    with suppress(subprocess.CalledProcessError):
        postgres.start()
        return True
    return False


@contextmanager
def backends_killed(site: Site) -> Iterator[None]:
    """One process of the server dies, and the server restarts all others, as after a crash."""
    for process in query(site.url, f"SELECT pid FROM pg_stat_activity WHERE {OURS}"):
        with suppress(ProcessLookupError):
            os.kill(process["pid"], signal.SIGKILL)
    yield


def left(url: str) -> int:
    """How much is yet to be done: by handlers, and to be forwarded."""
    return int(query(url, _LEFT)[0][0])


def prove(
    fault: Fault,
    refusals: int,
    site: Site,
    *,
    rest_seconds: float = 0,
    too_many: Callable[[int], bool] = never,
) -> list[Send]:
    """Let a fault happen under load, until it has cost at least so many sends their 200; then compare. Returns the
    sends; `rest_seconds` and `too_many` are the Recorder's, where the worker has more to do than the senders.

    What is left has to be done in good time all the same.
    """
    with Recorder(site.service, rest_seconds, too_many) as recorder:
        wait_until(lambda: recorder.succeeded() >= ENOUGH)
        began = time.monotonic()
        with fault(site):
            wait_until(lambda: recorder.failed(began) >= refusals)
        ended = time.monotonic()
        wait_until(lambda: recorder.succeeded(ended) >= ENOUGH, RECOVERY_SECONDS)
    assert site.service.stop() == 0
    # A connection whose client was killed may be committing yet.
    receivers = "SELECT FROM pg_stat_activity WHERE application_name = 'molam-webhook'"
    wait_until(lambda: not query(site.url, receivers))
    deaths = site.worker.live_through(lambda: not left(site.url), RECOVERY_SECONDS)
    assert site.worker.stop() == 0
    check(site.url, recorder.sends)
    assert not deaths, "the worker ended by itself, and would have to be started again"
    return recorder.sends
