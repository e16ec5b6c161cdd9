"""What a tool of somebody else's says of a host, and what of it is not followed."""

from __future__ import annotations

from dataclasses import dataclass, field


class NoOpinionError(Exception):
    """A tool gave none; the text says why, and what to do."""


@dataclass(frozen=True)
class Finding:
    """One thing that a tool would have otherwise: its own id and words. `why` says why it stays so.

    `score` is how much of it there is, where the tool measures it.
    """

    id: str
    text: str
    why: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Opinion:
    """What a tool says: `figure` sums it up, and `followed` counts what it found in order, where it tells.

    `unfollowed` has a reason for each. `unanswered` is new to us: somebody has to look at it. Where there is no
    opinion, `figure` is empty and `note` says why, and what to do.
    """

    tool: str
    version: str = ""
    figure: str = ""
    followed: int | None = None
    unfollowed: list[Finding] = field(default_factory=list)
    unanswered: list[Finding] = field(default_factory=list)
    note: str = ""
