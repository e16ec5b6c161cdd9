"""A schema that the release before this one cannot work with is found before it is released."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = Path("app") / "src" / "molam_webhook" / "migrations" / "versions"
SCHEMA = Path("app") / "src" / "molam_webhook" / "schema.py"
# What is run of the made-up release: enough to see both ends.
TESTS = ("conftest.py", "merchant.py", "processing.py", "support.py", "test_schema.py")

REVISION = """
from alembic import op

revision = "{0:04}"
down_revision = "{1:04}"
kind = "{2}"


def upgrade() -> None:
    op.execute("{3}")
"""


class Clone:
    """A repository whose only commit is a release, v1.0.0, where it is tagged as such."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        leave = shutil.ignore_patterns("__pycache__")
        for part in ("app/src", "scripts"):
            shutil.copytree(ROOT / part, folder / part, ignore=leave)
        shutil.copy(ROOT / "app" / "pyproject.toml", folder / "app")
        (folder / "app" / "tests").mkdir()
        for name in TESTS:
            shutil.copy(ROOT / "app" / "tests" / name, folder / "app" / "tests")
        self.git("init", "--initial-branch=main")
        self.commit("The first")

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        command: list[str | Path] = ["git", "-C", self.folder, *identity, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def commit(self, message: str) -> None:
        self.git("add", ".")
        self.git("commit", f"--message={message}")

    def add_revision(self, kind: str, statement: str) -> None:
        """Commit a revision after those that are there."""
        last = max(int(path.name[:4]) for path in (self.folder / VERSIONS).glob("[0-9]*.py"))
        text = REVISION.format(last + 1, last, kind, statement)
        (self.folder / VERSIONS / f"{last + 1:04}_test.py").write_text(text)
        schema = (self.folder / SCHEMA).read_text()
        (self.folder / SCHEMA).write_text(re.sub('NEWEST = ".*"', f'NEWEST = "{last + 1:04}"', schema))
        self.commit(statement)

    def test_previous(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [
            sys.executable,
            self.folder / "scripts" / "test-previous",
            "--numprocesses=0",
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder.parent)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


def test_without_an_earlier_release_there_is_nothing_to_test(clone: Clone) -> None:
    """A tag on this very commit is this release, and a pre-release is none that serves."""
    clone.git("tag", "v0.9.0rc1")
    clone.add_revision("expand", "ALTER TABLE orders RENAME COLUMN last_event_id TO event_id")
    clone.git("tag", "v1.0.0")
    answer = clone.test_previous()
    assert answer.returncode == 0
    assert answer.stdout == "There is no earlier release in the history of this commit, so nothing to test.\n"


@pytest.mark.slow
def test_what_was_added_is_no_matter_and_a_contract_waits(clone: Clone) -> None:
    clone.git("tag", "v1.0.0")
    clone.add_revision("expand", "ALTER TABLE orders ADD COLUMN more text")
    clone.add_revision("contract", "ALTER TABLE orders DROP COLUMN last_event_id")
    answer = clone.test_previous()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.startswith("The tests of v1.0.0 against the schema of this tree:\n")
    assert re.search(r"^2 passed", answer.stdout, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["DROP COLUMN last_event_id", "RENAME COLUMN last_event_id TO event_id"])
def test_what_it_needs_and_is_gone_is_found(clone: Clone, change: str) -> None:
    clone.git("tag", "v1.0.0")
    clone.add_revision("expand", f"ALTER TABLE orders {change}")
    answer = clone.test_previous("HEAD~1")
    assert answer.returncode == 1
    assert 'column "last_event_id" of relation "orders" does not exist' in answer.stdout
    assert re.search(r"^1 failed, 1 passed", answer.stdout, re.MULTILINE)
    assert "HEAD~1 does not work with this tree's schema" in answer.stderr


def test_tests_that_cannot_be_given_a_schema_are_not_taken_for_passed(clone: Clone) -> None:
    support = clone.folder / "app" / "tests" / "support.py"
    support.write_text(support.read_text().replace("MOLAM_TEST_MIGRATE", "NOTHING"))
    clone.commit("Older")
    clone.git("tag", "v1.0.0")
    clone.add_revision("expand", "ALTER TABLE orders ADD COLUMN more text")
    answer = clone.test_previous()
    assert answer.returncode == 1
    assert "v1.0.0 is too old" in answer.stderr


def test_a_commit_that_is_not_there_is_told(clone: Clone) -> None:
    answer = clone.test_previous("v7.0.0")
    assert answer.returncode == 1
    assert "git archive failed" in answer.stderr
    assert "Traceback" not in answer.stderr
