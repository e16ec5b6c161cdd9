"""A plugin of pytest (``-p tests.verify.plugin --verify-looks=FILE``): keeps how each test of the checklist ended.

``--verify-answers=FILE`` spares the tests the questions to the inventory: JSON, the answers by what would be asked.

The file is JSON: a list of `result.Look`. What a failed test compared may hold a secret: whoever reads it takes it out.
"""

from __future__ import annotations

import ast
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.host.inventory import remember
from tests.verify import outcome
from tests.verify.result import Look, State, in_words

IDS = "checklist"
# What did not hold of a comparison, for who does not read Python.
COMPARED: dict[type[ast.cmpop], str] = {
    ast.Eq: "it is {}, and should be {}",
    ast.NotEq: "it is {}, and should be another",
    ast.Is: "it is {}, and should be {}",
    ast.IsNot: "it is {}, and should be another",
    ast.Lt: "it is {}, and should be less than {}",
    ast.LtE: "it is {}, and should be {} at the most",
    ast.Gt: "it is {}, and should be more than {}",
    ast.GtE: "it is {}, and should be {} at least",
    ast.In: "{} is not in {}",
    ast.NotIn: "{} is in {}",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that says where to."""
    parser.addoption("--verify-looks", type=Path, metavar="FILE", help="keep there how tests of the checklist ended")
    parser.addoption("--verify-answers", type=Path, metavar="FILE", help="what the inventory says, by expression")


def pytest_configure(config: pytest.Config) -> None:
    """Know the answers in every process, and collect where the results come together: not in a worker of xdist."""
    if answers := config.getoption("--verify-answers"):
        remember(json.loads(answers.read_text()))
    file = config.getoption("--verify-looks")
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(file))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Send the ids along with the result, which may come from a worker."""
    ids = dict.fromkeys(name for mark in item.iter_markers("checklist") for name in mark.args)
    item.user_properties.append((IDS, list(ids)))


class Collector:
    """What came so far, by test."""

    def __init__(self, file: Path) -> None:
        """Know where it is kept at the end."""
        self._file = file
        self._looks: dict[str, Look] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep how a test ended: what it leaves behind can only make it worse."""
        before = self._looks.get(report.nodeid)
        if (before and before.state is State.FAILED) or (report.when == "teardown" and report.passed):
            return
        state, why = ended(report)
        told = [str(value) for name, value in report.user_properties if name == outcome.EVIDENCE]
        ids = next((value for name, value in report.user_properties if name == IDS), [])
        seen = "; ".join([*told, why] if why else told)
        look = Look(report.nodeid, tuple(ids if isinstance(ids, list) else []), in_words(report.nodeid), state, seen)
        self._looks[report.nodeid] = look

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        self._file.write_text(json.dumps([asdict(look) for look in self._looks.values()]))


def ended(report: pytest.TestReport) -> tuple[State, str]:
    """Return how a phase of a test ended, and why it did not pass. A skip that says nothing of a line is no test."""
    if report.passed:
        return State.PASSED, ""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if reason.startswith(outcome.NOT_APPLICABLE):
            return State.NOT_APPLICABLE, reason.removeprefix(outcome.NOT_APPLICABLE)
        return State.NOT_TESTABLE, reason.removeprefix(outcome.NOT_TESTABLE)
    crash = getattr(report.longrepr, "reprcrash", None)
    message = str(crash.message if crash else report.longrepr)
    # Its first line says what was compared; the others are for who mends a test.
    return State.FAILED, compared(message.partition("\n")[0].removeprefix("AssertionError: "))


def compared(message: str) -> str:
    """Put what pytest says of an assertion into words; what is no expression of Python's stays as it is."""
    said = message.removeprefix("assert ")
    try:
        tree = ast.parse(said, mode="eval").body if said != message else None
    except SyntaxError:
        return said
    match tree:
        case ast.Compare(left=left, ops=[how], comparators=[right]):
            return COMPARED[type(how)].format(ast.unparse(left), ast.unparse(right))
        case ast.UnaryOp(op=ast.Not(), operand=there):
            return f"there is {ast.unparse(there)}, and should be nothing"
        case ast.Constant() | ast.Dict() | ast.List():
            return "it does not hold"
    return said
