"""Acting on stored events: the effects of all handlers and the event's done mark, in one transaction."""

from molam_webhook import event as events
from molam_webhook.database import Connection
from molam_webhook.event import Event
from molam_webhook.handlers import Handlers, Unprocessable
from molam_webhook.leases import Item, Queue

# The outbox: with the event's first lease, and not again when it is tried again.
_OUTBOX = """, outbox AS (
  INSERT INTO forwards (delivery_id) SELECT id FROM taken ON CONFLICT DO NOTHING
)"""


class Handling:
    """The work on the inbox. With `forwarding`, each event that is taken is put into the outbox as well."""

    done_word, failed_word = "event_applied", "event_failed"
    # A handler may end the process, or take all its memory.
    may_kill = True

    def __init__(self, handlers: Handlers, *, forwarding: bool) -> None:
        self._handlers = handlers
        besides = _OUTBOX if forwarding else ""
        self.queue = Queue("inbox", "webhook_deliveries", key="id", done_at="processed_at", besides=besides)

    async def perform(self, connection: Connection, item: Item) -> None:
        """Let every handler act on the event. Raises LeaseLost, Unprocessable, or what a handler raises; then nothing
        is kept.
        """
        event = events.parse(item.payload)
        if not isinstance(event, Event):
            raise Unprocessable(f"the stored payload is {event}")
        async with connection.transaction():
            # A worker that stood still may come back after its lease: the event must be ours, and remain so.
            await self.queue.hold(connection, item)
            for handle in self._handlers:
                await handle(connection, event, item.received_at)
            await self.queue.done(connection, item)
