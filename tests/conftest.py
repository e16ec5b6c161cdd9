"""What all tests share: the lines of the security checklist that a test shows, and what it saw of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from tests.verify import checklist, outcome

Saw = Callable[[str], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a mark that names no line of the checklist, or none at all."""
    known = checklist.read()
    for item in items:
        for mark in item.iter_markers("checklist"):
            if not mark.args or not known.keys() >= set(mark.args):
                said = ", ".join(map(repr, mark.args)) or "nothing"
                raise pytest.UsageError(f"{item.nodeid}: checklist names {said}, which is no line of {checklist.FILE}")


@pytest.fixture
def saw(record_property: Callable[[str, object], None]) -> Saw:
    """Return what keeps, for the report, what a test saw: a few words, with no secret in them."""
    return lambda words: record_property(outcome.EVIDENCE, words)


def not_applicable(reason: str) -> NoReturn:
    """End a test of what the inventory does not ask for; the reason says which variable says so."""
    pytest.skip(outcome.NOT_APPLICABLE + reason)


def not_testable(reason: str) -> NoReturn:
    """End a test that can't be made on this host, or from here."""
    pytest.skip(outcome.NOT_TESTABLE + reason)
