"""What arrives at once and is committed at once: each event for itself, and on the disk before the answer."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx
import pytest
from processing import Start, acts, pending
from support import PATH, Postgres, Service, count, event_body, query, signed_headers, wait_until

pytestmark = pytest.mark.database

AT_ONCE = 100
POISON = "poison.created"
SENT = 50


def deliver_at_once(service: Service, bodies: list[bytes]) -> list[httpx.Response]:
    """Send each over a connection of its own, all at the same moment."""
    barrier = Barrier(len(bodies))

    def deliver(body: bytes) -> httpx.Response:
        with service.client() as client:
            barrier.wait()
            return client.post(PATH, content=body, headers=signed_headers(body))

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(deliver, bodies))


def test_a_hundred_at_once_are_one_row_and_one_effect(service: Service, start_worker: Start, url: str) -> None:
    worker = start_worker(MOLAM_HANDLERS="witness")
    answers = deliver_at_once(service, [event_body("evt_1")] * AT_ONCE)
    assert {answer.status_code for answer in answers} == {200}
    words = [answer.json()["status"] for answer in answers]
    assert (words.count("accepted"), words.count("duplicate")) == (1, AT_ONCE - 1)
    wait_until(lambda: not pending(url))
    assert worker.stop() == 0
    assert count(url, "webhook_deliveries") == count(url, "event_ids") == 1
    assert acts(url) == ["evt_1"]


@pytest.fixture
def _no_poison(url: str) -> Iterator[None]:
    """Lets the database refuse one type of event."""
    query(url, f"ALTER TABLE webhook_deliveries ADD CONSTRAINT no_poison CHECK (event_type <> '{POISON}')")
    yield
    query(url, "ALTER TABLE webhook_deliveries DROP CONSTRAINT no_poison")


@pytest.mark.usefixtures("_no_poison")
def test_refused_rows_fail_alone(service: Service, start_worker: Start, url: str) -> None:
    worker = start_worker(MOLAM_HANDLERS="witness")
    poison = {f"evt_{number:02}" for number in range(0, AT_ONCE, 9)}
    ids = [f"evt_{number:02}" for number in range(AT_ONCE)]
    bodies = [event_body(name, POISON if name in poison else "payment.succeeded") for name in ids]
    answers = dict(zip(ids, deliver_at_once(service, bodies), strict=True))
    assert {name for name, answer in answers.items() if answer.status_code == 200} == set(ids) - poison
    assert {answers[name].status_code for name in poison} == {503}
    wait_until(lambda: not pending(url))
    assert worker.stop() == 0
    assert acts(url) == sorted(set(ids) - poison)
    assert count(url, "webhook_deliveries") == count(url, "event_ids") == AT_ONCE - len(poison)


def wal_syncs(postgres: Postgres) -> int:
    """How often the server has waited for its log to be on the disk; what a session did is told when it ends."""
    url = postgres.url("postgres")
    wait_until(lambda: not query(url, "SELECT FROM pg_stat_activity WHERE application_name = 'molam-webhook'"))
    version = int(query(url, "SHOW server_version_num")[0][0])
    # From 18 on it is told with the other kinds of I/O.
    newer = "SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'"
    return int(query(url, newer if version >= 180_000 else "SELECT wal_sync FROM pg_stat_wal")[0][0])


def test_an_answer_waits_for_the_disk(serve: Callable[..., Service], postgres: Postgres, url: str) -> None:
    before = wal_syncs(postgres)
    service = serve()
    wait_until(lambda: service.deliver(event_body("evt_first")).status_code == 200)
    # One after another: each is a batch.
    with service.client() as client:
        for number in range(SENT):
            body = event_body(f"evt_{number}")
            assert client.post(PATH, content=body, headers=signed_headers(body)).status_code == 200
    assert service.stop() == 0
    assert wal_syncs(postgres) - before >= SENT
    assert count(url, "event_ids") == SENT + 1
