"""The inbox, what outlives it, and the orders projection."""

from alembic import op

revision = "0001"
down_revision = None
kind = "expand"


def upgrade() -> None:
    """Create every table."""
    for statement in _STATEMENTS:
        op.execute(statement)


_STATEMENTS = (
    # Kept for ever: what tells a duplicate from a first delivery when the payload is long gone.
    """
    CREATE TABLE event_ids (
      event_id text PRIMARY KEY,
      body_sha256 bytea NOT NULL CHECK (length(body_sha256) = 32),
      first_received_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    # The inbox. Payload and signature are the raw body and header, so that they can be verified again.
    """
    CREATE TABLE webhook_deliveries (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      event_id text NOT NULL,
      event_type text NOT NULL,
      created timestamptz,
      payload bytea NOT NULL,
      signature text NOT NULL,
      kid text NOT NULL,
      state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
      attempts integer NOT NULL DEFAULT 0,
      next_attempt_at timestamptz NOT NULL DEFAULT now(),
      last_error text,
      created_at timestamptz NOT NULL DEFAULT now(),
      processed_at timestamptz
    )
    """,
    "CREATE UNIQUE INDEX idx_webhook_deliveries_event_id ON webhook_deliveries (event_id)",
    "CREATE INDEX idx_webhook_deliveries_created_at ON webhook_deliveries (created_at)",
    """
    CREATE INDEX idx_webhook_deliveries_pending ON webhook_deliveries (next_attempt_at, id)
    WHERE state = 'pending'
    """,
    # Other bodies that came, rightly signed, under an id that was known.
    """
    CREATE TABLE event_conflicts (
      event_id text NOT NULL,
      body_sha256 bytea NOT NULL CHECK (length(body_sha256) = 32),
      payload bytea NOT NULL,
      received_at timestamptz NOT NULL DEFAULT now(),
      PRIMARY KEY (event_id, body_sha256)
    )
    """,
    # The self-test's events, which no handler reads.
    """
    CREATE TABLE selftest_events (
      event_id text PRIMARY KEY,
      body_sha256 bytea NOT NULL CHECK (length(body_sha256) = 32),
      received_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    # Amounts are in minor units. The status follows from the facts, whatever order they came in.
    """
    CREATE TABLE orders (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      payment_intent_id text NOT NULL,
      order_id text,
      status text NOT NULL GENERATED ALWAYS AS (
        CASE
          WHEN refunded_at IS NOT NULL THEN 'refunded'
          WHEN paid_at >= coalesce(failed_at, paid_at) THEN 'paid'
          WHEN failed_at IS NOT NULL THEN 'failed'
          ELSE 'pending'
        END
      ) STORED,
      amount bigint CHECK (amount >= 0),
      currency text,
      paid_at timestamptz,
      failed_at timestamptz,
      refunded_at timestamptz,
      refund_failed_at timestamptz,
      last_event_id text NOT NULL,
      updated_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE UNIQUE INDEX idx_orders_payment_intent_id ON orders (payment_intent_id)",
    "CREATE INDEX idx_orders_status ON orders (status)",
)
