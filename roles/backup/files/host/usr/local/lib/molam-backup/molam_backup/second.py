"""The second repository: a copy of the first one and of the daily copies, on another host, which has no key to it.

A copy can be restored from at any moment: it lists a backup (backup.info) after all that belongs to the backup is
there. What was removed here is removed there last, and kept apart there for some days. The log is sent before anything
else, and while a backup is being sent. molam-backup-second.service runs this, one time after the other.

Where it is to be synchronous, molam-backup-stream.service sends the log besides, while it is written, and commits wait
for that from the moment on when the other host has everything that came before.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .system import POSTGRES, RestoreError, archived, need_room, run, say, sql, stamp

REPOSITORY = Path("/var/lib/pgbackrest")
COPIES = Path("/var/lib/molam-backup")
# Which events were answered 200, in nginx's own words: an hour a file.
RECEIPTS = Path("/var/log/nginx/receipts")
SETTINGS = Path("/etc/molam-backup/second")
STATE = COPIES / "second" / "sent.json"
# There is this file where commits are to wait for the other host, which takes the log under this name.
SYNCHRONOUS, STANDBY = SETTINGS / "synchronous", "molam_repository"
STREAMING = """
SELECT count(*) FROM pg_stat_replication WHERE application_name = 'molam_repository' AND state = 'streaming'
"""
STREAM = "molam-backup-stream.service"
STREAM_SECONDS = 30
# The copy, before it takes the repository's place: on the same disk.
FETCHED = REPOSITORY / "fetched"

# Which repository this is: made with it, and gone with it. An empty one of a new host never takes a copy's place.
IDENTITY = "molam-id"
# What a repository is, in the order in which it is moved: that there are backups keeps the key until all else has gone
# (keep-key.py).
PARTS = ("archive", IDENTITY, "backup")
# What is copied besides, and is no part of it.
BESIDES = ("database", "host", "receipts")
# What lists the backups.
INFO = ("backup.info", "backup.info.copy")
# What pgBackRest has not finished.
UNFINISHED = "--exclude=*.pgbackrest.tmp"
WHOLE_SECONDS = 3600
LOG_SECONDS = 5
# Files that are older than what was sent last, for a clock that was set back a little.
SLACK_SECONDS = 60
# rsync's status where a file went away meanwhile.
VANISHED = 24
# The exit status where it did not get there; the next run tries again (sysexits.h: EX_TEMPFAIL).
AGAIN = 75


def ssh() -> list[str]:
    """Return the command that reaches the other host, where it is called `second`."""
    key = Path(os.environ.get("CREDENTIALS_DIRECTORY", SETTINGS), "key")
    return ["ssh", "-F", f"{SETTINGS}/ssh_config", "-i", f"{key}"]


def rsync(*arguments: str | Path) -> list[str | Path]:
    """Return a command that copies; `second:` is the place on the other host."""
    return ["rsync", f"--rsh={' '.join(ssh())}", "--recursive", "--links", "--times", "--timeout=60", *arguments]


def identity(folder: Path) -> str:
    """Return which repository a folder has; nothing where that is not known."""
    path = folder / IDENTITY
    return path.read_text().strip() if path.exists() else ""


def same() -> None:
    """Check that the copy is of this host's repository; raise RestoreError where it is another one's.

    Where there is no copy yet, this repository is from now on the one that is copied.
    """
    with tempfile.TemporaryDirectory() as folder:
        run(*rsync(f"--include=/{IDENTITY}", "--exclude=*", "second:./", f"{folder}/"))
        there = identity(Path(folder))
    if not identity(REPOSITORY):
        (REPOSITORY / IDENTITY).write_text(f"{uuid.uuid4()}\n")
    if not there:
        # Whatever was sent before is not there any more.
        done(0, whole=0, list=0)
        run(*rsync(REPOSITORY / IDENTITY, "second:./"))
    elif there != identity(REPOSITORY):
        raise RestoreError(
            f"the second repository has the copy of another repository ({there}), which is not overwritten; nothing "
            "was copied. Is this a new host in place of a lost one? molam-restore --repository 2. Is the copy needed "
            "no more? docs/backups.md, 'A second repository'"
        )


def new_log(since: float) -> list[str]:
    """Return what the archive got since then, by its place in the repository."""
    archive = REPOSITORY / "archive"
    folders = [folder for depth in ("*", "*/*", "*/*/*") for folder in archive.glob(depth) if folder.is_dir()]
    young = [folder for folder in folders if folder.stat().st_mtime >= since - SLACK_SECONDS]
    files = [file for folder in young for file in folder.iterdir() if file.is_file()]
    return sorted(str(file.relative_to(REPOSITORY)) for file in files if file.stat().st_mtime >= since - SLACK_SECONDS)


def send_log(since: float) -> None:
    """Send what the archive got since then, oldest first, and which events were answered 200."""
    with tempfile.NamedTemporaryFile("w") as names:
        names.write("\n".join(new_log(since)))
        names.flush()
        listed = f"--files-from={names.name}"
        run(*rsync(listed, "--ignore-missing-args", UNFINISHED, REPOSITORY, "second:./"))
    if RECEIPTS.exists():
        run(*rsync("--append", f"{RECEIPTS}/", "second:receipts/"))


@contextmanager
def listed() -> Iterator[Path]:
    """Lend the list of backups as it is now, which may go on to change."""
    with tempfile.TemporaryDirectory() as name:
        for file in INFO:
            source = REPOSITORY / "backup" / "molam" / file
            if source.exists():
                shutil.copy2(source, name)
        yield Path(name)


def changed() -> float:
    """Return when the list of backups changed last; 0 where there is none."""
    path = REPOSITORY / "backup" / "molam" / INFO[0]
    return path.stat().st_mtime if path.exists() else 0


def send_all(since: float) -> bool:
    """Send everything, and the log meanwhile; remove what is here no more. Return whether it is complete."""
    sources = [f"{REPOSITORY}/./archive", f"{REPOSITORY}/./backup", f"{COPIES}/./database", f"{COPIES}/./host"]
    everything = ["--relative", "--ignore-missing-args", UNFINISHED, "--exclude=.new"]
    with listed() as infos:
        before = changed()
        lists = [f"--exclude=/backup/molam/{file}" for file in INFO]
        sending = subprocess.Popen(rsync(*everything, *lists, *sources, "second:./"))  # noqa: S603  ours
        try:
            while sending.poll() is None:
                began = time.time()
                time.sleep(LOG_SECONDS)
                send_log(since)
                since = began
                done(since)
        finally:
            sending.terminate()
        if sending.wait() == VANISHED:
            return False
        if sending.returncode:
            raise RestoreError("the second repository did not take everything: rsync says above why")
        if before:
            run(*rsync(f"{infos}/", "second:./backup/molam/"))
    # An expiry that has begun meanwhile takes its files away before the copy knows of it.
    if changed() != before:
        return False
    removed = f"--backup-dir=removed/{time.strftime('%Y-%m-%d')}"
    only_remove = ["--existing", "--ignore-existing", "--delete", "--backup", removed]
    run(*rsync(*everything, *only_remove, *sources, "second:./"))
    return True


def sent() -> dict[str, float]:
    """Return until when all of the log was sent, and when everything was and with which list of backups.

    And, as `free`, how much of the other disk is left, where that was told.
    """
    state: dict[str, float] = json.loads(STATE.read_text()) if STATE.exists() else {"log": 0, "whole": 0, "list": 0}
    return state


def done(log: float, **more: float) -> None:
    """Keep until when what is here is there too."""
    new = STATE.with_suffix(".new")
    new.write_text(json.dumps(sent() | {"log": log} | more) + "\n")
    new.replace(STATE)


def free() -> float:
    """Return the share of the disk with the copy that can still be filled."""
    left, whole = run(*ssh(), "second", "free").split()
    return int(left) / int(whole)


def copy() -> None:
    """Send what is new."""
    began, backups = time.time(), changed()
    same()
    last = sent()
    send_log(last["log"])
    done(began)
    if (backups != last["list"] or began - last["whole"] > WHOLE_SECONDS) and send_all(began):
        done(sent()["log"], whole=began, list=backups)
    # Every minute is enough, and last: where it is not told, all is sent.
    if began // 60 != last["log"] // 60:
        done(sent()["log"], free=free())


def waited_for() -> bool:
    """Whether commits wait for the other host."""
    return sql("SHOW synchronous_standby_names") == STANDBY


def synchronous() -> None:
    """Let commits wait for the other host, where that is wanted and it has all that came before."""
    if not SYNCHRONOUS.exists() or waited_for() or not sent()["list"] or sql(STREAMING) == "0":
        return
    archived()
    send_log(sent()["log"])
    sql(f"ALTER SYSTEM SET synchronous_standby_names = {STANDBY}")
    if not SYNCHRONOUS.exists():
        # It was called off meanwhile.
        wait_for_nobody()
        return
    sql("SELECT pg_reload_conf()")
    say("from here a commit waits until the second repository's host has it")


def wait_for_nobody() -> None:
    """Let commits wait for no other host, at once."""
    sql("ALTER SYSTEM RESET synchronous_standby_names")
    sql("SELECT pg_reload_conf()")


def not_synchronous() -> None:
    """Let commits wait for no other host, from now on."""
    wait_for_nobody()
    run("systemctl", "disable", "--now", "--quiet", STREAM)
    sql("DROP ROLE IF EXISTS molam_stream")
    SYNCHRONOUS.unlink(missing_ok=True)
    # A copy that was about to switch it on may have done so.
    wait_for_nobody()


def settle() -> None:
    """Let a server that was restored wait for the other host only where this one wants that, and until that is there.

    Raises RestoreError where the other host does not come.
    """
    if not waited_for():
        return
    if not SYNCHRONOUS.exists():
        not_synchronous()
        return
    end = time.monotonic() + STREAM_SECONDS
    while sql(STREAMING) == "0":
        if time.monotonic() > end:
            raise RestoreError(
                "commits wait for the second repository's host (backup_synchronous), and it does not take the log: "
                f"journalctl -u {STREAM} -n 20. To serve without it: molam-backup-second --not-synchronous"
            )
        time.sleep(0.5)


def fetch(into: Path, *only: str) -> None:
    """Fetch the copy, or only what these filters let through, into a folder of PostgreSQL's user, as that user.

    Raises RestoreError where there is none, or no room for it.
    """
    run("mkdir", "--parents", "--mode=0750", into, user=POSTGRES)
    # What is kept apart there stays there: old files, copies of before another key, and whose turn it is.
    without = [f"--exclude=/{name}" for name in ("removed", "before-*", "log/lock", *BESIDES)]
    copied = rsync("--no-links", "--delete", *without, *only, "second:./", f"{into}/")
    told = run(*copied, "--dry-run", "--stats", "--no-human-readable", user=POSTGRES)
    need_room(into, int(re.findall(r"Total transferred file size: (\d+)", told)[0]), "the copy")
    run(*copied, user=POSTGRES)
    if not identity(into):
        raise RestoreError("the second repository has no copy of this host's yet; nothing was changed")


def fetch_repository() -> None:
    """Fetch the copy into the repository's folder, beside what there is of it, if only an empty disk."""
    run("install", "--directory", f"--owner={POSTGRES}", f"--group={POSTGRES}", "--mode=0750", REPOSITORY)
    fetch(FETCHED)


def fetch_besides() -> None:
    """Fetch the daily copies and the receipts that are not here."""
    with tempfile.TemporaryDirectory(dir=COPIES) as name:
        folder = Path(name)
        only = [f"--include=/{what}/***" for what in BESIDES]
        run(*rsync("--no-links", f"--compare-dest={COPIES}/", *only, "--exclude=*", "second:./", f"{folder}/"))
        for file in [file for what in BESIDES for file in folder.glob(f"{what}/*")]:
            kept = COPIES / file.relative_to(folder)
            kept.parent.mkdir(exist_ok=True)
            if not kept.exists():
                shutil.chown(file, POSTGRES, POSTGRES)
                file.rename(kept)


def lists(into: Path) -> None:
    """Fetch what tells which backups the copy has."""
    fetch(into, "--include=*/", "--include=*.info", "--include=*.info.copy", f"--include=/{IDENTITY}", "--exclude=*")


def move(folder: Path, into: Path) -> None:
    """Move what a folder has of a repository, and of the log as the other host took it; what is not there is left."""
    names = [name for name in (*PARTS, "log") if (folder / name).exists()]
    for name in names:
        run("mkdir", "--parents", "--mode=0750", into, user=POSTGRES)
        run("mv", "--no-target-directory", folder / name, into / name, user=POSTGRES)


def put_in_place() -> None:
    """Let the fetched copy be this host's repository. What was here is put aside beside it."""
    aside = REPOSITORY / f"replaced-{stamp()}"
    if identity(REPOSITORY):
        # First, so that one that is cut off is known for what it is.
        run("mkdir", "--mode=0750", aside, user=POSTGRES)
        run("cp", REPOSITORY / IDENTITY, aside, user=POSTGRES)
    move(REPOSITORY, aside)
    move(FETCHED, REPOSITORY)
    if aside.exists():
        say(f"the repository that was here is in {aside}")
    for replaced in REPOSITORY.glob("replaced-*"):
        if identity(replaced) == identity(REPOSITORY) and (replaced / "archive").exists():
            # It may have archived something since.
            log = [f"{replaced}/archive/", f"{REPOSITORY}/archive/"]
            run("rsync", "--recursive", "--times", "--ignore-existing", *log, user=POSTGRES)


def main() -> int:
    """Send what is new, and say what is wrong."""
    parser = argparse.ArgumentParser(
        prog="molam-backup-second", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--not-synchronous", action="store_true", help="let commits wait for no other host any more")
    arguments = parser.parse_args()
    os.umask(0o027)
    try:
        if arguments.not_synchronous:
            not_synchronous()
        else:
            copy()
            synchronous()
    except (RestoreError, OSError) as error:
        print(f"molam-backup-second: {error}", file=sys.stderr)
        return 1 if arguments.not_synchronous else AGAIN
    return 0
