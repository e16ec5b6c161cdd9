"""Commands of the host, and PostgreSQL's cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from pwd import getpwnam
from typing import NamedTuple

POSTGRES = "postgres"
ARCHIVE_SECONDS = 60
# The segment that a switch ended, or the one before where nothing was written since the last switch: what the switch
# returns is the place behind it, which may be where the next one begins, and from PostgreSQL 17 on is called by that.
SWITCHED = "SELECT pg_walfile_name(pg_switch_wal() - 1)"

# What is done here follows from what is there: it need not wait for another host, which may be away.
os.environ["PGOPTIONS"] = "-c synchronous_commit=local"


class RestoreError(Exception):
    """Something is not as it has to be; the text says what, and what to do."""


class Cluster(NamedTuple):
    """A cluster of PostgreSQL: its unit, its data folder, its settings, and where the programs of its version are."""

    unit: str
    data: Path
    settings: Path
    programs: Path


def cluster() -> Cluster:
    """Return the one that this host has."""
    (line,) = run("pg_lsclusters", "--no-header").splitlines()
    version, name, *_, data, _log = line.split()
    settings = Path("/etc/postgresql", version, name)
    return Cluster(
        f"postgresql@{version}-{name}.service", Path(data), settings, Path("/usr/lib/postgresql", version, "bin")
    )


def run(*command: str | Path, user: str = "") -> str:
    """Run a command, as another user where one is named, and return what it prints.

    Raises RestoreError with all that it said where it fails.
    """
    other = user and getpwnam(user).pw_uid != os.geteuid()
    words = ["/usr/sbin/runuser", "-u", user, "--", *command] if other else [*command]
    # With another key what is decrypted is no text, and is told all the same.
    answer = subprocess.run(  # noqa: S603  ours
        words, cwd="/", capture_output=True, text=True, errors="replace", check=False
    )
    if answer.returncode:
        raise RestoreError(f"{' '.join(map(str, command))} failed:\n{(answer.stdout + answer.stderr).strip()}")
    return answer.stdout


def sql(statement: str, database: str = POSTGRES, server: Path | None = None) -> str:
    """Return what a statement gives, of one row and column; of the host's own server, or the one with these sockets."""
    where = [f"--host={server}"] if server else []
    return run("psql", "--no-psqlrc", "-qAt", *where, f"--command={statement}", database, user=POSTGRES).strip()


def archived() -> None:
    """Have what was committed archived, and wait for it; raise RestoreError where the archive does not take it."""
    segment, end = sql(SWITCHED), time.monotonic() + ARCHIVE_SECONDS
    while sql("SELECT last_archived_wal FROM pg_stat_archiver") < segment:
        if time.monotonic() > end:
            raise RestoreError(f"the archive did not take segment {segment} within {ARCHIVE_SECONDS} s")
        time.sleep(0.2)


def stamp() -> str:
    """Return the time as names of what is put aside have it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def need_room(folder: Path, size: int, what: str) -> None:
    """Check that a disk takes so many bytes more; raise RestoreError where it does not."""
    free = shutil.disk_usage(folder).free
    if free < size:
        needs, has = f"it needs {size >> 20} MiB", f"{free >> 20} MiB are free below {folder}"
        raise RestoreError(f"No space left on device for {what}: {needs}, and {has}")


def say(text: str) -> None:
    """Tell whoever waits what is being done."""
    print(f"{datetime.now(UTC):%H:%M:%S}  {text}", file=sys.stderr, flush=True)
