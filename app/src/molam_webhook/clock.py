"""The host's clock, and whether it is known to be wrong (contract, "What is answered": the window)."""

import time
from pathlib import Path

SYNCHRONISED, UNSYNCHRONISED = "synchronised", "unsynchronised"

# systemd-timesyncd keeps this directory while it runs and touches the file at its first synchronisation.
_TIMESYNC = Path("/run/systemd/timesync")


class Clock:
    """Reads the time of day, and timesyncd's word on it from `timesync` (its runtime directory)."""

    def __init__(self, timesync: Path = _TIMESYNC) -> None:
        self._timesync = timesync

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def synchronised(self) -> bool:
        """False only where timesyncd runs and has not synchronised; any other time service is taken at its
        word.
        """
        return not self._timesync.is_dir() or (self._timesync / "synchronized").exists()

    def state(self) -> str:
        """The same in a word, for those who run the host."""
        return SYNCHRONISED if self.synchronised() else UNSYNCHRONISED
