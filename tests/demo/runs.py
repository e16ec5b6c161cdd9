"""Verifications of the demo host, broken on purpose batch by batch, and of the mended one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tree import ROOT
from tests.verify.sabotage import Batch, Place, batches, read, sabotaged, undo, verify

# For who wants to see what is told of a host that is broken, and of one that is mended.
REPORTS = ROOT / ".state" / "reports" / "sabotage"


@dataclass(frozen=True)
class Run:
    """A verification: what was broken meanwhile, its report, and the page that shows it."""

    batch: Batch
    report: dict[str, Any]
    page: Path

    @property
    def states(self) -> dict[str, str]:
        """Return how each line stood, by its id."""
        return {line["id"]: line["state"] for line in self.report["lines"]}

    @property
    def red(self) -> set[str]:
        """Return the lines that failed."""
        return {name for name, state in self.states.items() if state == "failed"}

    @property
    def declared(self) -> set[str]:
        """Return the lines that should fail."""
        return {name for one in self.batch for name in one.breaks}

    def seen(self, name: str) -> str:
        """Return what was seen where the line did not hold."""
        (line,) = [line for line in self.report["lines"] if line["id"] == name]
        return "\n".join(look["seen"] for look in line["looks"] if look["state"] == "failed")


@dataclass(frozen=True)
class Runs:
    """A verification of each batch, and one after all."""

    of_batches: list[Run]
    closing: Run

    @property
    def all(self) -> list[Run]:
        """Return them in their order."""
        return [*self.of_batches, self.closing]


def break_and_mend(place: Place) -> Runs:
    """Break and look, batch after batch; then mend all of it once more, which is mended, and look again."""
    sabotages, done = read(), []
    for batch in batches(sabotages):
        with sabotaged(place, batch):
            done.append(look(place, batch))
    undo(place, sabotages)
    return Runs(done, look(place, []))


def look(place: Place, batch: Batch) -> Run:
    """Verify the host as it is, broken or not."""
    report = verify(place, batch, REPORTS)
    return Run(batch, report, max((REPORTS / place.host).glob("*.html")))
