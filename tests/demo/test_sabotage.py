"""The tests are tested: each line of the checklist turns red when it is broken, and green again when it is mended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tree import ROOT
from tests.verify import checklist
from tests.verify.sabotage import Batch, Sabotage, batches, read, sabotaged, undo, verify

from .conftest import Demo

pytestmark = pytest.mark.xdist_group("demo")

SABOTAGES = read()
# For who wants to see what is told of a host that is broken, and of one that is mended.
REPORTS = ROOT / ".state" / "reports" / "sabotage"
SECONDS_AT_MOST = 480


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
    """A verification of each batch, and one after all; and how long all of it took."""

    of_batches: list[Run]
    closing: Run
    seconds: float

    @property
    def all(self) -> list[Run]:
        """Return them in their order."""
        return [*self.of_batches, self.closing]


@pytest.fixture(scope="module")
def runs(demo: Demo) -> Runs:
    """Break and look, batch after batch; then mend all of it once more, which is mended, and look again."""
    began, done = time.monotonic(), []
    for batch in batches(SABOTAGES):
        with sabotaged(demo.place, batch):
            done.append(look(demo, batch))
    undo(demo.place, SABOTAGES)
    closing = look(demo, [])
    return Runs(done, closing, time.monotonic() - began)


def look(demo: Demo, batch: Batch) -> Run:
    """Verify the host as it is, broken or not."""
    report = verify(demo.place, batch, REPORTS)
    return Run(batch, report, max((REPORTS / demo.place.host).glob("*.html")))


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda one: one.name)
def test_it_is_seen(runs: Runs, sabotage: Sabotage) -> None:
    """In each line that it breaks, and by what it did there."""
    (run,) = [run for run in runs.of_batches if sabotage in run.batch]
    missed = {name: run.seen(name) for name, words in sabotage.breaks.items() if words not in run.seen(name)}
    assert missed == {}


def test_no_other_line_turns_red(runs: Runs) -> None:
    assert [run.red - run.declared for run in runs.all] == [set()] * len(runs.all)


def test_each_line_is_green_again(runs: Runs) -> None:
    """In the next run, or in a later one where the next one breaks it otherwise."""
    assert runs.closing.red == set()
    for number, run in enumerate(runs.of_batches):
        mended = {name for later in runs.all[number + 1 :] for name, state in later.states.items() if state == "passed"}
        assert run.declared - mended == set()


def test_all_lines_are_in_the_reports(runs: Runs) -> None:
    assert {tuple(run.states) for run in runs.all} == {tuple(checklist.read())}


def test_it_takes_no_longer_than_somebody_waits(runs: Runs) -> None:
    assert runs.seconds < SECONDS_AT_MOST
