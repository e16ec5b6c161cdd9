"""What this host wrote last and the archive did not get, of each data folder that an unfinished restore put aside.

It is given to PostgreSQL (molam-backup-streamed) at a second attempt too, and where the host starts in between.
"""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .second import COPIES
from .system import POSTGRES, RestoreError, run

OWN = COPIES / "own"
NEW = OWN.with_name("own.new")
SEGMENT = "[0-9A-F]" * 24
# Where a segment says which cluster wrote it (PostgreSQL's xlog_internal.h: XLogLongPageHeaderData).
SYSTEM = slice(24, 32)
LONG = timedelta(days=7)
REDO = "Latest checkpoint's REDO WAL file"


def written_by(segment: Path) -> str:
    """Return the identifier of the cluster that wrote a segment of the log."""
    with segment.open("rb") as file:
        return str(int.from_bytes(file.read(SYSTEM.stop)[SYSTEM], sys.byteorder))


def redo(programs: Path, data: Path) -> str:
    """Return the segment from which a data folder would recover; nothing where its control file is not whole."""
    try:
        lines = run(programs / "pg_controldata", data).splitlines()
    except RestoreError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(REDO)), "")


def keep(data: Path, name: str, programs: Path, identifier: str) -> None:
    """Keep what this host wrote last and the archive did not get, and how far it goes, until a restore is over.

    `name` is that of the folder once it is put aside. A new host in place of a lost one has a cluster of its own, whose
    log is nothing to the one with that identifier. Raises RestoreError where not all of it can be kept.
    """
    OWN.mkdir(exist_ok=True)
    OWN.chmod(0o750)
    shutil.chown(OWN, "root", POSTGRES)
    # What was cut off.
    shutil.rmtree(NEW, ignore_errors=True)
    NEW.mkdir(mode=0o700)
    shutil.chown(NEW, POSTGRES, POSTGRES)
    log = data / "pg_wal"
    try:
        segments = [file for file in log.glob(SEGMENT) if written_by(file) == identifier]
        if segments:
            run("cp", f"--target-directory={NEW}", *segments, *log.glob("*.history"), user=POSTGRES)
        run("sync", "--file-system", NEW)
    except (RestoreError, OSError) as error:
        shutil.rmtree(NEW)
        raise RestoreError(
            f"what this host wrote last is not kept, of which the archive may not have all: {error}\nIs there room? "
            "docs/runbooks/disk-full.md. To go on without it: --although-incomplete"
        ) from None
    begins = redo(programs, data)
    if begins in {file.name for file in segments}:
        (OWN / f"{name}.redo").write_text(begins)
    NEW.rename(OWN / name)


def last() -> str:
    """Return the segment, without its timeline, up to which this host's own log goes at least; "" for none."""
    return max((file.read_text()[8:] for file in OWN.glob("*.redo")), default="")


def earlier(data: Path) -> list[Path]:
    """Return where attempts that did not get to their end put what was there, the first one first."""
    return [data.with_name(kept.name) for kept in sorted(OWN.glob("*")) if kept.is_dir()]


def forget(backed_up: datetime) -> None:
    """Forget attempts that somebody ended another way: long ago, and what there is was backed up since."""
    before = min(backed_up, datetime.now(UTC) - LONG)
    for kept in OWN.glob("*.before-*"):
        when = datetime.strptime(kept.name.split(".before-")[1][:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if when < before:
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink()


def drop() -> None:
    """Forget all of it: a restore has got to its end."""
    shutil.rmtree(OWN, ignore_errors=True)
