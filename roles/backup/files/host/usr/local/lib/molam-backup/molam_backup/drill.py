"""Rehearse a restore: the newest backup, to a random moment since, as a second PostgreSQL beside the one that serves.

Every table and index is read, what came before that moment is compared with what the host has, and the receiver's own
question is asked, whether it would be ready. Then all of it is removed. The result is a line of
/var/lib/molam-backup/drill/results.jsonl. molam-backup-drill.service runs this.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from . import recovery, repository
from .system import RestoreError, cluster, need_room, run, say, sql

DRILL = Path("/var/lib/molam-backup/drill")
RESULTS = DRILL / "results.jsonl"

# A server that recovers must not have less of these than the one whose log it reads.
NOT_LESS = (
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
)

# So much of the database's size is to be free before a drill: the one that serves goes on growing.
ROOM = 1.25

# What the receiver asks before it says that it is ready (the application's database.py), here for its role.
READY = """
SELECT has_table_privilege('molam_webhook', 'webhook_deliveries', 'INSERT') AND NOT pg_is_in_recovery()
"""

# What was committed at a moment bears a time from just before: the transaction's begin.
COMMITTED = timedelta(seconds=5)


def settings(sockets: Path) -> str:
    """Return the settings of a server that nobody reaches but this program."""
    own = {
        "listen_addresses": "''",
        "unix_socket_directories": f"'{sockets}'",
        "shared_buffers": "'32MB'",
        "jit": "off",
        "autovacuum": "off",
        "logging_collector": "off",
        "log_min_messages": "fatal",
    }
    live = {name: sql(f"SHOW {name}") for name in NOT_LESS}
    return "".join(f"{name} = {value}\n" for name, value in (own | live).items())


@contextmanager
def server(programs: Path, data: Path, sockets: Path) -> Iterator[None]:
    """Start a server on what was restored, and stop it in the end."""
    (data / "postgresql.conf").write_text(settings(sockets))
    (data / "pg_hba.conf").write_text("local all all peer\n")
    (data / "pg_ident.conf").touch()
    log = data / "drill.log"
    try:
        run(programs / "pg_ctl", f"--pgdata={data}", f"--log={log}", "--wait", "--timeout=43200", "start")
        yield
    except RestoreError as error:
        said = log.read_text() if log.exists() else ""
        raise RestoreError(f"{error}\n{said[-2000:]}") from None
    finally:
        # One that did not reach the moment has ended by itself.
        with suppress(RestoreError):
            run(programs / "pg_ctl", f"--pgdata={data}", "--mode=immediate", "stop")


def events(database: str, until: datetime, sockets: Path | None = None) -> int:
    """Return how many events there are that came before a moment. Their ids are kept for ever."""
    asked = f"SELECT count(*) FROM event_ids WHERE first_received_at < '{until.isoformat()}'"  # noqa: S608  a time
    return int(sql(asked, database, sockets))


def rehearse(key: Path, database: str) -> dict[str, Any]:
    """Do it, and return what came of it; raise RestoreError where that is not what it should be."""
    programs = cluster().programs
    scratch, sockets = DRILL / "data", DRILL / "sockets"
    for folder in (scratch, sockets):
        # A run that was cut off may have left it.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
    size = int(sql("SELECT sum(pg_database_size(oid)) FROM pg_database"))
    need_room(DRILL, int(size * ROOM), "a drill")
    newest = repository.backups(key)[-1]
    recovery.same_timeline(repository.timeline(key))
    # A commit after any moment that may be chosen, without which nobody could tell that it was reached; then all of the
    # log is archived.
    first = newest.end + timedelta(seconds=1)
    time.sleep(max(0.0, (first - datetime.now(UTC)).total_seconds()))
    to = first + (datetime.now(UTC) - first) * random.random()  # noqa: S311  no secret
    sql("SELECT pg_logical_emit_message(true, 'molam-backup-drill', '')")
    repository.backrest(key, "check")
    say(f"restore {newest.label}, and go on to {to:%Y-%m-%d %H:%M:%S} UTC")
    began = time.monotonic()
    repository.restore(key, scratch, key, "--archive-mode=off", *repository.options([newest], to, None))
    with server(programs, scratch, sockets):
        recovered_to = recovery.wait(sockets)
        seconds = round(time.monotonic() - began, 1)
        say("read every table and index")
        found = recovery.check(programs, database, sockets)
        if sql(READY, database, sockets) != "t":
            raise RestoreError(
                "a receiver would not be ready with what was restored: its role may store no events there"
            )
        until = to - COMMITTED
        here, there = events(database, until), events(database, until, sockets)
    if there != here:
        raise RestoreError(f"{here} events came until {until}, and {there} of them were restored")
    return found | {
        "backup": newest.label,
        "asked_for": to.isoformat(),
        "recovered_to": recovered_to,
        "compared_events": here,
        "recovery_seconds": seconds,
    }


def main() -> int:
    """Rehearse, and write down what came of it."""
    began = datetime.now(UTC)
    try:
        result = rehearse(Path(os.environ["CREDENTIALS_DIRECTORY"]), os.environ["BACKUP_DATABASE"]) | {"passed": True}
    except (RestoreError, OSError) as error:
        result = {"passed": False, "why": str(error)}
    finally:
        for folder in (DRILL / "data", DRILL / "sockets"):
            shutil.rmtree(folder, ignore_errors=True)
    line = json.dumps({"at": began.isoformat()} | result)
    with RESULTS.open("a") as file:
        file.write(f"{line}\n")
    print(line)
    if not result["passed"]:
        print(f"The drill failed: {result['why']}\nSee docs/runbooks/restore.md.", file=sys.stderr)
        return 1
    return 0
