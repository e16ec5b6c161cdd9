"""systemd-analyze: how open each service is, from 0 (closed) to 10 (open)."""

from __future__ import annotations

import re

from tests.verify.opinions.opinion import Finding, NoOpinionError, Opinion

NAME = "systemd-analyze"
# Every service that is loaded, and all of ours; of a template, an instance.
COMMAND = (
    "systemctl --version; systemd-analyze security --no-pager; "
    "units=$(systemctl list-unit-files --no-legend --plain 'molam*.service' undo-changes.service | cut -d ' ' -f 1); "
    'systemd-analyze security --no-pager $(echo "$units" | sed s/@/@a/) | grep Overall'
)
ROW = re.compile(r"^\W*(?:Overall exposure level for )?(\S+)\.service:?\s+(\d+\.\d)\s", re.MULTILINE)
# Units that are made for one command, such as Ansible's.
TRANSIENT = "run-"
# What is no finding.
CLOSED = 1.5
OURS = ("molam", "undo-changes")


def read(said: str) -> Opinion:
    """Return what the table says, and the lines for ours, after systemd's version."""
    scores = {unit: float(score) for unit, score in ROW.findall(said) if not unit.startswith(TRANSIENT)}
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
