"""What a host has that is not as the playbook would make it, and what on it comes to an end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum


class Kind(StrEnum):
    """What differs."""

    SETTING = "setting"
    RELEASE = "release"
    CERTIFICATE = "certificate"
    LISTENER = "listener"
    UNIT = "unit"
    PACKAGE = "package"


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    `what` is its name (a path, a unit, a port), by which ``verify_known`` may name it; `words` say what is there and
    what would be; `mend` what to do; `diff` are a few lines of it, ``-`` before what is there and ``+`` before what
    would be.
    """

    kind: Kind
    what: str
    words: str
    mend: str
    diff: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expiring:
    """What ends soon: `until` is its last day (UTC), `days_left` is below 0 where that is over."""

    what: str
    until: date
    days_left: int
    mend: str


@dataclass(frozen=True)
class Drift:
    """All that differs on one host, what ends soon, and what could not be looked at, each with the reason."""

    differences: list[Difference] = field(default_factory=list)
    expiring: list[Expiring] = field(default_factory=list)
    not_seen: list[str] = field(default_factory=list)

    @property
    def none(self) -> bool:
        """Whether all was looked at, and nothing differs or ends."""
        return not (self.differences or self.expiring or self.not_seen)
