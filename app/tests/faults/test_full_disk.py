"""A full disk under load, where the tables are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from faults.disks import filled, small_file_system
from faults.proof import ENOUGH, Site, StartSite, prove
from support import Postgres, query

pytestmark = pytest.mark.database


@pytest.fixture
def small_disk(postgres: Postgres, database: str, directory: Path) -> Iterator[Path]:
    """Moves the database to a small file system of its own."""
    with small_file_system(directory / "disk", megabytes=64) as disk:
        space = disk / "space"
        space.mkdir()
        shutil.chown(space, "postgres")
        administrator = postgres.url("postgres")
        query(administrator, f"CREATE TABLESPACE small LOCATION '{space}'")
        query(administrator, f"ALTER DATABASE {database} SET TABLESPACE small")
        yield disk
        query(administrator, f"ALTER DATABASE {database} SET TABLESPACE pg_default")
        query(administrator, "DROP TABLESPACE small")


def test_nothing_is_lost_when_the_disk_is_full(small_disk: Path, start_site: StartSite) -> None:
    def disk_full(_site: Site) -> AbstractContextManager[None]:
        return filled(small_disk)

    prove(disk_full, ENOUGH, start_site())
