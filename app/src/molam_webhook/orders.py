"""The orders projection: what the payment and refund events say of each order.

Events come in any order, and more than one worker may apply them. So an order's row holds facts (when it
was paid, when it failed, when it was refunded), each the latest of its kind, and its status follows from
them in the database: the same events leave the same status in whatever order they are applied. Refunded
stays refunded; of paid and failed the later one holds, and paid where both bear the same second.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from molam_webhook.database import Connection
from molam_webhook.event import Event, is_name
from molam_webhook.handlers import Unprocessable

MAX_AMOUNT = 2**63 - 1

# The fact that an event type states. Those of a payment carry the order's amount; those of a refund carry
# their own.
_PAYMENT_FACTS = {"payment.succeeded": "paid_at", "payment.failed": "failed_at"}
_REFUND_FACTS = {"refund.succeeded": "refunded_at", "refund.failed": "refund_failed_at"}
_FACTS = _PAYMENT_FACTS | _REFUND_FACTS

_CURRENCY = re.compile(r"[A-Za-z]{3}")

# What describes the payment comes from its latest event; `greatest` passes over NULL.
_LATEST = """
  greatest(excluded.paid_at, excluded.failed_at) >= coalesce(greatest(o.paid_at, o.failed_at), '-infinity')
"""

_APPLY = f"""
INSERT INTO orders AS o
  (payment_intent_id, order_id, amount, currency, last_event_id,
   paid_at, failed_at, refunded_at, refund_failed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (payment_intent_id) DO UPDATE SET
  order_id = CASE WHEN {_LATEST} THEN coalesce(excluded.order_id, o.order_id)
                  ELSE coalesce(o.order_id, excluded.order_id) END,
  amount = CASE WHEN {_LATEST} THEN excluded.amount ELSE o.amount END,
  currency = CASE WHEN {_LATEST} THEN excluded.currency ELSE o.currency END,
  paid_at = greatest(o.paid_at, excluded.paid_at),
  failed_at = greatest(o.failed_at, excluded.failed_at),
  refunded_at = greatest(o.refunded_at, excluded.refunded_at),
  refund_failed_at = greatest(o.refund_failed_at, excluded.refund_failed_at),
  last_event_id = excluded.last_event_id,
  updated_at = now()
"""  # noqa: S608  made of constants


@dataclass(frozen=True, slots=True)
class Payment:
    """What an event's data says of a payment. `amount` (minor units) and `currency` are None for refunds."""

    payment_intent_id: str
    order_id: str | None
    amount: int | None
    currency: str | None


async def apply(connection: Connection, event: Event, received_at: datetime) -> None:
    """Apply one event to its order; events of other types change nothing.

    `received_at` stands in for an event that does not say when it was created. Raises Unprocessable, and what
    the database raises.
    """
    if event.type not in _FACTS:
        return
    payment = read_payment(event)
    at = event.created or received_at
    times = [at if fact == _FACTS[event.type] else None for fact in _FACTS.values()]
    await connection.execute(
        _APPLY,
        payment.payment_intent_id,
        payment.order_id,
        payment.amount,
        payment.currency,
        event.id,
        *times,
    )


def payment_intent_id(event: Event) -> object:
    """The id of the payment that an event is about: a payment is it, others (a refund, a dispute) may name it.

    Of what names none, its own id.
    """
    data = event.data or {}
    if event.type in _PAYMENT_FACTS:
        return data.get("id")
    names = ("payment_intent", "payment_intent_id", "payment_id", "id")
    return next((data[name] for name in names if data.get(name) is not None), None)


def read_payment(event: Event) -> Payment:
    """Check an event's data, which was signed but is not to be trusted. Raises Unprocessable."""
    data = event.data
    if data is None:
        raise Unprocessable("data is not an object")
    intent = payment_intent_id(event)
    if not is_name(intent):
        raise Unprocessable("the payment's id is not text of 1 to 255 characters")
    metadata: Any = data.get("metadata") or {}
    order_id = metadata.get("order_id") if isinstance(metadata, dict) else None
    if order_id is not None and not is_name(order_id):
        raise Unprocessable("data.metadata.order_id is not text of 1 to 255 characters")
    if event.type in _REFUND_FACTS:
        return Payment(intent, order_id, None, None)
    amount, currency = data.get("amount"), data.get("currency")
    if type(amount) is not int or not 0 <= amount <= MAX_AMOUNT:
        raise Unprocessable("data.amount is not a whole number of minor units")
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise Unprocessable("data.currency is not a code of three letters")
    return Payment(intent, order_id, amount, currency.upper())
