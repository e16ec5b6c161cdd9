"""A host that is taken away under load, without warning, and what it had acknowledged by then."""

from __future__ import annotations

import subprocess
import time
from typing import NamedTuple

from tests.host.conftest import Site
from tests.host.load import load
from tests.host.playbooks import ROOT

PODMAN = ROOT / "scripts" / "podman"
MARK_SECONDS = 0.1


class Taken(NamedTuple):
    """When each event had been acknowledged, with its id, and when the host went, in seconds of one clock."""

    answered: list[tuple[float, str]]
    gone: float

    def until(self, seconds: float = 0.0) -> list[str]:
        """Return the events that were acknowledged so long before the host went."""
        return [event_id for at, event_id in self.answered if at <= self.gone - seconds]


def take_away(container: str, site: Site, *, seconds: float, pause_seconds: float) -> Taken:
    """Send events for so long, then kill the host and remove it with its disk."""
    marks = []
    with load(site, senders=2, pause_seconds=pause_seconds) as answers:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            marks.append((now, len(answers)))
            time.sleep(MARK_SECONDS)
        gone = time.monotonic()
        subprocess.run([PODMAN, "kill", container], check=True, capture_output=True)
    subprocess.run([PODMAN, "rm", "--force", container], check=True, capture_output=True)
    answered, before = [], 0
    for at, count in (*marks, (gone, len(answers))):
        answered += [(at, event_id) for event_id, status in answers[before:count] if status == 200]
        before = count
    return Taken(answered, gone)
