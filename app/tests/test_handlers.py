"""Handlers: how they are found, and that the guide to them tells the truth."""

import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import merchant
import pytest
from molam_webhook import handlers, orders
from molam_webhook.config import ConfigError, WorkerSettings
from molam_webhook.database import Connection
from molam_webhook.event import Event
from processing import Start, acts, install, states, store, told, work
from support import Postgres, count, environment, event_body, query, run_cli, wait_until

database = pytest.mark.database

DOCS = Path(__file__).parents[2] / "docs"
SHOP = DOCS / "examples" / "shop"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def add(name: str, entry_points: str = merchant.ENTRY_POINTS) -> None:
        (tmp_path / name).mkdir()
        install(tmp_path / name, name, entry_points)
        monkeypatch.syspath_prepend(tmp_path / name)

    return add


def test_orders_is_the_default() -> None:
    assert list(WorkerSettings.load().molam_handlers) == [orders.apply]
    assert str(WorkerSettings.load().molam_handlers) == "orders"


def test_handlers_act_in_the_order_of_the_list(installed: Callable[..., None]) -> None:
    installed("shop")
    loaded = handlers.load(" witness ,orders,")
    assert list(loaded) == [merchant.witness, orders.apply]
    assert str(loaded) == "witness,orders"
    assert list(handlers.load("")) == []


def test_a_class_is_made_once(installed: Callable[..., None]) -> None:
    installed("shop")
    (counter,) = handlers.load("counter")
    assert isinstance(counter, merchant.Counter)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (
            "nobody",
            "there is no handler 'nobody'; "
            "installed are: broken, counter, inquirer, missing, orders, synchronous, witness",
        ),
        ("orders,orders", "names 'orders' twice"),
        ("synchronous", "handler 'synchronous' is not an async function, nor a class of such"),
        (
            "broken",
            "handler 'broken' cannot be loaded: ModuleNotFoundError: No module named 'merchant_that_is_not_there'",
        ),
        ("missing", "handler 'missing' cannot be loaded: AttributeError: module 'merchant' has no attribute 'missing'"),
    ],
)
def test_a_wrong_list_is_refused(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch, names: str, fault: str
) -> None:
    installed("shop")
    monkeypatch.setenv("MOLAM_HANDLERS", names)
    with pytest.raises(ConfigError) as caught:
        WorkerSettings.load()
    assert caught.value.faults == [f"MOLAM_HANDLERS: {fault}"]


def test_every_wrong_name_is_told_at_once(installed: Callable[..., None]) -> None:
    installed("shop")
    with pytest.raises(ValueError, match=r"no handler 'a'.*; there is no handler 'b'.*; handler 'synchronous'"):
        handlers.load("a,orders,b,synchronous")


def test_two_packages_with_one_name_are_refused(installed: Callable[..., None]) -> None:
    installed("shop", "[molam_webhook.handlers]\norders = shop:orders\n")
    with pytest.raises(ValueError, match=r"more than one handler 'orders': .*:apply, shop:orders"):
        handlers.load("orders")


@database
def test_all_handlers_of_an_event_act_or_none(url: str) -> None:
    async def fail(_connection: Connection, event: Event, _received_at: datetime) -> None:
        if event.id == "evt_1":
            raise ValueError("no")

    store(url, told("evt_1"), told("evt_2"))
    work(url, orders.apply, fail)
    assert states(url) == {"evt_1": ("pending", 1), "evt_2": ("done", 1)}
    assert [row["payment_intent_id"] for row in query(url, "SELECT * FROM orders")] == ["pi_evt_2"]


@database
def test_a_handler_is_given_the_event_and_when_it_came(url: str) -> None:
    given: list[tuple[Event, datetime]] = []

    async def take(_connection: Connection, event: Event, received_at: datetime) -> None:
        given.append((event, received_at))

    store(url, event_body("evt_1", "dispute.opened", created=100, amount=1))
    query(url, "UPDATE webhook_deliveries SET created_at = '2026-01-02T03:04:05Z'")
    work(url, take)
    ((event, received_at),) = given
    assert (event.id, event.type, event.created) == ("evt_1", "dispute.opened", datetime.fromtimestamp(100, UTC))
    assert event.data is not None
    assert event.data["amount"] == 1
    assert received_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@database
def test_a_merchants_handlers_work_beside_ours(start_worker: Start, url: str) -> None:
    start_worker(MOLAM_HANDLERS="orders,witness,counter")
    store(url, told("evt_1"), told("evt_2"), told("evt_3", do="refuse"))
    wait_until(lambda: states(url) == {"evt_1": ("done", 1), "evt_2": ("done", 1), "evt_3": ("dead", 1)})
    assert acts(url) == ["evt_1", "evt_1", "evt_2", "evt_2"]
    assert count(url, "orders") == 2


@database
def test_the_example_does_what_the_guide_says(start_worker: Start, url: str, tmp_path: Path) -> None:
    guide = (DOCS / "handlers.md").read_text()
    schema, code = (SHOP / "schema.sql").read_text(), (SHOP / "shop_handlers" / "__init__.py").read_text()
    assert schema in guide
    assert code[code.index("async def") :] in guide
    points = tomllib.loads((SHOP / "pyproject.toml").read_text())["project"]["entry-points"][handlers.GROUP]
    lines = [f"[{handlers.GROUP}]", *(f"{name} = {value}" for name, value in points.items())]
    install(tmp_path, "shop-handlers", "\n".join(lines))
    query(url, "DROP SCHEMA IF EXISTS shop CASCADE")
    for statement in schema.split(";")[:-1]:
        query(url, statement)
    start_worker(MOLAM_HANDLERS="orders,shipments", PYTHONPATH=f"{tmp_path}:{SHOP}")
    again = event_body("evt_2", metadata={"order_id": "ord_1"})
    store(url, event_body("evt_1"), again, event_body("evt_3", metadata={}), event_body("evt_4", "refund.created"))
    wait_until(lambda: states(url)["evt_4"] == ("done", 1) and states(url)["evt_3"] == ("dead", 1))
    wait_until(lambda: {states(url)["evt_1"], states(url)["evt_2"]} == {("done", 1)})
    assert [row["order_id"] for row in query(url, "SELECT * FROM shop.shipments")] == ["ord_1"]
    query(url, "DROP SCHEMA shop CASCADE")


@database
def test_a_merchants_tables_and_rights_outlive_a_deployment(start_worker: Start, postgres: Postgres, url: str) -> None:
    start_worker(MOLAM_HANDLERS="witness")
    # Somebody else's table in our schema, an extension's perhaps, which the migration has no right to touch.
    query(url, "CREATE TABLE IF NOT EXISTS public.another ()")
    query(url, "GRANT INSERT ON public.another TO molam_webhook_worker")
    migrated = run_cli("migrate", env=environment(postgres.url("webhook", "molam_webhook_owner")))
    assert migrated.returncode == 0, migrated.stderr
    may = "SELECT has_table_privilege('molam_webhook_worker', $1, 'INSERT')"
    assert [query(url, may, name)[0][0] for name in ("shop.acts", "public.another")] == [True, True]
    query(url, "DROP TABLE public.another")
