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

from . import own, recovery, repository, second
from .system import POSTGRES, Cluster, RestoreError, cluster, need_room, run, say, stamp

CREDENTIAL = Path("/etc/molam-backup/pgbackrest.conf.cred")
SECOND = 2
# In memory.
RUN, LOCK = Path("/run"), Path("/run/molam-restore.lock")
# In a data folder that --back-to has begun to serve: the name that it was put aside under.
UNFINISHED = "molam-back-to"
# Which repository pgBackRest asks.
REPOSITORY_PATH = "PGBACKREST_REPO1_PATH"
ACTIVE = Path("/opt/molam-webhook/active")
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
def set_to(variable: str, path: Path) -> Iterator[None]:
    """Let a variable of the environment name a path meanwhile."""
    os.environ[variable] = os.fspath(path)
    try:
        yield
    finally:
        del os.environ[variable]


@contextmanager
def lent(folder: Path) -> Iterator[None]:
    """Lend the key to the second repository's host as well, in the same folder: it is fetched by PostgreSQL's user."""
    key = folder / "key"
    # ssh takes one of root's that this user may read.
    key.touch(mode=0o640)
    shutil.chown(key, "root", POSTGRES)
    key.write_text((second.SETTINGS / "key").read_text())
    with set_to("CREDENTIALS_DIRECTORY", folder):
        yield


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
    return data.with_name(f"{data.name}.before-{stamp()}")


def rename(folder: Path, name: Path) -> None:
    """Give a data folder another name, as the user whose it is: root would follow whatever link is in the way."""
    run("mv", "--no-target-directory", folder, name, user=POSTGRES)


def first(*folders: Path) -> Path | None:
    """Return the first of these that exists, None where none does."""
    return next(filter(Path.exists, folders), None)


def is_whole(data: Path) -> bool:
    """Whether all of a data folder was restored once: pgBackRest writes this file last."""
    return (data / "global" / "pg_control").exists()


def make_room(here: Cluster, size: int) -> None:
    """Check that the disk takes the database; what an attempt had restored that was cut off is removed for it."""
    if first(*own.earlier(here.data)) and here.data.exists() and not is_whole(here.data):
        say(f"remove the part that was restored when it was cut off: {here.data}")
        run("rm", "--recursive", "--force", here.data, user=POSTGRES)
    need_room(here.data.parent, size, "what is to be restored, beside what there is")


def branch_off(folder: Path, data: Path, asks_with: Path) -> None:
    """Let a server that was put aside, and will be served as `data`, begin a timeline of its own.

    On the one that it left, the archive would take what it writes for older than what the restore in between wrote.
    """
    lines = {"restore_command": repository.asking(data, asks_with), "recovery_target_timeline": "current"}
    lines |= dict.fromkeys(TARGETS, "")
    # The last line of a name is the one that counts.
    settings = [f"{name} = '{value}'" for name, value in lines.items()]
    write = 'cd "$1" && shift && printf "%s\\n" "$@" >>postgresql.auto.conf && touch recovery.signal'
    run("sh", "-c", write, "sh", folder, *settings, user=POSTGRES)


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
    try:
        run("systemctl", "stop", *SERVING, *BACKING_UP, here.unit)
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
    with unlocked() as key:
        if arguments.repository == SECOND:
            say(f"fetch the second repository into {second.FETCHED}")
            with lent(key):
                second.fetch_repository()
            second.fetch_besides()
        with copying_held():
            return restored(here, key, arguments)


def restored(here: Cluster, key: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Restore from what is on this host, and return the report."""
    from_second = arguments.repository == SECOND
    with set_to(REPOSITORY_PATH, second.FETCHED if from_second else second.REPOSITORY):
        found = repository.backups(key)
        options = repository.options(found, arguments.to, arguments.backup)
        if not arguments.although_incomplete:
            repository.follow(key)
        if arguments.to:
            options.append(f"--target-timeline={repository.timeline_at(key, arguments.to)}")
        last, identifier = repository.last_segment(key), repository.identifier(key)
    own.forget(found[-1].end)
    make_room(here, found[-1].size)
    was_there, aside = here.data.exists(), aside_of(here.data)
    before = [*own.earlier(here.data), aside]
    with stopped(here, *before, *([here.data] if was_there else [])):
        if was_there:
            # Cut off before or after the rename: the next attempt finds the log.
            try:
                own.keep(here.data, aside.name, here.programs, identifier)
            except RestoreError as error:
                if not arguments.although_incomplete:
                    raise
                say(str(error))
            rename(here.data, aside)
        if from_second:
            second.put_in_place()
        say(f"restore into {here.data}; what was there is {aside if was_there else 'gone'}")
        run("mkdir", "--mode=0700", here.data, user=POSTGRES)
        repository.restore(key, here.data, Path("/run/credentials", here.unit), *options)
        say("recover")
        recovered_to = start(here)
        if not options and not arguments.although_incomplete:
            recovery.complete(max(last, own.last()))
        report = verify(here, arguments.database)
    # The log as the other host took it, and as this one had it: from here it is in the archive.
    shutil.rmtree(second.REPOSITORY / "log", ignore_errors=True)
    own.drop()
    there = first(*before)
    return report | {"recovered_to": recovered_to, "aside": os.fspath(there) if there else None}


def back_to(here: Cluster, folder: Path, database: str) -> dict[str, Any]:
    """Serve a folder again that was put aside, or go on with the one that is there, and return the report."""
    # A run that was cut off, between the two names, or behind them.
    name, resumed, unfinished = folder.name, not here.data.exists(), here.data / UNFINISHED
    if not folder.exists() and unfinished.exists() and unfinished.read_text() == name:
        folder, resumed = here.data, True
    if folder.parent != here.data.parent or not (folder / "PG_VERSION").exists():
        raise RestoreError(f"{folder} is no data folder beside {here.data}; nothing was changed")
    aside = aside_of(here.data)
    whole = (aside, here.data, folder) if is_whole(here.data) else (folder, here.data)
    with copying_held(), stopped(here, *whole):
        run("sh", "-c", 'printf %s "$1" >"$2"', "sh", name, folder / UNFINISHED, user=POSTGRES)
        branch_off(folder, here.data, Path("/run/credentials", here.unit))
        if folder != here.data:
            if here.data.exists():
                say(f"serve {folder}; what was there is {aside}")
                rename(here.data, aside)
            rename(folder, here.data)
        recovered_to = start(here)
        report = verify(here, database)
        run("rm", "--force", unfinished, user=POSTGRES)
    own.drop()
    if resumed:
        # What the run that was cut off had put aside.
        others = here.data.parent.glob(f"{here.data.name}.before-*")
        aside = max(others, default=aside)
    return report | {"recovered_to": recovered_to, "aside": os.fspath(aside) if aside.exists() else None}


def missing(newest: str | None) -> int | None:
    """Return how many events were acknowledged and are not there, of those that came after the newest that is.

    None where nothing tells: the front door's log does not go back so far, or the release cannot read it.
    """
    say("compare what was acknowledged with what is there")
    since = [f"--since={(datetime.fromisoformat(newest) - OVERLAP).isoformat()}"] if newest else []
    try:
        told = json.loads(run("sh", "-c", RECONCILE, "sh", *since))
    except (RestoreError, ValueError):
        return None
    if not told["receipts"]:
        return None
    begins = datetime.fromisoformat(told["first_received_at"])
    reaches = not newest or begins <= datetime.fromisoformat(newest) + OVERLAP
    return len(told["missing"]) if reaches else None


def backups(number: int) -> list[repository.Backup]:
    """Return the backups that a repository has."""
    with unlocked() as key:
        if number != SECOND:
            return repository.backups(key)
        lists = key / "lists"
        lists.mkdir(mode=0o750)
        shutil.chown(lists, POSTGRES, POSTGRES)
        with lent(key):
            second.lists(lists)
        with set_to(REPOSITORY_PATH, lists):
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
    os.umask(0o027)
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
    except (RestoreError, OSError, KeyboardInterrupt) as error:
        print(f"molam-restore: {str(error) or 'it was interrupted'}", file=sys.stderr)
        return 1
    return 0
