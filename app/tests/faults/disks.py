"""Small file systems, and what fills them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_file_system(disk: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of its own; skips the test where nobody may."""
    disk.mkdir()
    options = f"size={megabytes}m"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("this host lets nobody mount a file system")
    disk.parent.chmod(0o755)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave no room on it. What is there grows meanwhile."""
    ballast = disk / "ballast"
    room = shutil.disk_usage(disk).free
    with ballast.open("wb") as file:
        while room:
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), room)
            room = shutil.disk_usage(disk).free
    try:
        yield
    finally:
        ballast.unlink()
