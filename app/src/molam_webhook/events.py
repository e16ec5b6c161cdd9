"""Looking up one stored event and the order it belongs to."""

import asyncio
from datetime import datetime
from typing import Any

from molam_webhook import event as events
from molam_webhook import orders
from molam_webhook.config import Settings
from molam_webhook.database import connect
from molam_webhook.event import Event

_EVENT = """
SELECT i.event_id, d.event_type, d.state, d.attempts, i.first_received_at, d.created, d.processed_at,
  CASE WHEN d.state = 'pending' THEN d.next_attempt_at END AS next_attempt_at, d.last_error, d.kid,
  encode(i.body_sha256, 'hex') AS body_sha256, d.payload,
  (SELECT count(*) FROM event_conflicts c WHERE c.event_id = i.event_id) AS conflicts
FROM event_ids i LEFT JOIN webhook_deliveries d USING (event_id)
WHERE i.event_id = $1
"""

_ORDER = """
SELECT payment_intent_id, order_id, status, amount, currency, paid_at, failed_at, refunded_at,
  refund_failed_at, last_event_id, updated_at
FROM orders WHERE payment_intent_id = $1
"""


def show(settings: Settings, event_id: str) -> dict[str, Any] | None:
    """The stored event and, under "order", its order or None; None where no such event was ever received.

    Raises one of `database.ERRORS`.
    """
    return asyncio.run(_show(settings.database_url.get_secret_value(), event_id))


async def _show(url: str, event_id: str) -> dict[str, Any] | None:
    connection = await connect(url, "molam-webhook-events")
    try:
        row = await connection.fetchrow(_EVENT, event_id)
        if row is None:
            return None
        shown = _plain(dict(row))
        event = events.parse(row["payload"] or b"")
        intent = orders.payment_intent_id(event) if isinstance(event, Event) else None
        order = await connection.fetchrow(_ORDER, intent) if events.is_name(intent) else None
    finally:
        await connection.close()
    # A stored payload is a body that parsed, so it is UTF-8; NULL means that it has been purged.
    payload = row["payload"]
    return shown | {
        "payload": payload.decode() if payload else None,
        "order": _plain(dict(order)) if order else None,
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
