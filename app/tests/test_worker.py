"""The worker: every event acted on once and no more, whatever becomes of workers, handlers and connections."""

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from local_server import Answer, LocalServer
from molam_webhook import notify, orders
from molam_webhook.database import STATEMENT_SECONDS, Connection
from molam_webhook.event import Event
from molam_webhook.handlers import Handler, TryLater, Unprocessable
from molam_webhook.handling import Handling
from molam_webhook.leases import APART_SECONDS, AT_ONCE, Abandoned, Item, LeaseLost
from molam_webhook.logs import MAX_TEXT_CHARACTERS
from molam_webhook.verdict import BACKOFF_MAX_SECONDS, backoff, judge
from molam_webhook.worker import Worker
from processing import Start, acts, pending, settings_with, states, store, told, work
from pydantic import SecretStr
from structlog.testing import capture_logs
from support import DEADLINE_SECONDS, Postgres, Service, count, event_body, query, setting, wait_until

database = pytest.mark.database

FORWARD_SECRET = "forward_5gT8sWq2Lm9Zx4Vb"  # noqa: S105  a test's own
EXPIRE = "UPDATE webhook_deliveries SET leased_until = now() WHERE lease IS NOT NULL"

# Where the driver's own request to cancel comes just before the COMMIT, nobody else ends its wait for a standby.
CANCEL_OVERDUE = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE wait_event = 'SyncRep' AND query_start < now() - make_interval(secs => $1)
"""


def order_of(url: str, payment_intent_id: str) -> asyncpg.Record | None:
    rows = query(url, "SELECT * FROM orders WHERE payment_intent_id = $1", payment_intent_id)
    return rows[0] if rows else None


def are_left(url: str, number: int) -> bool:
    """Whether so many events, or fewer, are yet to be done."""
    return pending(url) <= number


@pytest.mark.later_schema
@database
def test_from_the_sender_to_the_order(serve: Callable[..., Service], start_worker: Start, url: str) -> None:
    service, worker = serve(), start_worker(MOLAM_WORKER_POLL_SECONDS="300")
    # It sleeps for minutes by itself: only the notification can have woken it.
    for number in range(3):
        service.deliver(event_body(f"evt_{number}", id=f"pi_{number}", amount=100 + number))
        wait_until(partial(order_of, url, f"pi_{number}"))
    row = order_of(url, "pi_2")
    assert row
    assert (row["status"], row["amount"], row["currency"], row["order_id"]) == ("paid", 102, "XOF", "ord_1")
    assert (row["last_event_id"], row["paid_at"]) == ("evt_2", datetime.fromtimestamp(1_763_800_000, UTC))
    columns = "state, attempts, processed_at IS NOT NULL, lease, leased_until"
    found = query(url, f"SELECT DISTINCT {columns} FROM webhook_deliveries")
    assert [tuple(row) for row in found] == [("done", 1, True, None, None)]
    assert worker.stop() == 0
    applied = worker.events("event_applied")
    assert [(line["event_id"], line["payment_id"], line["amount"]) for line in applied] == [
        (f"evt_{number}", f"pi_{number}", 100 + number) for number in range(3)
    ]


@database
def test_both_logs_name_the_same_payment(serve: Callable[..., Service], start_worker: Start) -> None:
    service, worker = serve(), start_worker()
    about = {
        "payment.succeeded": {"id": "pi_1", "payment_intent": "not asked"},
        "refund.succeeded": {"id": "re_1", "payment_intent": "pi_1"},
        "dispute.opened": {"id": "dp_1", "payment_intent": "pi_1"},
        "customer.created": {"id": "cus_1"},
    }
    for number, (event_type, data) in enumerate(about.items()):
        service.deliver(event_body(f"evt_{number}", event_type, **data))
    wait_until(lambda: len(worker.events("event_applied")) == len(about))
    for lines in service.lines(), worker.events("event_applied"):
        payments = {line["event_type"]: line["payment_id"] for line in lines if "event_type" in line}
        assert payments == dict.fromkeys(about, "pi_1") | {"customer.created": "cus_1"}


@database
def test_what_ends_it_is_one_line_with_where_it_came_from(start_worker: Start, url: str) -> None:
    worker = start_worker(MOLAM_HANDLERS="witness")
    store(url, told("evt_1", do="panic"))
    assert worker.wait() == 1
    (line,) = worker.events("worker_failed")
    assert (line["level"], line["error"], line["message"]) == ("error", "Panic", "it is not an Exception")
    assert re.match(r"merchant\.py:\d+ witness < handling\.py:\d+ ", str(line["stack"]))


@database
def test_it_comes_back_when_the_database_does(postgres: Postgres, start_worker: Start, url: str) -> None:
    worker = start_worker(MOLAM_WORKER_POLL_SECONDS="300", MOLAM_HANDLERS="witness")
    store(url, told("evt_1"))
    postgres.stop()
    postgres.start()
    store(url, told("evt_2"))
    wait_until(lambda: pending(url) == 0)
    assert acts(url) == ["evt_1", "evt_2"]
    assert worker.stop() == 0


@database
def test_a_database_that_is_lost_in_mid_event_costs_an_attempt_and_nothing_else(
    postgres: Postgres, start_worker: Start, url: str
) -> None:
    worker = start_worker(MOLAM_HANDLERS="witness")
    for event_id in ("evt_1", "evt_2"):
        store(url, told(event_id, do="linger"))
        wait_until(lambda: query(url, "SELECT FROM webhook_deliveries WHERE lease IS NOT NULL"))
        postgres.stop()
        postgres.start()
        wait_until(lambda: pending(url) == 0)
        assert worker.events("event_abandoned")
    assert acts(url) == ["evt_1", "evt_2"]
    # At first the database may forget even that there was an attempt; from then on the worker makes sure.
    assert states(url) in [{"evt_1": ("done", attempts), "evt_2": ("done", 2)} for attempts in (1, 2)]


@database
def test_killed_workers_act_on_every_event_once(start_worker: Start, url: str) -> None:
    store(url, *(told(f"evt_{number:03}") for number in range(400)))
    worker = start_worker(MOLAM_HANDLERS="witness,orders")
    for left in (350, 220, 130, 40):
        wait_until(partial(are_left, url, left))
        worker.kill()
        worker.restart()
    wait_until(lambda: pending(url) == 0)
    assert acts(url) == [f"evt_{number:03}" for number in range(400)]
    assert count(url, "orders") == 400
    # Some were in hand when it was killed.
    assert {("done", 1), ("done", 2)} <= set(states(url).values())
    assert {state for state, _ in states(url).values()} == {"done"}


@database
def test_two_workers_share_the_work(start_worker: Start, url: str) -> None:
    workers = [start_worker(MOLAM_HANDLERS="witness", MOLAM_WORKER_LEASE_SECONDS="60") for _ in range(2)]
    store(url, *(told(f"evt_{number:03}", do="linger") for number in range(16)))
    wait_until(lambda: pending(url) == 0)
    assert acts(url) == [f"evt_{number:03}" for number in range(16)]
    assert set(states(url).values()) == {("done", 1)}
    assert all(worker.events("event_applied") for worker in workers)


@pytest.mark.later_schema
@database
def test_a_dead_workers_event_is_taken_over_at_once(start_worker: Start, url: str) -> None:
    first = start_worker(MOLAM_HANDLERS="witness", MOLAM_WORKER_LEASE_SECONDS="600")
    store(url, told("evt_1", do="hang"), told("evt_2"))
    wait_until(lambda: states(url) == {"evt_1": ("pending", 1), "evt_2": ("done", 1)})
    first.kill()
    start_worker()
    wait_until(lambda: states(url)["evt_1"] == ("done", 2))


@database
def test_what_was_abandoned_often_is_taken_over_a_little_later(start_worker: Start, url: str) -> None:
    until = "now() + make_interval(secs => 600 - $1)"
    begun = f"UPDATE webhook_deliveries SET leased_until = {until} WHERE lease IS NOT NULL"
    worker = start_worker(MOLAM_HANDLERS="witness", MOLAM_WORKER_LEASE_SECONDS="600")
    store(url, told("evt_1", do="die"))
    assert worker.live_through(lambda: states(url) == {"evt_1": ("pending", AT_ONCE + 1)}) >= AT_ONCE
    worker.wait()
    # As if it had begun only now, however long the rest takes.
    query(url, begun, -DEADLINE_SECONDS)
    start_worker(MOLAM_WORKER_LEASE_SECONDS="600")
    store(url, told("evt_2"))
    wait_until(lambda: states(url)["evt_2"] == ("done", 1))
    assert states(url)["evt_1"] == ("pending", AT_ONCE + 1)
    query(url, begun, APART_SECONDS)
    wait_until(lambda: states(url)["evt_1"] == ("done", AT_ONCE + 2))


@database
def test_a_worker_that_stood_still_past_its_lease_commits_nothing(start_worker: Start, url: str) -> None:
    first = start_worker(MOLAM_HANDLERS="witness", SHOP_DO="stand still")
    store(url, told("evt_1"))
    first.wait_suspended()
    second = start_worker(MOLAM_HANDLERS="witness")
    wait_until(lambda: states(url) == {"evt_1": ("done", 2)})
    first.resume()
    wait_until(lambda: first.events("lease_lost"))
    assert not first.events("event_applied")
    assert len(second.events("event_applied")) == 1
    assert acts(url) == ["evt_1"]


@pytest.mark.later_schema
@database
def test_who_has_lost_the_lease_marks_nothing(url: str) -> None:
    async def act(connection: Connection, event: Event, _received_at: datetime) -> None:
        await connection.execute("INSERT INTO orders (payment_intent_id, last_event_id) VALUES ('pi', $1)", event.id)

    async def run() -> None:
        handling = Handling(settings_with(act).molam_handlers, forwarding=False)
        queue = handling.queue
        connection = await asyncpg.connect(url)
        late = await queue.take(connection, 60, durable=True)
        assert isinstance(late, Item)
        assert await queue.take(connection, 60, durable=True) is None
        assert await queue.abandoned(connection, 60) == []
        found = Abandoned(late.id, late.lease, 1, "evt_1", "payment.succeeded")
        assert await queue.take_over(connection, found, 60) is None
        assert not await queue.bury(connection, found, "not yet")
        await connection.execute(EXPIRE)
        assert await queue.take(connection, 60, durable=True) is None
        assert await queue.abandoned(connection, 60) == [found]
        heir = await queue.take_over(connection, found, 60)
        assert isinstance(heir, Item)
        # What was found is not there any more, though this lease has run out as well.
        await connection.execute(EXPIRE)
        assert await queue.take_over(connection, found, 60) is None
        assert not await queue.bury(connection, found, "too late")
        await queue.give_back(connection, found)
        assert heir.attempts == 2
        for attempt in (
            handling.perform(connection, late),
            queue.done(connection, late),
            queue.failed(connection, late, "dead", "", 0),
        ):
            with pytest.raises(LeaseLost):
                await attempt
        assert await connection.fetchval("SELECT count(*) FROM orders") == 0
        await handling.perform(connection, heir)
        with pytest.raises(LeaseLost):
            await handling.perform(connection, heir)
        # Its own attempt's mark may be made twice: nobody need know whether the first was kept.
        await queue.done(connection, heir)
        assert not await queue.failed(connection, heir, "dead", "", 0)
        assert await connection.fetchval("SELECT count(*) FROM orders") == 1
        await connection.close()

    store(url, told("evt_1"))
    asyncio.run(run())
    assert states(url) == {"evt_1": ("done", 2)}


@database
def test_an_event_that_kills_its_worker_ends_up_dead_and_takes_no_other_with_it(start_worker: Start, url: str) -> None:
    worker = start_worker(MOLAM_HANDLERS="witness", MOLAM_WORKER_MAX_ATTEMPTS="3")
    beside = [f"evt_0{number}" for number in range(3)]
    store(url, told("evt_dead", do="die"), *(told(event_id, do="linger") for event_id in beside))
    worker.wait()
    later = [f"evt_{number}" for number in range(10, 34)]
    store(url, *(told(event_id, do="linger") for event_id in later))
    assert worker.live_through(partial(are_left, url, 0)) == 3
    found = states(url)
    assert found["evt_dead"] == ("dead", 3)
    # Some were at work beside it when it killed for the first time; nothing was at any other time.
    assert ("done", 2) in {found[event_id] for event_id in beside} <= {("done", 1), ("done", 2)}
    assert {found[event_id] for event_id in later} == {("done", 1)}
    assert acts(url) == beside + later
    (row,) = query(url, "SELECT last_error, lease FROM webhook_deliveries WHERE state = 'dead'")
    assert tuple(row) == ("its worker ended over it, or lost the database, at attempt 3 of 3", None)
    assert [(line["level"], line["event_id"]) for line in worker.events("event_failed")] == [("error", "evt_dead")]


@database
def test_events_are_worked_on_side_by_side(url: str) -> None:
    async def run() -> None:
        together = asyncio.Barrier(3)

        async def meet(_connection: Connection, _event: Event, _received_at: datetime) -> None:
            # None gets past unless three are here.
            await together.wait()
            worker.stop()

        worker = Worker(settings_with(meet, database_url=SecretStr(url), molam_worker_concurrency=3))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await worker.run()

    store(url, *(told(f"evt_{number}") for number in range(3)))
    asyncio.run(run())
    assert set(states(url).values()) == {("done", 1)}


@database
def test_a_stopped_worker_finishes_what_it_has_in_hand_and_nothing_more(start_worker: Start, url: str) -> None:
    settings = {"MOLAM_WORKER_CONCURRENCY": "2", "MOLAM_WORKER_LEASE_SECONDS": "60"}
    worker = start_worker(MOLAM_HANDLERS="witness", **settings)
    store(url, *(told(f"evt_{number}", do="linger") for number in range(6)))
    wait_until(lambda: query(url, "SELECT count(*) FROM webhook_deliveries WHERE lease IS NOT NULL")[0][0] == 2)
    assert worker.stop() == 0
    assert sorted(states(url).values()) == [("done", 1)] * 2 + [("pending", 0)] * 4
    assert acts(url) == ["evt_0", "evt_1"]
    assert query(url, "SELECT count(*) FROM webhook_deliveries WHERE lease IS NOT NULL")[0][0] == 0


@pytest.mark.later_schema
@database
def test_what_fails_is_tried_again_later_and_parked_in_the_end(url: str) -> None:
    async def spoil(connection: Connection, event: Event, received_at: datetime) -> None:
        await orders.apply(connection, event, received_at)
        if event.id == "evt_1":
            await connection.execute("SELECT 1 / 0")

    store(url, told("evt_1"), told("evt_2"))
    for attempt in (1, 2, 3):
        work(url, spoil, molam_worker_max_attempts=3)
        (row,) = query(
            url, "SELECT *, next_attempt_at > now() AS later FROM webhook_deliveries WHERE event_id = 'evt_1'"
        )
        assert (row["state"], row["attempts"], row["lease"]) == ("pending" if attempt < 3 else "dead", attempt, None)
        assert row["later"]
        assert row["last_error"] == "DivisionByZeroError: division by zero"
        query(url, "UPDATE webhook_deliveries SET next_attempt_at = now()")
    work(url, spoil, molam_worker_max_attempts=3)
    # Of the effects that came before the failure none was kept.
    assert [row["payment_intent_id"] for row in query(url, "SELECT * FROM orders")] == ["pi_evt_2"]
    assert states(url) == {"evt_1": ("dead", 3), "evt_2": ("done", 1)}


@database
def test_bad_data_is_parked_at_once(start_worker: Start, url: str) -> None:
    store(url, event_body("evt_1", amount="5000"), event_body("evt_2"))
    query(url, "UPDATE webhook_deliveries SET payload = '{' WHERE event_id = 'evt_2'")
    worker = start_worker()
    wait_until(lambda: pending(url) == 0)
    assert states(url) == {"evt_1": ("dead", 1), "evt_2": ("dead", 1)}
    faults = [row[0] for row in query(url, "SELECT last_error FROM webhook_deliveries ORDER BY event_id")]
    assert faults == ["data.amount is not a whole number of minor units", "the stored payload is invalid_json"]
    assert [line["level"] for line in worker.events("event_failed")] == ["error", "error"]


@database
def test_an_error_that_a_handler_hides_does_not_make_the_event_done(url: str) -> None:
    async def hide(connection: Connection, event: Event, received_at: datetime) -> None:
        await orders.apply(connection, event, received_at)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1 / 0")

    store(url, told("evt_1"))
    work(url, hide)
    assert states(url) == {"evt_1": ("pending", 1)}
    assert count(url, "orders") == 0


@database
@pytest.mark.parametrize(("do", "fault"), [("hang", "not finished within 1 s"), ("cancel", "CancelledError: ")])
def test_a_handler_that_hangs_or_is_cancelled_does_not_cost_the_worker_a_lane(
    start_worker: Start, url: str, do: str, fault: str
) -> None:
    start_worker(MOLAM_HANDLERS="witness", MOLAM_WORKER_CONCURRENCY="1")
    store(url, told("evt_1", do=do))
    wait_until(lambda: query(url, "SELECT last_error FROM webhook_deliveries")[0][0] == fault)
    store(url, told("evt_2"))
    wait_until(lambda: states(url)["evt_2"] == ("done", 1))
    assert states(url)["evt_1"] == ("pending", 1)
    assert acts(url) == ["evt_2"]


@pytest.mark.later_schema
@database
def test_what_was_put_back_by_hand_is_nobodys(url: str) -> None:
    async def put_back(_connection: Connection, _event: Event, _received_at: datetime) -> None:
        raise AssertionError("it must not come so far")

    async def run() -> None:
        chosen = settings_with(put_back)
        handling = Handling(chosen.molam_handlers, forwarding=False)
        connection = await asyncpg.connect(url)
        item = await handling.queue.take(connection, 60, durable=True)
        assert item
        await connection.execute("UPDATE webhook_deliveries SET attempts = 0, lease = NULL, leased_until = NULL")
        with pytest.raises(LeaseLost):
            await handling.perform(connection, item)
        await connection.close()

    store(url, told("evt_1"))
    asyncio.run(run())
    assert states(url) == {"evt_1": ("pending", 0)}


class Outage(Exception):
    """As the database's own errors are."""

    sqlstate = "53100"


class Speechless(Exception):
    """As code that is not ours may raise."""

    def __str__(self) -> str:
        return str(1 // 0)


@pytest.mark.parametrize(
    ("error", "attempts", "state", "fault"),
    [
        (ValueError("no"), 2, "pending", "ValueError: no"),
        (ValueError("no"), 3, "dead", "ValueError: no"),
        (TryLater("not yet"), 3, "dead", "not yet"),
        (Unprocessable("never"), 1, "dead", "never"),
        (Outage("disk full"), 3, "pending", "Outage: disk full"),
        (asyncpg.DiskFullError("disk full"), 99, "pending", "DiskFullError: disk full"),
        (asyncpg.QueryCanceledError("too slow"), 3, "dead", "QueryCanceledError: too slow"),
        (ValueError("a\0b\ud800"), 1, "pending", "ValueError: a\\0b\\ud800"),
        (Unprocessable("x" * 9999), 1, "dead", "x" * MAX_TEXT_CHARACTERS),
        (Speechless(), 3, "dead", "Speechless, which could not be put into words: ZeroDivisionError"),
    ],
    ids=range(10),
)
def test_what_a_failure_means(error: Exception, attempts: int, state: str, fault: str) -> None:
    verdict = judge(error, attempts, attempts_max=3, backoff_seconds=5)
    assert (verdict.state, verdict.fault) == (state, fault)


def test_who_asks_for_more_time_gets_it_up_to_an_hour() -> None:
    for asked, low, high in (
        (0, 2.5, 7.5),
        (600, 600, 600),
        ("600", 600, 600),
        (99_999, BACKOFF_MAX_SECONDS, BACKOFF_MAX_SECONDS),
    ):
        verdict = judge(TryLater("not yet", asked), 1, attempts_max=3, backoff_seconds=5)
        assert low <= verdict.pause <= high


def test_backoff_doubles_up_to_an_hour() -> None:
    for attempts, middle in ((1, 5), (2, 10), (3, 20), (12, BACKOFF_MAX_SECONDS), (100, BACKOFF_MAX_SECONDS)):
        assert 0.5 * middle <= backoff(attempts, 5) <= 1.5 * middle


def run_until(url: str, done: Callable[[], object], *handlers: Handler, **settings: object) -> None:
    """Let a whole worker work in this process until something is so."""

    async def run() -> None:
        quick = {"molam_worker_poll_seconds": 0.1, "molam_worker_backoff_seconds": 0.1}
        worker = Worker(settings_with(*handlers, **{"database_url": SecretStr(url)} | quick | settings))
        working = asyncio.create_task(worker.run())
        await asyncio.to_thread(wait_until, done)
        worker.stop()
        await working

    asyncio.run(run())


@database
@pytest.mark.parametrize(("late", "lease_seconds"), [("the attempt is cut off", 1), ("the driver gives up", 30)])
def test_what_is_done_after_a_transaction_that_began_too_late_is_kept(
    url: str, monkeypatch: pytest.MonkeyPatch, late: str, lease_seconds: int
) -> None:
    """The database begins the transaction, and the worker is told too late: one of the two stood still meanwhile."""
    execute = asyncpg.Connection.execute
    begun: list[str] = []

    async def told_late(connection: "asyncpg.Connection[asyncpg.Record]", query: str, *arguments: object) -> str:
        status: str = await execute(connection, query, *arguments)
        if query.startswith("BEGIN"):
            begun.append(query)
            if len(begun) == 1:
                if late == "the driver gives up":
                    raise TimeoutError
                await asyncio.sleep(DEADLINE_SECONDS)
        return status

    monkeypatch.setattr(asyncpg.Connection, "execute", told_late)
    store(url, told("evt_1"), told("evt_2"))
    run_until(url, lambda: pending(url) == 0, molam_worker_concurrency=1, molam_worker_lease_seconds=lease_seconds)
    assert states(url) == {"evt_1": ("done", 2), "evt_2": ("done", 1)}
    assert len(begun) == 3


@database
def test_a_commit_that_is_answered_late_is_no_lost_lease(start_worker: Start, url: str) -> None:
    """Whoever waits for a standby that is not there is told in vain; what it waited for is committed."""
    shop = LocalServer(lambda _request: Answer(200))
    store(url, told("evt_1"))
    with setting(url, "synchronous_standby_names", "nobody"):
        worker = start_worker(
            **{"MOLAM_FORWARD_URL": f"http://127.0.0.1:{shop.port}", "FORWARD_SECRET": FORWARD_SECRET}
        )

        def both_told() -> bool:
            query(url, CANCEL_OVERDUE, STATEMENT_SECONDS + 0.5)
            return bool(worker.events("event_applied") and worker.events("event_forwarded"))

        wait_until(both_told)
    shop.close()
    assert worker.stop() == 0
    assert states(url) == states(url, "forwards") == {"evt_1": ("done", 1)}
    assert not [line for line in worker.lines() if line["level"] != "info"]


@database
def test_a_service_manager_that_cannot_be_told_is_no_lost_database(
    url: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = directory / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))

    async def run() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.bind(str(address))
            working = asyncio.create_task(Worker(settings_with(database_url=SecretStr(url))).run())
            assert await asyncio.get_running_loop().sock_recv(manager, 100) == b"WATCHDOG=1"
            # Before it is ready.
            address.unlink()
            await working

    with capture_logs() as log, pytest.raises(ExceptionGroup) as ended:
        asyncio.run(run())
    assert log == []
    assert ended.group_contains(notify.Unreachable, match="NOTIFY_SOCKET .*: No such file or directory")


def drain(receiver: socket.socket) -> list[bytes]:
    """What has come meanwhile."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(receiver.recv(1000))
    return found


@database
def test_a_worker_whose_handler_never_ends_says_so_and_no_longer_that_it_is_well(
    url: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "BEAT_SECONDS", 0.05)
    monkeypatch.setenv("NOTIFY_SOCKET", str(directory / "notify"))
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.setblocking(False)
    manager.bind(str(directory / "notify"))

    async def run() -> tuple[list[bytes], list[bytes]]:
        over = asyncio.Event()

        async def hold_on(_connection: Connection, _event: Event, _received_at: datetime) -> None:
            while not over.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await over.wait()

        worker = Worker(settings_with(hold_on, database_url=SecretStr(url), molam_worker_lease_seconds=0.2))
        working = asyncio.create_task(worker.run())
        await asyncio.to_thread(wait_until, lambda: any(line["event"] == "attempt_stuck" for line in log))
        before = drain(manager)
        await asyncio.sleep(20 * notify.BEAT_SECONDS)
        after = drain(manager)
        over.set()
        worker.stop()
        await working
        return before, after

    store(url, told("evt_1"))
    with capture_logs() as log:
        before, after = asyncio.run(run())
    assert set(before) == {b"READY=1\nWATCHDOG_USEC=30000000", b"WATCHDOG=1"}
    assert after == []
    assert [line["event_id"] for line in log if line["event"] == "attempt_stuck"] == ["evt_1"]
    manager.close()


@database
def test_what_cannot_be_buried_yet_holds_up_nothing_else(url: str) -> None:
    """Its worker stands still in its transaction, and has the row locked."""
    expired = "lease = gen_random_uuid(), leased_until = now(), last_error = 'disk full'"
    store(url, told("evt_1"), told("evt_2"))
    query(url, f"UPDATE webhook_deliveries SET {expired}, attempts = CASE event_id WHEN 'evt_1' THEN 12 ELSE 1 END")

    with asyncio.Runner() as runner, capture_logs() as log:
        keeper = runner.run(asyncpg.connect(url))
        runner.run(keeper.execute("BEGIN; SELECT FROM webhook_deliveries WHERE event_id = 'evt_1' FOR NO KEY UPDATE"))
        run_until(url, lambda: states(url)["evt_2"][0] == "done")
        runner.run(keeper.execute("ROLLBACK"))
        runner.run(keeper.close())
    assert not [line for line in log if line["event"] == "database_lost"]
    assert states(url)["evt_1"] == ("pending", 12)
    run_until(url, lambda: states(url)["evt_1"][0] == "dead")
    fault = "its worker ended over it, or lost the database, at attempt 12 of 12; before that: disk full"
    assert query(url, "SELECT last_error FROM webhook_deliveries WHERE state = 'dead'")[0][0] == fault
