"""The shop's own handlers of Molam's events."""

from datetime import datetime

from molam_webhook.database import Connection
from molam_webhook.event import Event
from molam_webhook.handlers import Unprocessable


async def request_shipment(connection: Connection, event: Event, received_at: datetime) -> None:
    """Ask the warehouse to ship what was paid for."""
    if event.type != "payment.succeeded":
        return
    metadata = (event.data or {}).get("metadata") or {}
    order_id = metadata.get("order_id")
    if not isinstance(order_id, str):
        raise Unprocessable("the payment names no order to ship")
    await connection.execute(
        "INSERT INTO shop.shipments (order_id, event_id, paid_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        order_id,
        event.id,
        event.created or received_at,
    )
