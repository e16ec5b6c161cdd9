"""What waits in the database: counted for `status`, and for the worker's metrics."""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import asyncpg
from prometheus_client import Gauge

from molam_webhook import logs
from molam_webhook.database import ERRORS, Connection, session
from molam_webhook.logs import logger

# However much waits, a look at it reads no more than this many rows of each kind.
COUNT_MAX = 100_000
REFRESH_SECONDS = 5.0
ASK_SECONDS = 3.0

_COUNT = f"""
WITH pending AS (
  SELECT created_at, leased_until FROM webhook_deliveries WHERE state = 'pending'
  ORDER BY next_attempt_at, id LIMIT {COUNT_MAX}
), forwarding AS (
  SELECT delivery_id FROM forwards WHERE state = 'pending' ORDER BY next_attempt_at, delivery_id LIMIT {COUNT_MAX}
), conflicts AS (SELECT received_at FROM event_conflicts LIMIT {COUNT_MAX})
SELECT
  (SELECT count(*) FROM pending) AS pending,
  (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM pending) AS oldest_pending_seconds,
  (SELECT count(*) FROM pending WHERE leased_until > now()) AS leased,
  (SELECT count(*) FROM (SELECT FROM webhook_deliveries WHERE state = 'dead' LIMIT {COUNT_MAX}) d) AS dead,
  (SELECT count(*) FROM conflicts) AS conflicts,
  (SELECT count(*) FROM conflicts WHERE received_at > now() - interval '1 day') AS recent_conflicts,
  (SELECT count(*) FROM forwarding) AS pending_forwards,
  -- Events are numbered as they come.
  (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM webhook_deliveries
   WHERE id = (SELECT min(delivery_id) FROM forwarding)) AS oldest_pending_forward_seconds,
  (SELECT count(*) FROM (SELECT FROM forwards WHERE state = 'dead' LIMIT {COUNT_MAX}) f) AS dead_forwards
"""  # noqa: S608  made of constants


@dataclass(frozen=True, slots=True)
class Backlog:
    """Numbers of rows, each counted up to COUNT_MAX; the age in seconds of the oldest event that waits, and of the
    oldest that waits to be forwarded, 0 where none does; `recent_conflicts` are those of the last day.
    """

    pending: int
    oldest_pending_seconds: float
    leased: int
    dead: int
    conflicts: int
    recent_conflicts: int
    pending_forwards: int
    oldest_pending_forward_seconds: float
    dead_forwards: int


async def count(connection: Connection) -> Backlog:
    """Count what waits. Raises one of `database.ERRORS`."""
    row = await connection.fetchrow(_COUNT)
    assert row is not None, "an aggregate has a row"  # noqa: S101  for the type checker
    return Backlog(**dict(row))


class Monitor:
    """Keeps the metrics of the backlog, asking the database at most every REFRESH_SECONDS."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = asyncio.Lock()
        self._refreshed_at = -math.inf
        self._backlog: Backlog | None = None

    async def refresh(self) -> None:
        """Bring the metrics up to date; where the database does not answer, none is shown (NaN)."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._refreshed_at >= REFRESH_SECONDS:
                self._backlog = await self._ask()
                self._show()
                self._refreshed_at = asyncio.get_running_loop().time()

    def connect(self) -> AbstractAsyncContextManager[asyncpg.Connection[asyncpg.Record]]:
        """Lend a connection. Raises one of `database.ERRORS`."""
        return session(self._url, "molam-webhook-metrics")

    async def works(self) -> bool:
        """Whether the database answered when it was last asked."""
        await self.refresh()
        return self._backlog is not None

    async def _ask(self) -> Backlog | None:
        try:
            async with asyncio.timeout(ASK_SECONDS), self.connect() as connection:
                return await count(connection)
        except ERRORS as error:
            logger.warning("backlog_unknown", **logs.describe(error))
            return None

    def _show(self) -> None:
        _KNOWN.set(self._backlog is not None)
        for name, gauge in _GAUGES.items():
            gauge.set(math.nan if self._backlog is None else getattr(self._backlog, name))


_KNOWN = Gauge("molam_webhook_backlog_known", "1 where the database said what waits; 0 where it did not answer")
_GAUGES = {
    "pending": Gauge("molam_webhook_pending_events", f"Events that wait for the worker, up to {COUNT_MAX}"),
    "oldest_pending_seconds": Gauge("molam_webhook_oldest_pending_seconds", "Age of the oldest event that waits"),
    "leased": Gauge("molam_webhook_leased_events", "Events that a worker has in hand"),
    "dead": Gauge("molam_webhook_dead_events", "Events that were given up: molam-webhook events dead"),
    "conflicts": Gauge("molam_webhook_stored_conflicts", "Other bodies, rightly signed, under an id that was known"),
    "pending_forwards": Gauge("molam_webhook_pending_forwards", "Events that wait to be forwarded"),
    "oldest_pending_forward_seconds": Gauge(
        "molam_webhook_oldest_pending_forward_seconds", "Age of the oldest event that waits to be forwarded"
    ),
    "dead_forwards": Gauge("molam_webhook_dead_forwards", "Events that were given up forwarding"),
}
