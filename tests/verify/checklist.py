"""The security checklist, and which tests show that a line of it holds.

A test names the lines that it shows with ``@pytest.mark.checklist("NET-1", …)``. Marks are read from the text of the
tests, so that one may ask for them without a host and without a database.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "contract" / "security-checklist.yml"


class Line(NamedTuple):
    """One line of the checklist: what has to hold, and where that is seen (host, outside, app, repo)."""

    text: str
    proof: frozenset[str]

    @property
    def of_a_host(self) -> bool:
        """Whether it says something of a live host, and not of the repository alone."""
        return self.proof != {"repo"}


class Test(NamedTuple):
    """A test that shows lines: where it stands, which ones, and whether it changes the host."""

    path: Path
    name: str
    ids: frozenset[str]
    intrusive: bool


def read(file: Path = FILE) -> dict[str, Line]:
    """Return the lines by their ids, in the order in which they stand there."""
    entries = yaml.safe_load(file.read_text())
    return {name: Line(entry["text"], frozenset(entry["proof"])) for name, entry in entries.items()}


def tests_below(*folders: Path) -> list[Test]:
    """Return the tests that name lines, of the files test_*.py below these folders."""
    files = [path for folder in folders for path in sorted(folder.rglob("test_*.py"))]
    return [test for path in files for test in _tests_in(path) if test.ids]


def _tests_in(path: Path) -> Iterator[Test]:
    tree = ast.parse(path.read_text())
    of_all = [
        mark
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        for mark in (node.value.elts if isinstance(node.value, ast.List) else [node.value])
    ]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            marks = [*of_all, *node.decorator_list]
            ids = [name for mark in marks for name in _ids(mark)]
            yield Test(path, node.name, frozenset(ids), any(_is(mark, "intrusive") for mark in marks))


def _is(mark: ast.expr, name: str) -> bool:
    return ast.unparse(mark.func if isinstance(mark, ast.Call) else mark) == f"pytest.mark.{name}"


def _ids(mark: ast.expr) -> list[str]:
    if not (_is(mark, "checklist") and isinstance(mark, ast.Call)):
        return []
    return [str(ast.literal_eval(argument)) for argument in mark.args]
