"""The orders projection: the same order from the same events, in whatever order they come."""

import itertools

import asyncpg
import orjson
import pytest
from molam_webhook import event as events
from molam_webhook import orders
from molam_webhook.event import Event
from molam_webhook.handlers import Unprocessable
from processing import store, work
from support import count, event_body, query

database = pytest.mark.database


def order(url: str) -> asyncpg.Record:
    (row,) = query(url, "SELECT * FROM orders WHERE payment_intent_id = 'pi_1'")
    return row


def payment(event_id: str, event_type: str, created: object, **data: object) -> bytes:
    return event_body(event_id, event_type, created=created, **({"id": "pi_1"} | data))


def refund(event_id: str, event_type: str, created: object) -> bytes:
    return event_body(event_id, event_type, created=created, id="re_1", payment_intent="pi_1", amount=1)


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
    work(url, orders.apply)
    row = order(url)
    assert (row["status"], row["amount"], row["currency"], row["order_id"]) == ("refunded", 7000, "EUR", "ord_1")
    columns = ("failed_at", "paid_at", "refund_failed_at", "refunded_at")
    assert [row[column].timestamp() for column in columns] == [100, 200, 300, 400]
    assert row["last_event_id"] == f"evt_{order_of_arrival[-1]}"


@pytest.mark.later_schema
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
    work(url, orders.apply)
    row = order(url)
    assert row["status"] == status


@pytest.mark.later_schema
@database
def test_other_types_are_done_without_effect(url: str) -> None:
    store(url, event_body("evt_1", "payout.created", id=None))
    work(url, orders.apply)
    assert query(url, "SELECT state FROM webhook_deliveries")[0][0] == "done"
    assert count(url, "orders") == 0


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
def test_bad_data_is_refused(data: object) -> None:
    event = events.parse(orjson.dumps({"id": "e", "type": "payment.succeeded", "data": data}))
    assert isinstance(event, Event)
    with pytest.raises(Unprocessable):
        orders.read_payment(event)


@pytest.mark.parametrize("name", ["payment_intent", "payment_intent_id", "payment_id", "id"])
def test_a_refund_names_its_payment(name: str) -> None:
    event = Event("e", "refund.succeeded", None, {"id": "re_1", name: "pi_1"})
    assert orders.payment_intent_id(event) == "pi_1"
