"""The inbox against a real database: a row that it refuses, for whatever reason, never fails its neighbours."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

import pytest
from molam_webhook.batcher import BATCH_MAX, Batcher
from molam_webhook.config import ReceiverSettings
from molam_webhook.database import Database
from molam_webhook.event import Event
from molam_webhook.inbox import INBOX, Delivery, Inbox
from molam_webhook.outcomes import Outcome
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from support import SECRET, Postgres, count, query, setting

pytestmark = [pytest.mark.database, pytest.mark.later_schema]

ACCEPTED, DUPLICATE, UNAVAILABLE = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.UNAVAILABLE
Deliver = Callable[[Sequence[Delivery]], list[Outcome]]

POISON = "poison.created"
REFUSALS = {
    "constraint": f"ALTER TABLE webhook_deliveries ADD CONSTRAINT refusal CHECK (event_type <> '{POISON}')",
    "trigger": f"""
        CREATE TRIGGER refusal BEFORE INSERT ON webhook_deliveries
        FOR EACH ROW WHEN (NEW.event_type = '{POISON}') EXECUTE FUNCTION refuse()""",
    "trigger at commit": f"""
        CREATE CONSTRAINT TRIGGER refusal AFTER INSERT ON webhook_deliveries DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.event_type = '{POISON}') EXECUTE FUNCTION refuse()""",
}
REFUSE = """
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'we do not like it'; END $$"""


@pytest.fixture
def deliver(postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> Deliver:
    """Submits deliveries all at once, as the role that the receiver has; returns what each was told."""
    monkeypatch.setenv("DATABASE_URL", postgres.url(database, "molam_webhook"))
    monkeypatch.setenv("DATABASE_POOL_MIN", "1")
    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", SECRET)

    async def run(deliveries: Sequence[Delivery]) -> list[Outcome]:
        database = Database(ReceiverSettings.load())
        database.start()
        await _connected(database)
        batcher = Batcher(Inbox(database, INBOX).store, queue_max=10_000)
        outcomes = await asyncio.gather(*(batcher.submit(item, len(item.payload)) for item in deliveries))
        await database.stop()
        return outcomes

    return lambda deliveries: asyncio.run(run(deliveries))


async def _connected(database: Database) -> None:
    while True:
        try:
            async with database.acquire():
                return
        except ConnectionError:
            await asyncio.sleep(0.02)


@pytest.fixture(params=REFUSALS)
def _refusal(request: pytest.FixtureRequest, url: str) -> Iterator[None]:
    query(url, REFUSE)
    query(url, REFUSALS[request.param])
    yield
    query(url, "DROP TRIGGER IF EXISTS refusal ON webhook_deliveries")
    query(url, "ALTER TABLE webhook_deliveries DROP CONSTRAINT IF EXISTS refusal")


def delivery(event_id: str, event_type: str = "payment.succeeded", payload: bytes = b"{}") -> Delivery:
    return Delivery.of(Event(event_id, event_type, None, None), payload, "t=1,v1=ab", "v1")


def test_commits_and_conflicts_are_counted(deliver: Deliver) -> None:
    def read() -> list[float]:
        names = "commit_seconds_count", "commit_seconds_sum", "conflicts_total"
        return [REGISTRY.get_sample_value(f"molam_webhook_{name}") or 0.0 for name in names]

    before = read()
    bodies = b"{}", b"{}", b"[]", b"[1]"
    assert deliver([delivery("evt_1", payload=body) for body in bodies]) == [ACCEPTED, DUPLICATE, DUPLICATE, DUPLICATE]
    commits, seconds, conflicts = (after - earlier for after, earlier in zip(read(), before, strict=True))
    assert (commits, conflicts) == (1, 2)
    assert seconds > 0


@pytest.mark.usefixtures("_refusal")
def test_refused_rows_are_answered_alone_and_their_neighbours_are_stored(deliver: Deliver, url: str) -> None:
    batch = [delivery(f"evt_{number:03d}") for number in range(BATCH_MAX)]
    poison = [0, 1, 40, 41, 127, 128, 200, BATCH_MAX - 1]
    for number in poison:
        batch[number] = delivery(f"evt_{number:03d}", POISON)
    # Duplicates and other bodies, on both sides of a refused row and of the middle.
    batch[42] = batch[129] = delivery("evt_039")
    batch[126] = delivery("evt_039", payload=b"[]")
    batch[130] = delivery("evt_040", POISON)
    with capture_logs() as lines:
        outcomes = deliver(batch)
    expected = [ACCEPTED] * BATCH_MAX
    for number in (*poison, 130):
        expected[number] = UNAVAILABLE
    for number in (42, 126, 129):
        expected[number] = DUPLICATE
    assert outcomes == expected
    stored = {row[0]: row[1] for row in query(url, "SELECT event_id, payload FROM webhook_deliveries")}
    assert set(stored) == {item.event_id for item, outcome in zip(batch, outcomes, strict=True) if outcome is ACCEPTED}
    assert stored["evt_039"] == b"{}"
    assert count(url, "event_ids") == len(stored)
    assert [row[0] for row in query(url, "SELECT payload FROM event_conflicts")] == [b"[]"]
    refused = sorted(line["event_id"] for line in lines if line["event"] == "event_refused")
    assert refused == sorted(batch[number].event_id for number in (*poison, 130))


def test_what_cannot_even_be_sent_to_the_database_is_answered_alone(deliver: Deliver, url: str) -> None:
    batch = [delivery("evt_1"), delivery("evt_\ud800"), delivery("evt_2"), delivery("evt_\0"), delivery("evt_3")]
    assert deliver(batch) == [ACCEPTED, UNAVAILABLE, ACCEPTED, UNAVAILABLE, ACCEPTED]
    assert count(url, "webhook_deliveries") == 3


def test_what_is_wrong_with_the_database_is_not_looked_for_in_the_rows(deliver: Deliver, url: str) -> None:
    query(url, "REVOKE INSERT ON webhook_deliveries FROM molam_webhook")
    try:
        with capture_logs() as lines:
            assert deliver([delivery(f"evt_{number}") for number in range(8)]) == [UNAVAILABLE] * 8
    finally:
        query(url, "GRANT INSERT ON webhook_deliveries TO molam_webhook")
    assert [line["size"] for line in lines if line["event"] == "batch_not_stored"] == [8]
    assert count(url, "event_ids") == 0


def test_two_at_once_agree_on_which_body_is_kept(deliver: Deliver, url: str) -> None:
    bodies = [b"%d" % number for number in range(2 * BATCH_MAX)]
    outcomes = deliver([delivery("evt_1", payload=body) for body in bodies])
    assert sorted(outcomes) == [ACCEPTED] + [DUPLICATE] * (len(bodies) - 1)
    kept = query(url, "SELECT payload FROM webhook_deliveries")[0][0]
    assert kept == bodies[outcomes.index(ACCEPTED)]
    aside = {row[0] for row in query(url, "SELECT payload FROM event_conflicts")}
    assert aside == set(bodies) - {kept}


def test_a_duplicate_is_confirmed_where_commits_wait_for_a_standby(deliver: Deliver, url: str) -> None:
    """What was committed here and not confirmed there is lost with this host: nobody may be told that it is stored."""
    with setting(url, "synchronous_standby_names", "nobody"):
        assert deliver([delivery("evt_1")]) == [UNAVAILABLE]
        assert count(url, "event_ids") == 1
        assert deliver([delivery("evt_1")]) == [UNAVAILABLE]
    assert deliver([delivery("evt_1")]) == [DUPLICATE]
