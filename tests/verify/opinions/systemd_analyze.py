"""systemd-analyze: how open each service is, from 0 (closed) to 10 (open)."""

from __future__ import annotations

import re

from tests.verify.opinions.opinion import Finding, NoOpinionError, Opinion

NAME = "systemd-analyze"
# Every service that is loaded.
COMMAND = "systemctl --version && systemd-analyze security --no-pager"
# What is no finding.
CLOSED = 1.5
OURS = ("molam", "undo-changes")


def read(said: str) -> Opinion:
    """Return what the table says, after systemd's version."""
    rows = re.findall(r"^\s*(\S+)\.service\s+(\d+\.\d)\s", said, re.MULTILINE)
    scores = {unit: float(score) for unit, score in rows}
    ours = {unit: score for unit, score in scores.items() if unit.startswith(OURS)}
    if not ours:
        raise NoOpinionError("it lists no service of ours: is the receiver running?")
    worst = max(ours, key=lambda unit: ours[unit])
    version = re.match(r"systemd (\S+)", said)
    return Opinion(
        NAME,
        version=version[1] if version else "",
        figure=f"{ours[worst]} at most of our {len(ours)} services ({worst}), where 0 is closed and 10 is open",
        followed=sum(score <= CLOSED for score in scores.values()),
        unanswered=[_finding(unit, score) for unit, score in scores.items() if score > CLOSED],
    )


def _finding(unit: str, score: float) -> Finding:
    """Of a template's instances, the template: which ones there are differs."""
    return Finding(re.sub(r"@.*", "@", unit), f"{unit} has {score}", score=score)
