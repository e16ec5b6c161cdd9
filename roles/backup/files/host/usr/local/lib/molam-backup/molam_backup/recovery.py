"""What follows a restore: PostgreSQL recovers, and every table and index is read."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from .system import POSTGRES, RestoreError, run, sql

DEADLINE_SECONDS = 12 * 3600

FOUND = """
SELECT json_build_object('events', count(*), 'newest_event', max(first_received_at)) FROM event_ids
"""


def wait(server: Path | None = None) -> str:
    """Wait until a server that was started has recovered; return the time of the last commit that it has, "" for none.

    Raises RestoreError where it does not get there.
    """
    end = time.monotonic() + DEADLINE_SECONDS
    while sql("SELECT pg_is_in_recovery()", server=server) == "t":
        if time.monotonic() > end:
            raise RestoreError(f"it has not recovered after {DEADLINE_SECONDS} s, and goes on")
        time.sleep(0.5)
    return sql("SELECT pg_last_xact_replay_timestamp()", server=server)


def complete(last: str, server: Path | None = None) -> None:
    """Check that it went on to the log's last segment; raise RestoreError where one before that is missing.

    PostgreSQL itself takes the first one that is missing for the log's end.
    """
    # Of the last byte: the place behind it is the next segment's, of which nothing may be there.
    reached = sql("SELECT substr(pg_walfile_name(pg_last_wal_replay_lsn() - 1), 9)", server=server)
    if reached < last:
        raise RestoreError(
            f"the log goes on to segment {last}, in the archive or on this host, and the recovery ended in {reached}: "
            "a segment between them is missing, and nothing that came after it can be restored"
        )


def same_timeline(newest: str) -> None:
    """Check that the host's server writes the archive's newest timeline; raise RestoreError where it does not."""
    own = sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
    if own < newest:
        raise RestoreError(
            f"the archive has timeline {newest}, and PostgreSQL writes {own}: a restore would follow the other one, "
            "and miss what is written now. Was a data folder put back by hand? Begin a new timeline: "
            "molam-restore --back-to FOLDER, with the data folder itself"
        )


def check(programs: Path, database: str, server: Path | None = None) -> dict[str, Any]:
    """Read every table and index, and return what the database has: `events`, and `newest_event`, when it came.

    Raises RestoreError where something is damaged.
    """
    where = [f"--host={server}"] if server else []
    run(programs / "pg_amcheck", *where, "--install-missing", "--heapallindexed", database, user=POSTGRES)
    found: dict[str, Any] = json.loads(sql(FOUND, database, server))
    return found
