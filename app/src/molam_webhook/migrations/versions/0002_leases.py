"""Leases on events, and the outbox of what is forwarded."""

from alembic import op

revision = "0002"
down_revision = "0001"
kind = "expand"


def upgrade() -> None:
    """Add what needs no rewrite; a release made for 0001 goes on working."""
    for statement in _STATEMENTS:
        op.execute(statement)


_STATEMENTS = (
    # Who has an event in hand, and until when: after that anybody may take it. Both are empty while nobody has.
    "ALTER TABLE webhook_deliveries ADD COLUMN leased_until timestamptz, ADD COLUMN lease uuid",
    # Not CONCURRENTLY: no release came out with 0001 alone, so there is no large table yet to build it over.
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX idx_webhook_deliveries_dead ON webhook_deliveries (id) WHERE state = 'dead'
    """,
    # What is to be sent on: one row for each event, put in together with the event's first lease.
    """
    CREATE TABLE forwards (
      delivery_id bigint PRIMARY KEY REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
      state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
      attempts integer NOT NULL DEFAULT 0,
      next_attempt_at timestamptz NOT NULL DEFAULT now(),
      leased_until timestamptz,
      lease uuid,
      last_error text,
      done_at timestamptz
    )
    """,
    "CREATE INDEX idx_forwards_pending ON forwards (next_attempt_at, delivery_id) WHERE state = 'pending'",
    "CREATE INDEX idx_forwards_dead ON forwards (delivery_id) WHERE state = 'dead'",
    # The one way in which an event is removed: done, sent on where it had to be, and old. Its id stays for ever.
    """
    CREATE FUNCTION prune_deliveries(received_before timestamptz, at_most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
    AS $function$
    DECLARE
      removed bigint;
    BEGIN
      IF received_before > now() - interval '30 days' THEN
        RAISE EXCEPTION 'events of the last 30 days are not removed' USING ERRCODE = 'invalid_parameter_value';
      END IF;
      WITH old AS (
        SELECT d.id FROM public.webhook_deliveries d
        WHERE d.created_at < received_before AND d.state = 'done'
          AND NOT EXISTS (SELECT FROM public.forwards f WHERE f.delivery_id = d.id AND f.state <> 'done')
        ORDER BY d.created_at LIMIT at_most
        FOR UPDATE SKIP LOCKED
      )
      DELETE FROM public.webhook_deliveries d USING old WHERE d.id = old.id;
      GET DIAGNOSTICS removed = ROW_COUNT;
      RETURN removed;
    END
    $function$
    """,
)
