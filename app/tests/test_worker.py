"""The worker: effects and done mark together, in any order of events, through failures and lost
connections.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import asyncpg
import orjson
import pytest
from molam_webhook import event as events
from molam_webhook import orders
from molam_webhook.config import WorkerSettings
from molam_webhook.database import Connection
from molam_webhook.event import Event
from molam_webhook.worker import BACKOFF_MAX_SECONDS, Handler, Worker, backoff
from support import Postgres, Process, Service, count, environment, event_body, query, wait_until

Serve = Callable[..., Service]

database = pytest.mark.database


def store(url: str, *bodies: bytes) -> None:
    """Put events into the inbox as the receiver would."""
    for body in bodies:
        event = events.parse(body)
        assert isinstance(event, Event)
        query(
            url,
            "INSERT INTO webhook_deliveries (event_id, event_type, created, payload, signature, kid)"
            " VALUES ($1, $2, $3, $4, '', 'v1')",
            *(event.id, event.type, event.created, body),
        )


def work(url: str, handler: Handler = orders.apply, **settings: object) -> None:
    """Take every event that is due, once each."""

    async def run() -> None:
        worker = Worker(WorkerSettings.load().model_copy(update=settings), handler)
        connection = await asyncpg.connect(url)
        try:
            while await worker.step(connection):
                pass
        finally:
            await connection.close()

    asyncio.run(run())


def order(url: str, payment_intent_id: str = "pi_1") -> asyncpg.Record | None:
    rows = query(url, "SELECT * FROM orders WHERE payment_intent_id = $1", payment_intent_id)
    return rows[0] if rows else None


def payment(event_id: str, event_type: str, created: object, **data: object) -> bytes:
    return event_body(event_id, event_type, created=created, **({"id": "pi_1"} | data))


def refund(event_id: str, event_type: str, created: object) -> bytes:
    return event_body(event_id, event_type, created=created, id="re_1", payment_intent="pi_1", amount=1)


@pytest.fixture
def worker(postgres: Postgres, database: str, directory: Path) -> Iterator[Process]:
    env = environment(
        postgres.url(database, "molam_webhook_worker"), MOLAM_WORKER_POLL_SECONDS="300", MOLAM_WEBHOOK_SECRET=""
    )
    process = Process(["molam_webhook", "worker"], env, directory)
    yield process
    process.close()


@database
def test_from_the_sender_to_the_order(serve: Serve, worker: Process, url: str) -> None:
    service = serve()
    # The worker sleeps for minutes by itself: only the notification can have woken it.
    for number in range(3):
        service.deliver(event_body(f"evt_{number}", id=f"pi_{number}", amount=100 + number))
        wait_until(partial(order, url, f"pi_{number}"))
    row = order(url, "pi_2")
    assert row
    assert (row["status"], row["amount"], row["currency"], row["order_id"]) == ("paid", 102, "XOF", "ord_1")
    assert (row["last_event_id"], row["paid_at"]) == ("evt_2", datetime.fromtimestamp(1_763_800_000, UTC))
    states = query(url, "SELECT DISTINCT state, attempts, processed_at IS NOT NULL FROM webhook_deliveries")
    assert [tuple(row) for row in states] == [("done", 1, True)]
    assert worker.stop() == 0
    applied = [line for line in worker.lines() if line["event"] == "event_applied"]
    assert [(line["event_id"], line["payment_id"], line["amount"]) for line in applied] == [
        (f"evt_{number}", f"pi_{number}", 100 + number) for number in range(3)
    ]


@database
def test_it_comes_back_when_the_database_does(postgres: Postgres, worker: Process, url: str) -> None:
    store(url, payment("evt_1", "payment.succeeded", 1))
    postgres.stop()
    postgres.start()
    store(url, payment("evt_2", "payment.failed", 2))
    wait_until(lambda: (row := order(url)) and row["status"] == "failed")
    assert worker.stop() == 0


@database
@pytest.mark.parametrize("order_of_arrival", list(itertools.permutations(range(4))), ids=str)
def test_any_order_of_arrival_leaves_the_same_order(url: str, order_of_arrival: tuple[int, ...]) -> None:
    told = [
        payment("evt_0", "payment.failed", 100),
        payment("evt_1", "payment.succeeded", "1970-01-01T00:03:20Z", amount=7000, currency="eur"),
        refund("evt_2", "refund.failed", 300),
        refund("evt_3", "refund.succeeded", 400),
    ]
    store(url, *(told[index] for index in order_of_arrival))
    work(url)
    row = order(url)
    assert row
    assert (row["status"], row["amount"], row["currency"], row["order_id"]) == ("refunded", 7000, "EUR", "ord_1")
    columns = ("failed_at", "paid_at", "refund_failed_at", "refunded_at")
    assert [row[column].timestamp() for column in columns] == [100, 200, 300, 400]
    assert row["last_event_id"] == f"evt_{order_of_arrival[-1]}"


@database
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("told", "status"),
    [
        ([("payment.succeeded", 2), ("payment.failed", 1)], "paid"),
        ([("payment.succeeded", 1), ("payment.failed", 2)], "failed"),
        ([("payment.succeeded", 1), ("payment.failed", 1)], "paid"),
        ([("payment.succeeded", 2), ("refund.succeeded", 1)], "refunded"),
        ([("payment.succeeded", 1), ("refund.failed", 2)], "paid"),
        ([("refund.failed", 2)], "pending"),
    ],
)
def test_status(url: str, told: list[tuple[str, int]], status: str, backwards: bool) -> None:
    bodies = [payment(f"evt_{number}", *event) for number, event in enumerate(told)]
    store(url, *(reversed(bodies) if backwards else bodies))
    work(url)
    row = order(url)
    assert row
    assert row["status"] == status


@database
def test_other_types_are_done_without_effect(url: str) -> None:
    store(url, event_body("evt_1", "payout.created", id=None))
    work(url)
    assert query(url, "SELECT state FROM webhook_deliveries")[0][0] == "done"
    assert count(url, "orders") == 0


@database
def test_what_fails_is_tried_again_later_and_parked_in_the_end(url: str) -> None:
    store(url, payment("evt_1", "payment.succeeded", 1, amount="5000"), payment("evt_2", "payment.failed", 1))
    for attempt in (1, 2, 3):
        work(url, molam_worker_max_attempts=3)
        (row,) = query(
            url, "SELECT *, next_attempt_at > now() AS later FROM webhook_deliveries WHERE event_id = 'evt_1'"
        )
        assert (row["state"], row["attempts"]) == ("pending" if attempt < 3 else "dead", attempt)
        assert row["later"]
        assert "amount" in row["last_error"]
        query(url, "UPDATE webhook_deliveries SET next_attempt_at = now()")
    work(url, molam_worker_max_attempts=3)
    assert query(url, "SELECT max(attempts) FROM webhook_deliveries")[0][0] == 3
    (row,) = query(url, "SELECT status FROM orders")
    assert row["status"] == "failed"


@database
@pytest.mark.parametrize("raises", [False, True])
def test_a_failure_after_effects_keeps_none_of_them(url: str, raises: bool) -> None:
    async def spoil(connection: Connection, event: Event, received_at: datetime) -> str | None:
        assert await orders.apply(connection, event, received_at) is None
        if raises:
            await connection.execute("SELECT 1 / 0")
        return "never mind"

    store(url, payment("evt_1", "payment.succeeded", 1))
    work(url, spoil)
    assert count(url, "orders") == 0
    (row,) = query(url, "SELECT state, attempts, last_error FROM webhook_deliveries")
    assert (row["state"], row["attempts"]) == ("pending", 1)
    assert ("DivisionByZeroError" if raises else "never mind") in row["last_error"]


@database
def test_a_lost_connection_is_not_the_events_fault(url: str) -> None:
    async def lose(connection: Connection, event: Event, received_at: datetime) -> str | None:
        await orders.apply(connection, event, received_at)
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return None

    store(url, payment("evt_1", "payment.succeeded", 1))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        work(url, lose)
    assert count(url, "orders") == 0
    assert query(url, "SELECT attempts FROM webhook_deliveries")[0][0] == 0


@database
def test_two_workers_never_take_the_same_event(url: str) -> None:
    store(url, payment("evt_1", "payment.succeeded", 1))
    taken: list[str] = []

    async def run() -> None:
        others = await asyncpg.connect(url)

        async def meanwhile(_connection: Connection, event: Event, _received_at: datetime) -> str | None:
            taken.append(event.id)
            assert not await first.step(others)
            return None

        first = Worker(WorkerSettings.load(), meanwhile)
        connection = await asyncpg.connect(url)
        assert await first.step(connection)
        await connection.close()
        await others.close()

    asyncio.run(run())
    assert taken == ["evt_1"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"id": ""},
        {"id": 7},
        {"id": "a\0"},
        {"id": "x" * 256},
        {"id": "pi", "amount": "5", "currency": "XOF"},
        {"id": "pi", "amount": 5.0, "currency": "XOF"},
        {"id": "pi", "amount": True, "currency": "XOF"},
        {"id": "pi", "amount": -1, "currency": "XOF"},
        {"id": "pi", "amount": 2**63, "currency": "XOF"},
        {"id": "pi", "amount": 5, "currency": "€"},
        {"id": "pi", "amount": 5},
        {"id": "pi", "amount": 5, "currency": "XOF", "metadata": {"order_id": 5}},
    ],
    ids=range(15),
)
def test_bad_data_is_a_reason_and_not_a_crash(data: object) -> None:
    event = events.parse(orjson.dumps({"id": "e", "type": "payment.succeeded", "data": data}))
    assert isinstance(event, Event)
    assert isinstance(orders.read_payment(event), str)


@pytest.mark.parametrize("name", ["payment_intent", "payment_intent_id", "payment_id", "id"])
def test_a_refund_names_its_payment(name: str) -> None:
    event = Event("e", "refund.succeeded", None, {"id": "re_1", name: "pi_1"})
    assert orders.payment_intent_id(event) == "pi_1"


def test_backoff_doubles_up_to_an_hour() -> None:
    for attempts, middle in ((1, 5), (2, 10), (3, 20), (12, BACKOFF_MAX_SECONDS), (100, BACKOFF_MAX_SECONDS)):
        assert 0.5 * middle <= backoff(attempts, 5) <= 1.5 * middle
