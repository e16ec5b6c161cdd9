"""Restore this host's database from its backups: the newest state, a moment, or one backup.

The receiver is stopped, the data folder put aside under another name, and what the repository has restored in its
place. Then every table and index is read, and the receiver started and tried. Whatever fails: the folder that was put
aside is whole, and --back-to serves it again.

playbooks/restore.yml runs this and asks first; docs/runbooks/restore.md says when to use what.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from . import recovery, repository, second
from .system import POSTGRES, Cluster, RestoreError, cluster, run, say

CREDENTIAL = Path("/etc/molam-backup/pgbackrest.conf.cred")
SECOND = 2
# In memory.
RUN, LOCK = Path("/run"), Path("/run/lock/molam-restore")
# What this host wrote last, of each data folder that was put aside by a restore which has not got to its end. It is
# given to PostgreSQL (molam-backup-streamed) at a second attempt too, and where the host starts in between.
OWN = second.COPIES / "own"
IDENTIFIER, REDO = "Database system identifier", "Latest checkpoint's REDO WAL file"
ACTIVE = Path("/opt/molam-webhook/active")
SEGMENT = "[0-9A-F]" * 24
# The front door's log of what was acknowledged, and what was kept of it elsewhere. 1: some are missing.
RECONCILE = """
zcat --force /var/log/nginx/molam-webhook.log* /var/lib/molam-backup/receipts/*.jsonl 2>/dev/null |
    molam-webhook events reconcile --json "$@" - || [ $? = 1 ]
"""
# Events are not committed in the order in which they came.
OVERLAP = timedelta(minutes=1)
# What an earlier restore may have left in the settings.
TARGETS = ("recovery_target", "recovery_target_time")
SERVING = [f"{name}@{slot}.service" for slot in "ab" for name in ("molam-webhook", "molam-webhook-worker")]
BACKING_UP = ["molam-backup.target"]
BACKING_UP += [f"molam-backup-{what}.service" for what in ("repository", "database", "host", "drill", "measure")]
# Its timer would start it again.
COPYING = ["molam-backup-second.timer", "molam-backup-second.service"]


@contextmanager
def unlocked() -> Iterator[Path]:
    """Lend the folder with the key, which PostgreSQL's user may read meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="molam-restore-", dir=RUN))
    try:
        folder.chmod(0o750)
        shutil.chown(folder, "root", POSTGRES)
        path = folder / "pgbackrest.conf"
        path.touch(mode=0o640)
        shutil.chown(path, "root", POSTGRES)
        path.write_text(run("systemd-creds", "decrypt", "--name=pgbackrest.conf", CREDENTIAL, "-"))
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def alone() -> Iterator[None]:
    """Let no other restore begin meanwhile; raise RestoreError where one is at work."""
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RestoreError("another restore is at work on this host; nothing was changed") from None
        yield


@contextmanager
def asked(folder: Path) -> Iterator[None]:
    """Let pgBackRest take a folder for the repository."""
    os.environ["PGBACKREST_REPO1_PATH"] = os.fspath(folder)
    try:
        yield
    finally:
        del os.environ["PGBACKREST_REPO1_PATH"]


@contextmanager
def copying_held() -> Iterator[None]:
    """Let nothing be copied meanwhile; then it goes on, where it did before."""
    if not second.SETTINGS.exists():
        yield
        return
    run("systemctl", "stop", *COPYING)
    try:
        yield
    finally:
        run("systemctl", "start", COPYING[0])


def aside_of(data: Path) -> Path:
    """Return the name under which a data folder is put aside now."""
    return data.with_name(f"{data.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")


def control(programs: Path, data: Path) -> dict[str, str]:
    """Return what the control file of a data folder says; nothing where it has none."""
    if not (data / "global" / "pg_control").exists():
        return {}
    pairs = (line.partition(":") for line in run(programs / "pg_controldata", data).splitlines())
    return {name: value.strip() for name, _, value in pairs}


def keep_log(data: Path, name: str, programs: Path, identifier: str) -> None:
    """Keep what this host wrote last and the archive did not get, and how far it goes, until a restore is over.

    `name` is that of the folder once it is put aside. A new host in place of a lost one has a cluster of its own, whose
    log is nothing to the one with that identifier.
    """
    kept = OWN / name
    kept.mkdir(parents=True)
    told = control(programs, data)
    if told.get(IDENTIFIER) == identifier:
        log = data / "pg_wal"
        for file in [*log.glob(SEGMENT), *log.glob("*.history")]:
            shutil.copyfile(file, kept / file.name)
        (kept / "redo").write_text(told[REDO])
    for path in (OWN, kept, *kept.iterdir()):
        shutil.chown(path, POSTGRES, POSTGRES)
        path.chmod(0o700 if path.is_dir() else 0o600)
    run("sync", "--file-system", OWN)


def own_last() -> str:
    """Return the segment, without its timeline, up to which this host's own log goes at least; "" for none."""
    return max((file.read_text()[8:] for file in OWN.glob("*/redo")), default="")


def earlier(data: Path) -> list[Path]:
    """Return where attempts that did not get to their end put what was there, the first one first."""
    return [data.with_name(kept.name) for kept in sorted(OWN.glob("*"))]


def first(*folders: Path) -> Path | None:
    """Return the first of these that exists, None where none does."""
    return next(filter(Path.exists, folders), None)


def branch_off(data: Path, asks_with: Path) -> None:
    """Let a server that was put aside begin a timeline of its own.

    On the one that it left, the archive would take what it writes for older than what the restore in between wrote.
    """
    lines = {"restore_command": repository.asking(data, asks_with), "recovery_target_timeline": "current"}
    lines |= dict.fromkeys(TARGETS, "")
    with (data / "postgresql.auto.conf").open("a") as file:
        # The last line of a name is the one that counts.
        file.writelines(f"{name} = '{value}'\n" for name, value in lines.items())
    (data / "recovery.signal").touch()
    shutil.chown(data / "recovery.signal", POSTGRES, POSTGRES)


def start(here: Cluster) -> str:
    """Start PostgreSQL and wait until it has recovered; return the time of its last commit.

    Raises RestoreError with the end of its log where it does not get there.
    """
    try:
        run("systemctl", "start", here.unit)
        return recovery.wait()
    except RestoreError as error:
        log = run("sh", "-c", "tail --quiet --lines=15 /var/log/postgresql/*.log")
        raise RestoreError(f"{error}\nThe end of PostgreSQL's log:\n{log}") from None


def serve() -> None:
    """Start the receiver and try it; raise RestoreError where it does not pass."""
    slot = ACTIVE.readlink().name
    run("systemctl", "start", f"molam-webhook@{slot}.service", f"molam-webhook-worker@{slot}.service")
    try:
        run("molam-webhook", "selftest", "--uds", "/run/molam-webhook/current.sock")
    except RestoreError:
        # What it took in meanwhile would be missing where somebody goes back.
        run("systemctl", "stop", *SERVING)
        raise


@contextmanager
def stopped(here: Cluster, *whole: Path) -> Iterator[None]:
    """Stop all that uses the database meanwhile.

    Raises RestoreError where what is done fails, which says how to serve the first of these folders that there is then.
    """
    say("stop the receiver, backups that are being made, and PostgreSQL")
    run("systemctl", "stop", *SERVING, *BACKING_UP, here.unit)
    try:
        yield
    except (RestoreError, OSError, KeyboardInterrupt) as error:
        kept = first(*whole)
        back = f"\nWhat was there before is whole. To have it back: molam-restore --back-to {kept}" if kept else ""
        raise RestoreError(f"{str(error) or 'it was interrupted'}{back}") from None


def verify(here: Cluster, database: str) -> dict[str, Any]:
    """Read all of it, let the receiver serve, and back up what is there now; return what was found."""
    say("read every table and index")
    report = recovery.check(here.programs, database)
    second.settle()
    if ACTIVE.is_symlink():
        say("start the receiver and try it")
        serve()
    say("back up what is there now, in the background")
    run("systemctl", "start", "--no-block", "molam-backup.target")
    return report


def restore(here: Cluster, arguments: argparse.Namespace) -> dict[str, Any]:
    """Restore what was asked for, and return the report."""
    from_second = arguments.repository == SECOND
    if from_second:
        say(f"fetch the second repository into {second.FETCHED}")
        second.fetch(second.FETCHED)
    with copying_held(), unlocked() as key:
        with asked(second.FETCHED if from_second else second.REPOSITORY):
            options = repository.options(repository.backups(key), arguments.to, arguments.backup)
            if not arguments.although_incomplete:
                repository.follow(key)
            if arguments.to:
                options.append(f"--target-timeline={repository.timeline_at(key, arguments.to)}")
            last, identifier = repository.last_segment(key), repository.identifier(key)
        was_there, aside = here.data.exists(), aside_of(here.data)
        before = [*earlier(here.data), aside]
        with stopped(here, *before, *([here.data] if was_there else [])):
            if was_there:
                # Cut off before or after the rename: the next attempt finds the log.
                keep_log(here.data, aside.name, here.programs, identifier)
                here.data.rename(aside)
            if from_second:
                second.put_in_place()
            say(f"restore into {here.data}; what was there is {aside if was_there else 'gone'}")
            here.data.mkdir(mode=0o700)
            shutil.chown(here.data, POSTGRES, POSTGRES)
            repository.restore(key, here.data, Path("/run/credentials", here.unit), *options)
            say("recover")
            recovered_to = start(here)
            if not options and not arguments.although_incomplete:
                recovery.complete(max(last, own_last()))
            report = verify(here, arguments.database)
    # The log as the other host took it, and as this one had it: from here it is in the archive.
    for folder in (second.REPOSITORY / "log", OWN):
        shutil.rmtree(folder, ignore_errors=True)
    there = first(*before)
    return report | {"recovered_to": recovered_to, "aside": os.fspath(there) if there else None}


def back_to(here: Cluster, folder: Path, database: str) -> dict[str, Any]:
    """Serve a folder again that was put aside, or go on with the one that is there, and return the report."""
    if folder.parent != here.data.parent or not (folder / "PG_VERSION").exists():
        raise RestoreError(f"{folder} is no data folder beside {here.data}; nothing was changed")
    aside = aside_of(here.data)
    with stopped(here, folder, here.data):
        if folder != here.data:
            if here.data.exists():
                say(f"serve {folder}; what was there is {aside}")
                here.data.rename(aside)
            folder.rename(here.data)
        branch_off(here.data, Path("/run/credentials", here.unit))
        recovered_to = start(here)
        report = verify(here, database)
    shutil.rmtree(OWN, ignore_errors=True)
    return report | {"recovered_to": recovered_to, "aside": os.fspath(aside) if aside.exists() else None}


def missing(newest: str | None) -> int | None:
    """Return how many events were acknowledged and are not there, of those that came after the newest that is.

    None where nothing tells: there is no log of the front door, or no release that reads it.
    """
    say("compare what was acknowledged with what is there")
    since = [f"--since={(datetime.fromisoformat(newest) - OVERLAP).isoformat()}"] if newest else []
    try:
        told = json.loads(run("sh", "-c", RECONCILE, "sh", *since))
    except (RestoreError, ValueError):
        return None
    return len(told["missing"]) if told["receipts"] else None


def backups(number: int) -> list[repository.Backup]:
    """Return the backups that a repository has."""
    with unlocked() as key:
        if number != SECOND:
            return repository.backups(key)
        lists = key / "lists"
        second.lists(lists)
        with asked(lists):
            return repository.backups(key)


def moment(text: str) -> datetime:
    """Read a time; without a zone it is UTC."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def confirmed() -> bool:
    """Ask whoever sits at a terminal; a program has asked before (playbooks/restore.yml)."""
    name = socket.gethostname()
    ask = f"The database of {name} will be put aside, and another state of it served. Type {name} to go on: "
    return not sys.stdin.isatty() or input(ask).strip() == name


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="molam-restore", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--to", type=moment, metavar="TIME", help="such as 2026-01-31T10:00:00 (UTC)")
    which.add_argument("--backup", metavar="LABEL", help="the state at the end of this one")
    which.add_argument("--back-to", type=Path, metavar="FOLDER", help="what a restore put aside: serve it again")
    which.add_argument("--list", action="store_true", help="only print the backups that there are, as JSON")
    parser.add_argument(
        "--repository", type=int, choices=(1, SECOND), default=1, help="this host's, or the copy on another host"
    )
    parser.add_argument(
        "--although-incomplete", action="store_true", help="take what there is where a part of the archive is missing"
    )
    parser.add_argument("--database", default="molam_webhook", help="what is read afterwards (default: %(default)s)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("molam-restore: run it as root", file=sys.stderr)
        return 1
    if arguments.repository == SECOND and not second.SETTINGS.exists():
        print("molam-restore: this host has no second repository (backup_repository_address)", file=sys.stderr)
        return 1
    try:
        if arguments.list:
            found = [one._asdict() | {"end": one.end.isoformat()} for one in backups(arguments.repository)]
            print(json.dumps(found))
            return 0
        if not confirmed():
            print("molam-restore: nothing was changed", file=sys.stderr)
            return 1
        began, here = time.monotonic(), cluster()
        back = arguments.back_to
        with alone():
            report = back_to(here, back, arguments.database) if back else restore(here, arguments)
        took = round(time.monotonic() - began, 1)
        print(json.dumps(report | {"seconds": took, "missing": missing(report["newest_event"])}))
    except (RestoreError, OSError) as error:
        print(f"molam-restore: {error}", file=sys.stderr)
        return 1
    return 0
