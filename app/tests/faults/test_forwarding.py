"""Forwarding under load: whatever breaks, every event that was answered 200 reaches the merchant's URL, and again only
what was in hand when somebody was killed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
from faults.proof import ENOUGH, RECOVERY_SECONDS, Site, StartSite, backends_killed, prove
from faults.shop import Shop
from support import event_body, query, wait_until

pytestmark = pytest.mark.database

SOME = 25
LANES = 4
KILLS = 3
OUTAGE_SECONDS = 3
# The worker has more to do with each event than its sender, who waits where so many are not forwarded yet.
BACKLOG = 100

_SESSIONS = "SELECT FROM pg_stat_activity WHERE application_name = 'molam-webhook-worker'"
_IN_HAND = """
SELECT event_id FROM forwards JOIN webhook_deliveries d ON d.id = delivery_id
WHERE forwards.state = 'pending' AND forwards.lease IS NOT NULL
"""


class Stage(NamedTuple):
    """Where a fault happens; `in_hand` are the events that the worker had in hand when it was killed."""

    site: Site
    shop: Shop
    in_hand: set[str]


@contextmanager
def no_fault(_stage: Stage) -> Iterator[None]:
    yield


@contextmanager
def worker_killed_again_and_again(stage: Stage) -> Iterator[None]:
    for _ in range(KILLS):
        stage.shop.wait_for(SOME)
        stage.site.worker.kill()
        # What it has sent to the database may be done yet.
        wait_until(lambda: not query(stage.site.url, _SESSIONS))
        stage.in_hand.update(row[0] for row in query(stage.site.url, _IN_HAND))
        stage.site.worker.restart()
    yield


@contextmanager
def database_crashed(stage: Stage) -> Iterator[None]:
    with backends_killed(stage.site):
        yield


@contextmanager
def url_refuses(stage: Stage) -> Iterator[None]:
    stage.shop.kill()
    time.sleep(OUTAGE_SECONDS)
    yield
    stage.shop.start()


@contextmanager
def url_hangs(stage: Stage) -> Iterator[None]:
    """For less than the worker waits for an answer."""
    stage.shop.suspend()
    time.sleep(OUTAGE_SECONDS)
    yield
    stage.shop.resume()


@pytest.fixture
def shop(directory: Path) -> Iterator[Shop]:
    shop = Shop(directory)
    yield shop
    shop.kill()


@pytest.mark.parametrize(
    ("fault", "repeats"),
    [
        pytest.param(fault, repeats, id=fault.__name__)
        for fault, repeats in (
            (no_fault, 0),
            (worker_killed_again_and_again, KILLS * LANES),
            (database_crashed, LANES),
            (url_refuses, LANES),
            (url_hangs, 0),
        )
    ],
)
def test_every_event_arrives_and_again_only_what_was_in_hand(
    fault: Callable[[Stage], AbstractContextManager[None]],
    repeats: int,
    start_site: StartSite,
    shop: Shop,
) -> None:
    forwarding = {"MOLAM_FORWARD_URL": shop.url, "FORWARD_SECRET": "forward_5gT8sWq2Lm9Zx4Vb"}
    # The pauses after failures are shorter than by default, so that the longest of them ends in time.
    quick = {"MOLAM_WORKER_CONCURRENCY": str(LANES), "MOLAM_WORKER_BACKOFF_SECONDS": "1"}
    in_hand: set[str] = set()

    @contextmanager
    def befalls(site: Site) -> Iterator[None]:
        shop.wait_for(SOME)
        with fault(Stage(site, shop, in_hand)):
            yield
        shop.wait_for(ENOUGH, RECOVERY_SECONDS)

    site = start_site(worker=forwarding | quick)
    sends = prove(befalls, 0, site, too_many=lambda accepted: accepted > shop.count() + BACKLOG)
    deliveries = shop.deliveries()
    arrived = Counter(orjson.loads(delivery.body)["id"] for delivery in deliveries)
    assert {send.event_id for send in sends if send.ok} <= arrived.keys()
    assert [d for d in deliveries if d.body != event_body(d.key)] == []
    repeated = {event_id for event_id, times in arrived.items() if times > 1}
    assert len(repeated) <= repeats
    if in_hand:
        assert repeated <= in_hand
