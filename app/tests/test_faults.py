"""What breaks in production, broken on purpose: a 200 must always be true, and everything must mend itself."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import pytest
from molam_webhook.clock import Clock
from molam_webhook.config import ReceiverSettings
from molam_webhook.http import Message, Receiver
from support import PATH, Postgres, Service, count, event_body, query, signed_headers, wait_until

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


def test_a_killed_receiver_has_stored_all_it_said_it_had(serve: Serve, url: str) -> None:
    service = serve()
    said: list[str] = []
    enough = threading.Event()

    def deliver(sender: int) -> None:
        with service.client() as client:
            for number in range(2000):
                event_id = f"evt_{sender}_{number}"
                body = event_body(event_id)
                try:
                    answer = client.post(PATH, content=body, headers=signed_headers(body))
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    said.append(event_id)
                if len(said) > 200:
                    enough.set()

    with ThreadPoolExecutor(8) as pool:
        senders = [pool.submit(deliver, sender) for sender in range(8)]
        assert enough.wait(20)
        service.kill()
        for sender in senders:
            sender.result()
    stored = [row[0] for row in query(url, "SELECT event_id FROM webhook_deliveries")]
    assert len(stored) == len(set(stored)) == count(url, "event_ids")
    assert set(said) <= set(stored)
    service.restart()
    body = event_body(said[0])
    assert service.deliver(body).json()["status"] == "duplicate"


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


def test_the_hosts_clock_is_to_blame_only_when_it_is_known_to_be_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class FastClock(Clock):
        def now_ms(self) -> int:
            return super().now_ms() + 10**7

    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", "whsec_9f3kq7Vn2Zr8Lw1T")
    receiver = Receiver(ReceiverSettings.load(), FastClock(timesync=tmp_path / "timesync"))

    async def ask() -> Message:
        body = event_body("evt_1")
        headers = [(name.encode(), value.encode()) for name, value in signed_headers(body).items()]
        scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers}
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        async def send(message: Message) -> None:
            sent.append(message)

        await receiver(scope, receive, send)
        return sent[0]

    assert asyncio.run(ask())["status"] == 401
    (tmp_path / "timesync").mkdir()
    assert asyncio.run(ask())["status"] == 503
    (tmp_path / "timesync" / "synchronized").touch()
    assert asyncio.run(ask())["status"] == 401
