"""Stored events, looked up and put back, against a real database, with the rights that the worker has."""

import asyncio
import hashlib
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from molam_webhook import events, requeue, retention
from molam_webhook.database import session
from molam_webhook.events import Filter
from processing import Start
from stored import store
from support import Postgres, Process, Service, count, environment, event_body, query, run_cli, wait_until

pytestmark = [pytest.mark.database, pytest.mark.later_schema]

HOUR = timedelta(hours=1)
EVERYTHING = Filter()
DAY = timedelta(days=1)


@pytest.fixture
def worker(postgres: Postgres, database: str) -> str:
    """The database's URL as the role that the command line has on a host."""
    return postgres.url(database, "molam_webhook_worker")


def cli(worker: str, *arguments: str, status: int = 0) -> str:
    """What `events ...` prints."""
    done = run_cli("events", *arguments, env=environment(worker))
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def found(worker: str, wanted: Filter = EVERYTHING, limit: int = 100) -> list[str]:
    rows = asyncio.run(events.find(worker, wanted, limit))
    return [row["event_id"] for row in rows]


def test_each_filter_and_the_newest_first(url: str, worker: str) -> None:
    store(url, "evt_old", state="done", age=3 * HOUR)
    store(url, "evt_refund", event_type="refund.succeeded", state="dead", age=2 * HOUR, payment_intent="pi_evt_old")
    store(url, "evt_new", state="done", forward="dead")
    query(url, "INSERT INTO event_conflicts (event_id, body_sha256, payload) VALUES ('evt_old', sha256('x'), 'x')")
    now = datetime.now(UTC)
    assert found(worker) == ["evt_new", "evt_refund", "evt_old"]
    assert found(worker, limit=2) == ["evt_new", "evt_refund"]
    assert found(worker, Filter(state="dead")) == ["evt_new", "evt_refund"]
    assert found(worker, Filter(state="done")) == ["evt_old"]
    assert found(worker, Filter(state="pending")) == []
    assert found(worker, Filter(event_type="refund.succeeded")) == ["evt_refund"]
    assert found(worker, Filter(since=now - 2.5 * HOUR, until=now - HOUR)) == ["evt_refund"]
    assert found(worker, Filter(payment="pi_evt_old")) == ["evt_refund", "evt_old"]
    assert found(worker, Filter(payment="pi_evt")) == []
    assert found(worker, Filter(conflicts=True)) == ["evt_old"]
    assert found(worker, Filter(ids=["evt_old", "evt_none"])) == ["evt_old"]
    query(url, "UPDATE webhook_deliveries SET kid = 'v2' WHERE event_id = 'evt_new'")
    assert found(worker, Filter(kids=["v2"])) == ["evt_new"]
    assert found(worker, Filter(kids=["v1"], since=now - 2.5 * HOUR)) == ["evt_refund"]
    assert found(worker, Filter(kids=["v1", "v2"])) == ["evt_new", "evt_refund", "evt_old"]
    (row,) = json.loads(cli(worker, "list", "--json", "--kid", "v2"))
    assert (row["event_id"], row["kid"]) == ("evt_new", "v2")


def test_those_of_one_run_are_counted(url: str, worker: str) -> None:
    store(url, "evt_load_test_1_a", state="done", forward="pending")
    store(url, "evt_load_test_1_b", state="dead")
    store(url, "evt_load_test_1_c")
    store(url, "evt_load_test_1_old", age=2 * DAY)
    store(url, "evt_load_test_2_a", state="done")
    counted = json.loads(cli(worker, "count", "--prefix", "evt_load_test_1_", "--json"))
    expected = {"events": 3, "pending": 1, "done": 1, "dead": 1, "pending_forwards": 1, "dead_forwards": 0}
    assert {name: counted[name] for name in expected} == expected
    assert json.loads(cli(worker, "count", "--since", "3d", "--json"))["events"] == 5
    assert "seconds            -" in cli(worker, "count", "--prefix", "evt_none")


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_neither_miss_nor_repeat(url: str, worker: str, newest_first: bool) -> None:
    # Three events came in the very same instant.
    for number in range(7):
        store(url, f"evt_{number}", age=(number // 3) * HOUR, event_type="odd" if number % 2 else "even")
    query(url, "UPDATE webhook_deliveries SET created_at = date_trunc('hour', created_at)")

    async def scan(wanted: Filter = EVERYTHING) -> list[int]:
        async with session(worker, "test") as connection:
            return [
                row["id"] async for row in events.scan(connection, wanted, "d.id", newest_first=newest_first, page=2)
            ]

    order = "DESC" if newest_first else "ASC"
    expected = query(url, f"SELECT id FROM webhook_deliveries ORDER BY created_at {order}, id {order}")
    assert asyncio.run(scan()) == [row["id"] for row in expected]
    assert len(asyncio.run(scan(Filter(event_type="odd")))) == 3


def test_list_and_show_for_people_and_programs(url: str, worker: str) -> None:
    store(url, "evt_1\x1b[31m", forward="pending")
    listed = cli(worker, "list", "--since", "1h")
    assert listed.split()[:3] == ["received_at", "event_id", "event_type"]
    assert "evt_1\\x1b[31m" in listed
    assert "\x1b" not in listed
    (row,) = json.loads(cli(worker, "list", "--json"))
    assert (row["state"], row["forward"], row["payment"]) == ("pending", "pending", "pi_evt_1\x1b[31m")
    shown = cli(worker, "show", "evt_1\x1b[31m")
    assert "\nforward:\n  state            pending\n" in shown
    assert shown.endswith("\nno order\n")


def test_show_has_the_bodies_that_came_later(
    serve: Callable[..., Service], worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    kept, *others = (event_body("evt_1", amount=amount, note="\x1b[2J") for amount in (100, 200, 300))
    for body in (kept, *others, kept, others[0]):
        assert service.deliver(body).status_code == 200
    found = json.loads(cli(worker, "show", "evt_1", "--json"))
    assert (found["payload"].encode(), found["conflicts"]) == (kept, 2)
    assert [other["payload"].encode() for other in found["other_bodies"]] == others
    for other, body in zip(found["other_bodies"], others, strict=True):
        assert other["body_sha256"] == hashlib.sha256(body).hexdigest() != found["body_sha256"]
        assert datetime.fromisoformat(other["received_at"]) >= datetime.fromisoformat(found["first_received_at"])
    printed = cli(worker, "show", "evt_1")
    assert printed.count("\nother body:\n") == 2
    for body in others:
        assert f"  body_sha256  {hashlib.sha256(body).hexdigest()}\n" in printed
        assert body.decode() in printed
    monkeypatch.setattr(events, "CONFLICTS_SHOWN", 1)
    first = asyncio.run(events.show(worker, "evt_1"))
    assert first
    assert (first["conflicts"], len(first["other_bodies"])) == (2, 1)


def test_dead_says_why(url: str, worker: str) -> None:
    store(url, "evt_1", state="dead", last_error="amount is\nno number", forward="done")
    store(url, "evt_2", state="done", forward="dead")
    rows = json.loads(cli(worker, "dead", "--json"))
    assert [(row["event_id"], row["given_up"], row["reason"]) for row in rows] == [
        ("evt_2", "forward", "the merchant said 500"),
        ("evt_1", "handlers", "amount is\nno number"),
    ]
    assert "amount is\\nno number" in cli(worker, "dead", "--type", "payment.succeeded")


def states(url: str) -> dict[str, tuple[str, int, str | None, int | None]]:
    rows = query(
        url,
        """
        SELECT event_id, d.state, d.attempts, f.state, f.attempts FROM webhook_deliveries d
        LEFT JOIN forwards f ON f.delivery_id = d.id
        """,
    )
    return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}


def test_retry_begins_anew_what_was_given_up_and_nothing_else(url: str, worker: str) -> None:
    store(url, "evt_handlers", state="dead", attempts=12, last_error="no", forward="done")
    store(url, "evt_forward", state="done", attempts=1, forward="dead")
    store(url, "evt_done", state="done", attempts=1)
    query(url, "UPDATE webhook_deliveries SET leased_until = now() + interval '1 hour', lease = gen_random_uuid()")
    assert cli(worker, "retry", "evt_handlers") == "1 to be tried again.\n"
    assert states(url) == {
        "evt_handlers": ("pending", 0, "done", 9),
        "evt_forward": ("done", 1, "dead", 9),
        "evt_done": ("done", 1, None, None),
    }
    (row,) = query(url, "SELECT * FROM webhook_deliveries WHERE event_id = 'evt_handlers' AND next_attempt_at <= now()")
    assert (row["leased_until"], row["lease"], row["last_error"]) == (None, None, None)
    failed = cli(worker, "retry", "evt_forward", "evt_done", "evt_none", status=1)
    assert failed == "evt_done was not given up, or never received.\nevt_none was not given up, or never received.\n"
    assert states(url)["evt_forward"] == ("done", 1, "pending", 0)
    assert states(url)["evt_done"] == ("done", 1, None, None)


def test_more_than_one_is_asked_for(url: str, worker: str) -> None:
    store(url, "evt_1", state="dead")
    store(url, "evt_2", state="dead", event_type="refund.failed")
    store(url, "evt_3", state="dead", event_type="refund.failed")
    refused = cli(worker, "retry", "--all-dead", status=1)
    assert "Try 3 events again?" in refused
    assert {state[0] for state in states(url).values()} == {"dead"}
    retried = cli(worker, "retry", "--all-dead", "--type", "refund.failed", "--yes", "--json")
    assert json.loads(retried) == {"retried": 2}
    assert states(url)["evt_1"][0] == "dead"


def test_what_was_discarded_rests_until_it_is_replayed_by_name(url: str, worker: str) -> None:
    store(url, "evt_handlers", state="dead", attempts=12, last_error="no", forward="done", age=HOUR)
    store(url, "evt_forward", state="done", attempts=1, forward="dead", age=HOUR)
    store(url, "evt_done", state="done", attempts=1, age=HOUR)
    store(url, "evt_pending", attempts=1, last_error="not yet", forward="pending", age=HOUR)
    names = ["evt_handlers", "evt_forward", "evt_done", "evt_pending"]
    before = states(url)
    assert "Let 2 events rest for good?" in cli(worker, "discard", *names, "--reason", "a test order", status=1)
    assert states(url) == before
    failed = cli(worker, "discard", *names, "--reason", "a test order", "--yes", status=1)
    assert failed == "".join(f"{name} was not given up, or never received.\n" for name in ("evt_done", "evt_pending"))
    rows = {row["event_id"]: row for row in json.loads(cli(worker, "list", "--json"))}
    assert {name: (row["state"], row["forward"]) for name, row in rows.items()} == {
        "evt_handlers": ("discarded", "done"),
        "evt_forward": ("done", "discarded"),
        "evt_done": ("done", None),
        "evt_pending": ("pending", "pending"),
    }
    shown = json.loads(cli(worker, "show", "evt_forward", "--json"))["forward"]
    assert (shown["state"], shown["last_error"]) == (
        "discarded",
        "discarded: a test order; before that: the merchant said 500",
    )
    assert json.loads(cli(worker, "dead", "--json")) == []
    assert cli(worker, "retry", "--all-dead") == "0 to be tried again.\n"
    # It is done: whoever is at work takes none of it, and of a span it stays so.
    query(url, "UPDATE webhook_deliveries SET state = 'done', last_error = NULL WHERE event_id = 'evt_pending'")
    query(url, "UPDATE forwards SET state = 'done', last_error = NULL WHERE state = 'pending'")
    assert cli(worker, "replay", "--since", "2h", "--until", "1m", "--yes") == "2 to be acted on once more.\n"
    assert [states(url)[name][0] for name in ("evt_handlers", "evt_forward")] == ["done", "done"]
    assert cli(worker, "replay", "evt_forward") == "1 to be acted on once more.\n"
    assert states(url)["evt_forward"] == ("pending", 0, "pending", 0)
    query(url, "UPDATE webhook_deliveries SET created_at = created_at - interval '400 days'")
    assert json.loads(cli(worker, "prune", "--older-than", "399d", "--yes", "--json")) == {"removed": 1}
    assert "evt_handlers" not in states(url)


def test_replay_acts_on_done_events_again(url: str, worker: str) -> None:
    store(url, "evt_1", state="done", attempts=1, age=HOUR, forward="done")
    store(url, "evt_2", state="done", attempts=1, age=2 * HOUR)
    store(url, "evt_3", state="dead", attempts=12, age=HOUR)
    store(url, "evt_4", state="done", attempts=1, age=4 * HOUR)
    assert "Act once more on 2 events" in cli(worker, "replay", "--since", "3h", "--until", "30m", status=1)
    replayed = cli(worker, "replay", "--since", "3h", "--until", "30m", "--yes")
    assert replayed == "2 to be acted on once more.\n"
    assert states(url) == {
        "evt_1": ("pending", 0, "pending", 0),
        "evt_2": ("pending", 0, None, None),
        "evt_3": ("dead", 12, None, None),
        "evt_4": ("done", 1, None, None),
    }
    assert cli(worker, "replay", "evt_4") == "1 to be acted on once more.\n"
    assert cli(worker, "replay", "evt_3", status=1) == "evt_3 is not done, or was never received.\n"


def test_many_are_put_back_in_batches(url: str, worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "BATCH", 2)
    numbers = [store(url, f"evt_{number}", state="dead", forward="dead") for number in range(5)]
    # Whatever somebody else did since they were looked up: each begins only where it was to.
    assert asyncio.run(requeue.replay(worker, numbers)) == 0
    assert asyncio.run(requeue.retry(worker, numbers)) == 5
    assert asyncio.run(requeue.retry(worker, numbers)) == 0
    assert asyncio.run(requeue.discard(worker, numbers, "what is pending")) == 0
    assert set(states(url).values()) == {("pending", 0, "pending", 0)}


def test_export_keeps_the_body_as_it_came(url: str, worker: str, tmp_path: Path) -> None:
    store(url, "evt_1", age=HOUR)
    store(url, "evt_2", state="done")
    first, second = map(json.loads, cli(worker, "export").splitlines())
    assert (first["event_id"], second["event_id"]) == ("evt_1", "evt_2")
    assert first["payload"].encode() == query(url, "SELECT payload FROM webhook_deliveries ORDER BY id")[0][0]
    assert first["signature"] == "t=1,v1=00"
    file = tmp_path / "events.jsonl"
    assert cli(worker, "export", "--state", "done", "--output", str(file)) == ""
    assert [json.loads(line)["event_id"] for line in file.read_text().splitlines()] == ["evt_2"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "cannot be written" in cli(worker, "export", "--output", str(file), status=1)


def test_prune_removes_what_is_done_and_old_and_keeps_its_id(
    url: str, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)
    store(url, "evt_old", state="done", age=40 * DAY, forward="done")
    store(url, "evt_older", state="done", age=50 * DAY)
    store(url, "evt_unsent", state="done", age=40 * DAY, forward="dead")
    store(url, "evt_dead", state="dead", age=40 * DAY)
    store(url, "evt_new", state="done", age=DAY)
    assert "Remove 2 events for good?" in cli(worker, "prune", "--older-than", "35d", status=1)
    assert count(url, "webhook_deliveries") == 5
    before = datetime.now(UTC) - 35 * DAY
    assert asyncio.run(retention.count(worker, before)) == asyncio.run(retention.prune(worker, before)) == 2
    assert set(states(url)) == {"evt_unsent", "evt_dead", "evt_new"}
    assert count(url, "event_ids") == 5
    assert json.loads(cli(worker, "prune", "--older-than", "35d", "--yes", "--json")) == {"removed": 0}
    shown = json.loads(cli(worker, "show", "evt_old", "--json"))
    assert (shown["payload"], shown["state"]) == (None, None)


def test_what_was_pruned_is_a_duplicate_for_ever(
    url: str, worker: str, serve: Callable[..., Service], start_worker: Start
) -> None:
    service = serve()
    start_worker()

    def deliver(event_id: str) -> str:
        return str(service.deliver(event_body(event_id)).json()["status"])

    def orders() -> set[tuple[object, ...]]:
        return {tuple(row) for row in query(url, "SELECT last_event_id, status, updated_at FROM orders")}

    assert deliver("evt_1") == "accepted"
    wait_until(lambda: states(url)["evt_1"][0] == "done")
    before = orders()
    query(url, "UPDATE webhook_deliveries SET created_at = created_at - interval '400 days'")
    assert json.loads(cli(worker, "prune", "--older-than", "399d", "--yes", "--json")) == {"removed": 1}
    assert deliver("evt_1") == "duplicate"
    # Once this one is done, anything that came before it would be.
    assert deliver("evt_2") == "accepted"
    wait_until(lambda: states(url).get("evt_2", ("",))[0] == "done")
    assert set(states(url)) == {"evt_2"}
    assert {order for order in orders() if order[0] == "evt_1"} == before
    assert count(url, "event_conflicts") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["retry"],
        ["retry", "evt_1", "--all-dead"],
        ["retry", "evt_1", "--type", "x"],
        ["discard", "--reason", "x"],
        ["discard", "evt_1"],
        ["discard", "evt_1", "--reason", " "],
        ["replay"],
        ["replay", "--since", "1h"],
        ["replay", "evt_1", "--since", "2h", "--until", "1h"],
        ["prune", "--older-than", "29d"],
        ["prune", "--older-than", "long"],
        ["list", "--since", "yesterday"],
        ["list", "--state", "lost"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_asks_no_database(arguments: list[str]) -> None:
    assert run_cli("events", *arguments, env=environment("postgresql:///nowhere?host=/nonexistent")).returncode == 2


def test_what_was_replayed_is_done_again_and_changes_no_order(url: str, worker: str, directory: Path) -> None:
    store(url, "evt_1")
    process = Process(["molam_webhook", "worker"], environment(worker), directory)

    def processed_at() -> datetime | None:
        rows = query(url, "SELECT processed_at FROM webhook_deliveries WHERE state = 'done'")
        return rows[0][0] if rows else None

    try:
        wait_until(processed_at)
        first, order = processed_at(), query(url, "SELECT status, amount, paid_at FROM orders")
        assert cli(worker, "replay", "evt_1") == "1 to be acted on once more.\n"
        wait_until(lambda: processed_at() not in (None, first))
    finally:
        process.close()
    assert query(url, "SELECT status, amount, paid_at FROM orders") == order
    assert states(url)["evt_1"] == ("done", 1, None, None)
