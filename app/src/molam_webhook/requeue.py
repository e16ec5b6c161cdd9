"""Putting events back into the queue, those that were given up and those to be acted on once more; or out for good."""

from collections.abc import Sequence

from molam_webhook.database import session
from molam_webhook.events import APPLICATION
from molam_webhook.inbox import CHANNEL

# Few enough that the locks of one transaction are held for a moment only.
BATCH = 500

# Whose handlers were given up runs them anew, whose forward was given up is sent again; one does not bring the other.
_RETRY = (
    """
    UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_attempt_at = now(), last_error = NULL,
      leased_until = NULL, lease = NULL
    WHERE id = ANY($1) AND state = 'dead'
    RETURNING id
    """,
    """
    UPDATE forwards SET state = 'pending', attempts = 0, next_attempt_at = now(), last_error = NULL,
      leased_until = NULL, lease = NULL
    WHERE delivery_id = ANY($1) AND state = 'dead'
    RETURNING delivery_id
    """,
)

# What is still pending goes on by itself.
_REPLAY = (
    """
    UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_attempt_at = now(), last_error = NULL,
      leased_until = NULL, lease = NULL, processed_at = NULL
    WHERE id = ANY($1) AND state = 'done'
    RETURNING id
    """,
    """
    UPDATE forwards SET state = 'pending', attempts = 0, next_attempt_at = now(), last_error = NULL,
      leased_until = NULL, lease = NULL, done_at = NULL
    WHERE delivery_id = ANY($1) AND state = 'done'
    RETURNING delivery_id
    """,
)

# The schema knows no such state: what is done keeps no error, and what was discarded keeps why.
_DISCARD = (
    """
    UPDATE webhook_deliveries SET state = 'done', processed_at = now(),
      last_error = concat_ws('; before that: ', 'discarded: ' || $2, last_error)
    WHERE id = ANY($1) AND state = 'dead'
    RETURNING id
    """,
    """
    UPDATE forwards SET state = 'done', done_at = now(),
      last_error = concat_ws('; before that: ', 'discarded: ' || $2, last_error)
    WHERE delivery_id = ANY($1) AND state = 'dead'
    RETURNING delivery_id
    """,
)


async def retry(url: str, deliveries: Sequence[int]) -> int:
    """Let what was given up of these begin anew; returns how many events that was. Raises one of `database.ERRORS`."""
    return await _requeue(url, deliveries, _RETRY)


async def replay(url: str, deliveries: Sequence[int]) -> int:
    """Let what is done of these be done again; returns how many events that was. Raises one of `database.ERRORS`."""
    return await _requeue(url, deliveries, _REPLAY)


async def discard(url: str, deliveries: Sequence[int], reason: str) -> int:
    """Let what was given up of these rest for good; returns how many events that was.

    Raises one of `database.ERRORS`.
    """
    return await _requeue(url, deliveries, _DISCARD, reason)


async def _requeue(url: str, deliveries: Sequence[int], statements: Sequence[str], *arguments: str) -> int:
    count = 0
    async with session(url, APPLICATION) as connection:
        for begin in range(0, len(deliveries), BATCH):
            batch = list(deliveries[begin : begin + BATCH])
            async with connection.transaction():
                found = [await connection.fetch(statement, batch, *arguments) for statement in statements]
                await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
            count += len({row[0] for rows in found for row in rows})
    return count
