"""Events put into the database as they are after a while, for tests of what looks at them."""

from datetime import timedelta

from support import event_body, query

_STORE = """
WITH id AS (
  INSERT INTO event_ids (event_id, body_sha256, first_received_at) VALUES ($1, sha256($2), now() - $3::interval)
)
INSERT INTO webhook_deliveries
  (event_id, event_type, payload, signature, kid, state, attempts, created_at, last_error, processed_at)
VALUES ($1, $4, $2, 't=1,v1=00', 'v1', $5, $6, now() - $3::interval, $7, CASE WHEN $5 = 'done' THEN now() END)
RETURNING id
"""

_FORWARD = """
INSERT INTO forwards (delivery_id, state, attempts, last_error)
VALUES ($1, $2, 9, CASE WHEN $2 <> 'done' THEN 'the merchant said 500' END)
"""


def store(
    url: str,
    event_id: str,
    *,
    event_type: str = "payment.succeeded",
    state: str = "pending",
    age: timedelta = timedelta(0),
    attempts: int = 0,
    last_error: str | None = None,
    forward: str | None = None,
    **data: object,
) -> int:
    """Store an event that was received `age` ago, with its forward in the given state; returns its number."""
    body = event_body(event_id, event_type, **data)
    number = int(query(url, _STORE, event_id, body, age, event_type, state, attempts, last_error)[0][0])
    if forward is not None:
        query(url, _FORWARD, number, forward)
    return number
