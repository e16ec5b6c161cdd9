"""The tests are tested: each line of the checklist turns red when it is broken, and green again when it is mended."""

from __future__ import annotations

import pytest

from tests.verify import checklist
from tests.verify.sabotage import Sabotage, read

from .runs import Runs

SABOTAGES = read()


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
