"""`make release`: it refuses before it changes anything, and what does not end well is taken back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("app", "requirements", "roles/webhook_app/files", "scripts")
REVISION = "app/src/molam_webhook/migrations/versions/9999_removed.py"
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}
CHANGELOG = """# Changelog

## Unreleased

### Added
- It sings.

## [1.0.0] - 2026-01-31

### Added
- It is there.
"""

Environment = Mapping[str, str]


class Clone:
    """A repository with a release, v1.0.0, and a commit after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        self.git("init", "--initial-branch=main")
        self.git("config", "user.name", "Test")
        self.git("config", "user.email", "test@localhost")
        (folder / ".gitignore").write_text("__pycache__/\n")
        self.commit("The first")
        self.git("tag", "--annotate", "--message=Release 1.0.0", "v1.0.0")
        self.write("CHANGELOG.md", CHANGELOG)

    def git(self, *arguments: str) -> str:
        command: list[str | Path] = ["git", "-C", self.folder, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str) -> None:
        self.git("add", ".")
        self.git("commit", f"--message={message}")

    def write(self, name: str, text: str) -> None:
        """Commit a file."""
        (self.folder / name).write_text(text)
        self.commit(f"Write {name}")

    def command(self, *arguments: str) -> list[str | Path]:
        return [sys.executable, self.folder / "scripts" / "release", *arguments]

    def release(self, *arguments: str, env: Environment = MappingProxyType({})) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)

    def state(self) -> tuple[str, ...]:
        """Return all that a release changes: commits, branch, tags, index and files."""
        return (
            self.git("log", "--format=%H", "--all"),
            self.git("rev-parse", "--abbrev-ref", "HEAD"),
            self.git("tag", "--list"),
            self.git("status", "--porcelain"),
            (self.folder / "CHANGELOG.md").read_text(),
            (self.folder / "app" / "pyproject.toml").read_text(),
        )


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("", "'' is no version: say VERSION=1.2.0, or 1.2.0rc1"),
        ("v1.2.0", "'v1.2.0' is no version"),
        ("1.2", "'1.2' is no version"),
        ("1.02.0", "'1.02.0' is no version"),
        ("1.2.٣", "'1.2.٣' is no version"),
        ("1.0.0", "there is a tag v1.0.0 already"),
        ("0.9.9", "0.9.9 is not newer than the newest tag, v1.0.0."),
        ("1.0.0rc1", "1.0.0rc1 is not newer than the newest tag, v1.0.0."),
    ],
)
def test_a_wrong_version_is_told(clone: Clone, version: str, reason: str) -> None:
    before = clone.state()
    answer = clone.release(version)
    assert answer.returncode == 1
    assert answer.stderr.startswith("release: nothing was changed, since\n- ")
    assert reason in answer.stderr
    assert clone.state() == before


def test_every_fault_is_told_at_once(clone: Clone) -> None:
    clone.write(REVISION, 'revision = "9999"\nkind = "contract"\n')
    clone.write(
        "CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n### Added\n\n## [1.0.0] - 2026-01-31\n- It is there.\n"
    )
    clone.git("checkout", "--detach")
    (clone.folder / "new").write_text("of somebody's")
    before = clone.state()
    answer = clone.release("1.0.0")
    assert answer.returncode == 1
    told = [line.removeprefix("- ")[:45] for line in answer.stderr.splitlines()[1:]]
    assert told == [
        "there is a tag v1.0.0 already, and a release ",
        "the working tree is not clean: commit or stas",
        "?? new",
        "no branch is checked out: 'git switch' to the",
        "CHANGELOG.md has nothing under '## Unreleased",
        "CHANGELOG.md does not name revision 9999, a c",
    ]
    assert clone.state() == before


def test_a_changelog_without_its_heading_is_told(clone: Clone) -> None:
    clone.write("CHANGELOG.md", "# Changelog\n\n## [1.0.0] - 2026-01-31\n- It is there.\n")
    answer = clone.release("1.1.0")
    assert answer.returncode == 1
    assert "CHANGELOG.md has no heading '## Unreleased'." in answer.stderr


def test_a_dry_run_says_what_would_be_done(clone: Clone) -> None:
    clone.write(REVISION, 'revision = "9999"\nkind = "contract"\n')
    clone.write("CHANGELOG.md", CHANGELOG.replace("It sings.", "It sings. Contract 9999: no way back."))
    before = clone.state()
    answer = clone.release("1.1.0", "--dry-run")
    assert answer.returncode == 0, answer.stderr
    assert "v1.1.0" in answer.stdout
    assert "- It sings. Contract 9999: no way back." in answer.stdout
    assert "It is there" not in answer.stdout
    assert clone.state() == before


@pytest.mark.slow
def test_a_release(clone: Clone, tmp_path: Path) -> None:
    before = clone.git("rev-parse", "HEAD")
    answer = clone.release("1.10.0rc1")
    assert answer.returncode == 0, answer.stderr
    assert clone.git("status", "--porcelain") == ""
    assert clone.git("rev-parse", "HEAD~1") == before
    assert clone.git("rev-parse", "v1.10.0rc1^{commit}") == clone.git("rev-parse", "main")
    assert clone.git("diff", "--name-only", "HEAD~1").split() == ["CHANGELOG.md", "app/pyproject.toml"]
    assert clone.git("diff", "--numstat", "HEAD~1", "app/pyproject.toml").split()[:2] == ["1", "1"]
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert (clone.folder / "CHANGELOG.md").read_text() == CHANGELOG.replace(
        "## Unreleased\n", f"## Unreleased\n\n## [1.10.0rc1] - {today}\n"
    )
    assert clone.git("cat-file", "-t", "v1.10.0rc1") == "tag"
    message = clone.git("tag", "--list", "--format=%(contents)", "v1.10.0rc1")
    assert message == "Release 1.10.0rc1\n\n### Added\n- It sings."
    # What was printed is what anybody gets who builds it.
    printed = dict(re.findall(r"^  bundle +(\S+)\n  SHA-256 +([0-9a-f]{64})$", answer.stdout, re.MULTILINE))
    assert {name.rpartition("-cp")[2] for name in printed} == {"313-x86_64.tar", "311-x86_64.tar"}
    command: list[str | Path] = [sys.executable, clone.folder / "scripts" / "build-bundle", f"--cache={tmp_path}"]
    command += ["--release=v1.10.0rc1", "--python=3.11", "--machine=x86_64"]
    built = Path(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["path"])
    assert printed[built.name] == hashlib.sha256(built.read_bytes()).hexdigest()


@pytest.mark.slow
def test_builds_that_differ_are_no_release(clone: Clone) -> None:
    script = (clone.folder / "scripts" / "build-bundle").read_text()
    clone.write("scripts/build-bundle", script.replace("member.mtime = PACKED_AT", "member.mtime = os.getpid()"))
    before = clone.state()
    answer = clone.release("1.1.0")
    assert answer.returncode == 1
    assert re.search(r"two builds of molam-webhook-v1\.1\.0-\S+-cp313-x86_64\.tar differ", answer.stderr)
    assert "release: taken back: there is no tag v1.1.0" in answer.stderr
    assert clone.state() == before


@pytest.mark.slow
def test_a_build_that_fails_is_no_release(clone: Clone) -> None:
    before = clone.state()
    answer = clone.release("1.1.0", env=NO_INDEX)
    assert answer.returncode == 1
    assert "Is the package index reachable" in answer.stderr
    assert "release: taken back: there is no tag v1.1.0" in answer.stderr
    assert clone.state() == before


def test_a_commit_that_is_refused_is_no_release(clone: Clone) -> None:
    hook = clone.folder / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\necho it is Friday >&2\nexit 1\n")
    hook.chmod(0o755)
    before = clone.state()
    answer = clone.release("1.1.0")
    assert answer.returncode == 1
    assert "it is Friday" in answer.stderr
    assert clone.state() == before


@pytest.mark.slow
def test_what_is_cut_off_is_taken_back(clone: Clone) -> None:
    before = clone.state()
    with subprocess.Popen(clone.command("1.1.0"), stderr=subprocess.PIPE, text=True) as process:
        while "v1.1.0" not in clone.git("tag", "--list") and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "release: taken back: there is no tag v1.1.0" in told
    assert clone.state() == before
