"""Removing events that were done long ago. Their ids stay, so that a late duplicate is still known for one."""

from datetime import datetime, timedelta

from molam_webhook.database import session
from molam_webhook.events import APPLICATION, DONE

# The database refuses less as well (prune_deliveries).
MIN_AGE = timedelta(days=30)

# Few enough that one statement is short and its locks too.
BATCH = 500

# What prune_deliveries removes.
_COUNT = f"SELECT count(*) FROM webhook_deliveries d WHERE d.created_at < $1 {DONE}"  # noqa: S608  ours


async def count(url: str, received_before: datetime) -> int:
    """How many events `prune` would remove now. Raises one of `database.ERRORS`."""
    async with session(url, APPLICATION) as connection:
        return int(await connection.fetchval(_COUNT, received_before))


async def prune(url: str, received_before: datetime) -> int:
    """Remove the events that were received before then and are done, forwarding included; returns how many.

    Raises one of `database.ERRORS`; what was removed until then stays so.
    """
    removed = 0
    async with session(url, APPLICATION) as connection:
        while batch := await connection.fetchval("SELECT prune_deliveries($1, $2)", received_before, BATCH):
            removed += batch
    return removed
