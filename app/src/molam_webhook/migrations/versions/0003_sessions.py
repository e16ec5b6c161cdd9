"""The session that has an item in hand, so that one left behind by a dead worker is found before its lease ends."""

from alembic import op

revision = "0003"
down_revision = "0002"
kind = "expand"


def upgrade() -> None:
    """Add what needs no rewrite; a release made for 0002 goes on working, and never sets the column."""
    for table in ("webhook_deliveries", "forwards"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN leased_by integer")
