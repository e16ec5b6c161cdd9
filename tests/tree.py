"""A copy of this tree, as a repository of its own: what somebody has who has just cloned it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_tree(folder: Path) -> None:
    """Copy all that git would have of the working tree, what is not committed yet too, and make a repository of it."""
    files = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, files):
        source, target = ROOT / name, folder / name
        if source.exists() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "Tests")
    git(folder, "config", "user.email", "tests@example.com")


def commit(folder: Path, message: str) -> None:
    """Commit all that such a copy has now."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", f"--message={message}")


def git(folder: Path, *arguments: str) -> str:
    """Run git there and return what it printed."""
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout
