"""A full disk under load, where the write-ahead log is: PostgreSQL ends, and comes back once there is room."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from faults.disks import filled, small_file_system
from faults.proof import ENOUGH, Site, StartSite, prove, restarts
from support import Postgres, query, wait_until

pytestmark = pytest.mark.database


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="molam-") as path, small_file_system(Path(path) / "disk", 64) as disk:
        yield disk


@pytest.fixture(scope="module")
def postgres(disk: Path) -> Iterator[Postgres]:
    """A PostgreSQL whose log has a small disk of its own."""
    wal = disk / "wal"
    wal.mkdir()
    shutil.chown(wal, "postgres")
    with tempfile.TemporaryDirectory(prefix="molam-pg-") as path:
        server = Postgres(Path(path), wal=wal)
        server.prepare()
        yield server
        server.stop()


def test_nothing_is_lost_when_the_log_finds_no_room(
    disk: Path, postgres: Postgres, url: str, start_site: StartSite
) -> None:
    # No file is kept to be used again.
    for name, value in (("min_wal_size", "2MB"), ("wal_recycle", "off"), ("checkpoint_timeout", "30s")):
        query(url, f"ALTER SYSTEM SET {name} = '{value}'")
    query(url, "SELECT pg_reload_conf()")

    @contextmanager
    def disk_full(_site: Site) -> Iterator[None]:
        with filled(disk):
            wait_until(lambda: "PANIC" in (postgres.directory / "log").read_text())
            yield
        wait_until(partial(restarts, postgres))

    prove(disk_full, ENOUGH, start_site())
