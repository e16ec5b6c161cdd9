"""What the scripts that deal with releases share: git, and which tags of a repository are releases."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

_NUMBER = "(0|[1-9][0-9]*)"
# Of a pre-release too: v1.2.0rc1.
TAG = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:(a|b|rc){_NUMBER})?")


class GitError(Exception):
    """Git did not do what was asked; the text says what and why."""


def ask_git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a repository to its end; raise GitError where there is no git."""
    program = shutil.which("git")
    if program is None:
        raise GitError("git is not installed: run scripts/setup.")
    return subprocess.run(  # noqa: S603  the arguments are ours
        [program, "-C", str(repository), *arguments], capture_output=True, text=True, check=False
    )


def git(repository: Path, *arguments: str) -> str:
    """Return what git printed, without the end of its last line; raise GitError where it fails."""
    answer = ask_git(repository, *arguments)
    if answer.returncode != 0:
        raise GitError(f"git {arguments[0]} failed in {repository}:\n{answer.stderr.strip()}")
    return answer.stdout.rstrip("\n")


def order(tag: str) -> tuple[int, int, int, bool, str, int]:
    """Return what the tags of releases are sorted by: a pre-release comes before its release."""
    match = TAG.fullmatch(tag)
    if match is None:
        raise ValueError(tag)
    major, minor, patch, stage, number = match.groups()
    return int(major), int(minor), int(patch), stage is None, stage or "", int(number or 0)


def is_final(tag: str) -> bool:
    """Return whether the tag of a release is not that of a pre-release."""
    return order(tag)[3]


def tags(repository: Path, *conditions: str) -> list[str]:
    """Return the tags of releases, newest first, under conditions of ``git tag --list`` such as ``--merged``.

    Without a repository or a commit there are none.
    """
    names = ask_git(repository, "tag", "--list", *conditions).stdout.split()
    return sorted(filter(TAG.fullmatch, names), key=order, reverse=True)


def export(repository: Path, commit: str, folder: Path, *parts: Path) -> None:
    """Write parts of the repository at a commit below ``folder``; raise GitError where they can't be had."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "export.tar"
        git(repository, "archive", f"--output={archive}", commit, *map(str, parts))
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
