"""Outages one by one: what the sender is told meanwhile, and that everything mends itself."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import asyncpg
import httpx
import pytest
from support import Postgres, Service, count, event_body, wait_until

pytestmark = pytest.mark.database

Serve = Callable[..., Service]


def is_taken(receiver: Service, event_id: str) -> bool:
    return receiver.deliver(event_body(event_id)).status_code == 200


def health_is(receiver: Service, status: int) -> bool:
    with receiver.client() as client:
        return client.get("/health").status_code == status


def test_without_a_database_everything_is_503_until_it_is_back(serve: Serve, postgres: Postgres, url: str) -> None:
    service = serve(DATABASE_POOL_MIN="2")
    assert service.deliver(event_body("evt_0")).status_code == 200
    postgres.stop()
    try:
        late = serve()
        for receiver in (service, late):
            answer = receiver.deliver(event_body("evt_1"))
            assert (answer.status_code, answer.json()) == (503, {"error": "unavailable"})
            assert answer.headers["retry-after"] == "5"
            wait_until(partial(health_is, receiver, 503))
            with receiver.client() as client:
                unhealthy = {"status": "unhealthy", "database": "unhealthy", "cache": "disabled"}
                assert client.get("/health").json() == unhealthy
    finally:
        postgres.start()
    for receiver in (service, late):
        wait_until(partial(is_taken, receiver, "evt_1"))
        wait_until(partial(health_is, receiver, 200))
    assert count(url, "event_ids") == 2


def test_a_database_that_does_not_answer_is_503_within_the_time_limit(serve: Serve, url: str) -> None:
    service = serve()
    assert service.deliver(event_body("evt_0")).status_code == 200

    async def hold_the_table() -> httpx.Response:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE event_ids IN EXCLUSIVE MODE")
            return await asyncio.to_thread(service.deliver, event_body("evt_1"))

    answer = asyncio.run(hold_the_table())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    wait_until(lambda: service.deliver(event_body("evt_1")).status_code == 200)
    assert count(url, "webhook_deliveries") == 2


def test_a_stopped_receiver_answers_what_it_has_taken(serve: Serve, url: str) -> None:
    service = serve()
    answers: list[int] = []

    def deliver(sender: int) -> None:
        for number in range(2000):
            try:
                answers.append(service.deliver(event_body(f"evt_{sender}_{number}")).status_code)
            except httpx.TransportError:
                return

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(deliver, sender) for sender in range(4)]
        wait_until(lambda: len(answers) > 50)
        assert service.stop() == 0
        for sender in senders:
            sender.result()
    assert set(answers) == {200}
    assert count(url, "event_ids") >= len(answers)
