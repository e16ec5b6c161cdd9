"""Forwarding: every event reaches the merchant's URL, whatever becomes of the worker, the receiver or the network."""

import asyncio
import runpy
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import asyncpg
import pytest
from local_server import Answer, LocalServer, Request
from molam_webhook import forward, signature
from molam_webhook.config import ConfigError, WorkerSettings
from molam_webhook.forward import forwarding, printable, retry_after
from molam_webhook.handlers import TryLater
from molam_webhook.keyring import Key, Keyring
from molam_webhook.leases import LeaseLost
from molam_webhook.outcomes import Outcome
from processing import Start, WorkerProcess, acts, settings_with, states, store, told
from pydantic import SecretStr
from support import DEADLINE_SECONDS, event_body, now_ms, query, wait_until

database = pytest.mark.database

SECRET = "forward_5gT8sWq2Lm9Zx4Vb"  # noqa: S105  a test's own
KEYRING = Keyring({b"forward": Key(SECRET.encode(), active=True)}, b"forward")


class Receiver(LocalServer):
    """The merchant's server."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(lambda _request: Answer(200), port)
        self.url = f"http://127.0.0.1:{self.port}/molam?shop=1"


def is_signed(request: Request) -> bool:
    header = request.headers["molam-forward-signature"].encode()
    return signature.verify(header, request.body, now_ms(), KEYRING).outcome is Outcome.ACCEPTED


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


def start_forwarding(start_worker: Start, receiver_url: str, **settings: str) -> WorkerProcess:
    given = {"MOLAM_FORWARD_URL": receiver_url, "FORWARD_SECRET": SECRET, "MOLAM_WORKER_BACKOFF_SECONDS": "0.1"}
    return start_worker(**given | settings)


def forwards(url: str) -> dict[str, tuple[str, int]]:
    return states(url, "forwards")


def fault(url: str) -> str:
    rows = query(url, "SELECT last_error FROM forwards")
    return (rows[0][0] or "") if rows else ""


@pytest.mark.later_schema
@database
def test_an_event_arrives_as_it_was_received_and_signed(start_worker: Start, receiver: Receiver, url: str) -> None:
    body = b' {"id": "evt_1",  "type": "payment.succeeded", "data": {"id": "pi", "amount": 5, "currency": "XOF"}}\n'
    store(url, body)
    worker = start_forwarding(start_worker, receiver.url)
    wait_until(lambda: forwards(url) == {"evt_1": ("done", 1)})
    (request,) = receiver.requests
    assert (request.path, request.body) == ("/molam?shop=1", body)
    names = ("content-type", "idempotency-key", "molam-event-id", "molam-event-type")
    assert [request.headers[name] for name in names] == ["application/json", "evt_1", "evt_1", "payment.succeeded"]
    assert is_signed(request)
    assert not is_signed(request._replace(body=body + b" "))
    wait_until(lambda: states(url) == {"evt_1": ("done", 1)})
    row = query(url, "SELECT lease, leased_until, done_at IS NOT NULL FROM forwards")[0]
    assert tuple(row) == (None, None, True)
    assert worker.stop() == 0
    assert [line["payment_id"] for line in worker.events("event_forwarded")] == ["pi"]
    assert SECRET not in worker.log.read_text()


@database
def test_a_receiver_that_is_down_gets_everything_when_it_is_back(start_worker: Start, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    start_forwarding(start_worker, f"http://127.0.0.1:{port}/", MOLAM_WORKER_MAX_ATTEMPTS="100")
    store(url, *(told(f"evt_{number}") for number in range(5)))
    wait_until(lambda: all(attempts >= 2 for _, attempts in forwards(url).values()) and len(forwards(url)) == 5)
    assert fault(url).startswith("no answer: ConnectError")
    late = Receiver(port)
    wait_until(lambda: {state for state, _ in forwards(url).values()} == {"done"})
    assert sorted(request.headers["molam-event-id"] for request in late.requests) == [f"evt_{n}" for n in range(5)]
    late.close()


@database
@pytest.mark.parametrize("status", [500, 307, 410])
def test_anything_but_2xx_is_tried_again(start_worker: Start, receiver: Receiver, url: str, status: int) -> None:
    answers = iter([Answer(status, {"location": "/elsewhere"})] * 2)
    receiver.answer = lambda _request: next(answers, Answer(204, body=b""))
    store(url, told("evt_1"))
    start_forwarding(start_worker, receiver.url)
    wait_until(lambda: forwards(url) == {"evt_1": ("done", 3)})
    assert {request.path for request in receiver.requests} == {"/molam?shop=1"}
    assert {request.headers["idempotency-key"] for request in receiver.requests} == {"evt_1"}
    assert all(is_signed(request) for request in receiver.requests)


@pytest.mark.later_schema
@database
def test_what_is_never_taken_is_parked_and_the_event_is_done_all_the_same(
    start_worker: Start, receiver: Receiver, url: str
) -> None:
    receiver.answer = lambda _request: Answer(500)
    store(url, told("evt_1"))
    worker = start_forwarding(start_worker, receiver.url, MOLAM_WORKER_MAX_ATTEMPTS="2")
    wait_until(lambda: forwards(url) == {"evt_1": ("dead", 2)})
    assert fault(url) == "answered 500"
    assert len(receiver.requests) == 2
    wait_until(lambda: states(url) == {"evt_1": ("done", 1)})
    assert [line["level"] for line in worker.events("forward_failed")] == ["warning", "error"]


@database
def test_what_no_handler_can_use_is_forwarded_all_the_same(start_worker: Start, receiver: Receiver, url: str) -> None:
    store(url, event_body("evt_1", amount="5000"))
    start_forwarding(start_worker, receiver.url)
    wait_until(lambda: forwards(url) == {"evt_1": ("done", 1)})
    wait_until(lambda: states(url) == {"evt_1": ("dead", 1)})


@database
def test_a_receiver_may_ask_for_time(start_worker: Start, receiver: Receiver, url: str) -> None:
    receiver.answer = lambda _request: Answer(503, {"retry-after": "1800"})
    store(url, told("evt_1"))
    start_forwarding(start_worker, receiver.url)
    wait_until(lambda: fault(url) == "answered 503")
    assert query(url, "SELECT next_attempt_at > now() + interval '25 minutes' FROM forwards")[0][0]


@database
def test_a_receiver_that_does_not_answer_in_time_is_asked_again(
    start_worker: Start, receiver: Receiver, url: str
) -> None:
    patience = threading.Event()

    def answer(_request: Request) -> Answer:
        if len(receiver.requests) == 1:
            patience.wait(20)
        return Answer(200)

    receiver.answer = answer
    store(url, told("evt_1"))
    start_forwarding(start_worker, receiver.url)
    wait_until(lambda: forwards(url) == {"evt_1": ("done", 2)})
    patience.set()


@database
def test_a_worker_killed_between_the_answer_and_the_mark_repeats_under_the_same_key(
    start_worker: Start, receiver: Receiver, url: str
) -> None:
    worker = start_forwarding(start_worker, receiver.url, MOLAM_HANDLERS="witness")

    def answer(_request: Request) -> Answer:
        if len(receiver.requests) == 1:
            worker.kill()
        return Answer(200)

    receiver.answer = answer
    store(url, told("evt_1"))
    worker.wait()
    worker.restart()
    wait_until(lambda: forwards(url) == {"evt_1": ("done", 2)})
    first, second = receiver.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == "evt_1"
    assert first.body == second.body
    wait_until(lambda: acts(url) == ["evt_1"])


@pytest.mark.later_schema
@database
def test_what_a_dead_worker_was_sending_holds_up_no_handler(start_worker: Start, receiver: Receiver, url: str) -> None:
    slow = threading.Event()

    def answer(_request: Request) -> Answer:
        slow.wait(DEADLINE_SECONDS)
        return Answer(200)

    receiver.answer = answer
    store(url, told("evt_1"))
    query(url, "UPDATE webhook_deliveries SET state = 'done', processed_at = now()")
    abandoned = "SELECT id, 1, gen_random_uuid(), now() FROM webhook_deliveries"
    query(url, f"INSERT INTO forwards (delivery_id, attempts, lease, leased_until) {abandoned}")
    start_forwarding(start_worker, receiver.url, MOLAM_HANDLERS="witness", MOLAM_WORKER_LEASE_SECONDS="30")
    wait_until(lambda: receiver.requests)
    store(url, told("evt_2"))
    wait_until(lambda: acts(url) == ["evt_2"])
    assert forwards(url)["evt_1"] == ("pending", 2)
    slow.set()
    wait_until(lambda: forwards(url) == {"evt_1": ("done", 2), "evt_2": ("done", 1)})


@database
def test_each_event_is_sent_without_what_an_answer_wants_remembered(
    start_worker: Start, receiver: Receiver, url: str
) -> None:
    receiver.answer = lambda _request: Answer(200, {"set-cookie": "visit=1; Path=/"})
    store(url, *(told(f"evt_{number}") for number in range(3)))
    start_forwarding(start_worker, receiver.url)
    wait_until(lambda: len(receiver.requests) == 3)
    assert all("cookie" not in request.headers for request in receiver.requests)


@database
def test_a_database_lost_between_the_answer_and_the_mark_does_not_repeat_it(
    start_worker: Start, receiver: Receiver, url: str
) -> None:
    def answer(_request: Request) -> Answer:
        query(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'worker'")
        return Answer(200)

    receiver.answer = answer
    store(url, told("evt_1"))
    worker = start_forwarding(start_worker, receiver.url, MOLAM_WORKER_LEASE_SECONDS="30")
    wait_until(lambda: forwards(url) == {"evt_1": ("done", 1)})
    assert len(receiver.requests) == 1
    wait_until(lambda: worker.events("event_forwarded"))


@database
def test_the_outbox_is_filled_only_while_forwarding_is_on(start_worker: Start, receiver: Receiver, url: str) -> None:
    quiet = start_worker()
    store(url, told("evt_1"))
    wait_until(lambda: states(url) == {"evt_1": ("done", 1)})
    assert quiet.stop() == 0
    assert forwards(url) == {}
    start_forwarding(start_worker, receiver.url)
    store(url, told("evt_2"))
    wait_until(lambda: forwards(url) == {"evt_2": ("done", 1)})
    # An event that is replayed is sent then, and one that was sent is not sent again by that alone.
    query(url, "UPDATE webhook_deliveries SET state = 'pending', attempts = 0")
    wait_until(lambda: forwards(url) == {"evt_1": ("done", 1), "evt_2": ("done", 1)})
    assert [request.headers["molam-event-id"] for request in receiver.requests] == ["evt_2", "evt_1"]


@database
def test_two_workers_send_each_event_once(start_worker: Start, receiver: Receiver, url: str) -> None:
    for _ in range(2):
        start_forwarding(start_worker, receiver.url, MOLAM_WORKER_LEASE_SECONDS="60")
    sent = [f"evt_{number:03}" for number in range(60)]
    store(url, *map(told, sent))
    wait_until(lambda: forwards(url) == dict.fromkeys(sent, ("done", 1)))
    assert sorted(request.headers["idempotency-key"] for request in receiver.requests) == sent


@database
def test_an_id_of_any_characters_can_be_sent(start_worker: Start, receiver: Receiver, url: str) -> None:
    event_id = "évt 1\r\nX-Injected: 50%"
    store(url, told(event_id))
    start_forwarding(start_worker, receiver.url)
    wait_until(lambda: forwards(url) == {event_id: ("done", 1)})
    (request,) = receiver.requests
    assert request.headers["idempotency-key"] == "%C3%A9vt%201%0D%0AX-Injected:%2050%25"
    assert "x-injected" not in request.headers


@database
def test_what_was_taken_is_not_sent_again_because_the_answers_rest_is_missing(
    start_worker: Start, receiver: Receiver, url: str
) -> None:
    receiver.answer = lambda _request: Answer(200, {"content-length": "100000"})
    store(url, told("evt_1"))
    start_forwarding(start_worker, receiver.url, MOLAM_WORKER_LEASE_SECONDS="30")
    wait_until(lambda: forwards(url) == {"evt_1": ("done", 1)})
    assert len(receiver.requests) == 1


@pytest.mark.later_schema
@database
def test_who_has_lost_the_lease_does_not_mark_what_was_sent(
    receiver: Receiver, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        chosen = settings_with(molam_forward_url=receiver.url, forward_secret=SecretStr(SECRET))
        connection = await asyncpg.connect(url)
        async with forwarding(chosen) as outbox:
            assert outbox
            item = await outbox.queue.take(connection, 60, durable=True)
            assert item
            patience = threading.Event()
            receiver.answer = lambda _request: Answer(200 if patience.wait(20) else 500)
            monkeypatch.setattr(forward, "ANSWER_SECONDS", 0.1)
            with pytest.raises(TryLater, match="no answer within"):
                await outbox.perform(connection, item)
            patience.set()
            monkeypatch.setattr(forward, "ANSWER_SECONDS", 10)
            await connection.execute("UPDATE forwards SET lease = gen_random_uuid()")
            with pytest.raises(LeaseLost):
                await outbox.perform(connection, item)
        await connection.close()

    store(url, told("evt_1"))
    query(url, "INSERT INTO forwards (delivery_id) SELECT id FROM webhook_deliveries")
    asyncio.run(run())
    assert forwards(url) == {"evt_1": ("pending", 1)}


@pytest.mark.parametrize(
    ("url", "secret", "fault"),
    [
        ("ftp://shop/", SECRET, "MOLAM_FORWARD_URL: must be like http://"),
        ("http://user:hunter2@shop/", SECRET, "MOLAM_FORWARD_URL: must be like http://"),
        ("http://shop/a b", SECRET, "MOLAM_FORWARD_URL: must be like http://"),
        ("http://shop/#here", SECRET, "MOLAM_FORWARD_URL: must have no fragment"),
        ("http://shop/", None, "FORWARD_SECRET: is missing"),
        ("http://shop/", "short", "FORWARD_SECRET: the secret is shorter than 16 characters"),
        ("http://shop/", "changeme-changeme", "FORWARD_SECRET: the secret is a placeholder"),
    ],
)
def test_wrong_settings_are_told_by_name(
    monkeypatch: pytest.MonkeyPatch, url: str, secret: str | None, fault: str
) -> None:
    monkeypatch.setenv("MOLAM_FORWARD_URL", url)
    if secret:
        monkeypatch.setenv("FORWARD_SECRET", secret)
    with pytest.raises(ConfigError) as caught:
        WorkerSettings.load()
    (told_fault,) = caught.value.faults
    assert told_fault.startswith(fault)
    assert "hunter2" not in told_fault


@pytest.mark.parametrize("url", ["", "https://shop.internal/molam", "http://10.0.0.7:8080", "http://[::1]:8080/x?y=z"])
def test_right_settings(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MOLAM_FORWARD_URL", url)
    monkeypatch.setenv("FORWARD_SECRET", SECRET)
    settings = WorkerSettings.load()
    assert settings.molam_forward_url == url
    assert ("FORWARD_SECRET", "***", "environment") in settings.describe()


def test_the_guides_check_knows_the_genuine_from_the_forged(tmp_path: Path) -> None:
    blocks = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text().split("```")
    (tmp_path / "check.py").write_text(
        next(block for block in blocks if "def is_genuine" in block).removeprefix("python")
    )
    is_genuine = runpy.run_path(str(tmp_path / "check.py"))["is_genuine"]
    header = signature.sign(b"{}", SECRET.encode(), now_ms(), None)
    late = signature.sign(b"{}", SECRET.encode(), now_ms() - 301_000, None)
    assert is_genuine(header, b"{}", SECRET.encode())
    assert not is_genuine(header, b"{ }", SECRET.encode())
    assert not is_genuine(header, b"{}", b"another")
    assert not is_genuine(late, b"{}", SECRET.encode())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("evt_1", "evt_1"),
        ("a b", "a%20b"),
        ("100%", "100%25"),
        ("~!@#$^&*()'\"", "~!@#$^&*()'\""),
        ("\x7f€", "%7F%E2%82%AC"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", "soon", "-5", "1.5", "\uff11\uff12", "Mon, 99 Nov 2026 00:00:00 GMT"),
        "Mon, 23 Nov 99999999999999999999 00:00:00 GMT",
    ],
)
def test_a_retry_after_that_says_nothing(value: str | None) -> None:
    assert retry_after(value) == 0


def test_retry_after() -> None:
    assert retry_after("120") == 120
    assert retry_after("9" * 5000) >= 3600
    assert 3000 < retry_after(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)) <= 3600
    assert retry_after(format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)) == 0
