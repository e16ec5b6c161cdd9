"""The limit on callers that fail verification (contract, "What is answered").

A caller is an IPv4 address, or an IPv6 network of the size that one customer has (/64). Its failures are counted by
the minute: here, and where there is a cache in one sum with the other receivers. The cache is told behind the answers:
nobody waits for it, and its loss costs the sum and nothing else.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from molam_webhook.cache import Cache

WINDOW_SECONDS = 60

# Those who come after so many others within one window share one count: memory has a bound, whoever comes.
CALLERS_MAX = 10_000
OTHERS = "others"

# The address is no address: such callers share one count too.
UNKNOWN = "unknown"


class Standing(Enum):
    """Where a caller stands after a failure. BEYOND_FIRST is told once for each caller and window."""

    WITHIN = auto()
    BEYOND_FIRST = auto()
    BEYOND = auto()


@dataclass(slots=True)
class _Record:
    failures: int = 0
    told: bool = False


class Failures:
    """Failed verifications of each caller within the present minute, of which `limit` are borne with."""

    def __init__(self, limit: int, cache: Cache | None) -> None:
        self._limit = limit
        self._cache = cache
        self._window = 0
        self._records: dict[str, _Record] = {}
        self._unshared: dict[str, int] = {}
        self._sharing: asyncio.Task[None] | None = None

    def count(self, caller: str, now_ms: int) -> Standing:
        """Count one failure of `caller` at `now_ms` (unix milliseconds), and say where that leaves it."""
        window = now_ms // (WINDOW_SECONDS * 1000)
        if window != self._window:
            self._window = window
            self._records.clear()
            self._unshared.clear()
        if caller not in self._records and len(self._records) >= CALLERS_MAX:
            caller = OTHERS
        record = self._records.setdefault(caller, _Record())
        # Beyond the limit there is nothing more to count, so a flood costs no more than this.
        if record.failures < self._limit:
            record.failures += 1
            self._share_soon(caller)
            return Standing.WITHIN
        if record.told:
            return Standing.BEYOND
        record.told = True
        return Standing.BEYOND_FIRST

    def _share_soon(self, caller: str) -> None:
        if self._cache is None:
            return
        self._unshared[caller] = self._unshared.get(caller, 0) + 1
        if self._sharing is None or self._sharing.done():
            self._sharing = asyncio.create_task(self._share(self._cache))

    async def _share(self, cache: Cache) -> None:
        """Add what was counted here to the receivers' sum, and go by the sum from then on."""
        while self._unshared:
            caller, failures = self._unshared.popitem()
            # Of this minute, whichever it is when the cache answers.
            record = self._records[caller]
            total = await cache.add(f"molam:failures:{self._window}:{caller}", failures, 2 * WINDOW_SECONDS)
            if total is not None:
                record.failures = max(record.failures, total)


def caller_at(address: str) -> str:
    """Whom an address, as a proxy names it, counts for."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return UNKNOWN
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Network((parsed.packed, 64), strict=False))
    return str(parsed)
