"""Which kind of backup a night makes: all of the database once a week, else what changed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/backup/files/host/usr/local/sbin/molam-backup-repository"
HOUR, DAY = 3600, 86_400

# In pgBackRest's place: says which backups there are, and keeps what else it is asked for.
PGBACKREST = """#!/bin/sh
case "$*" in
    *info*) cat "$FOLDER/info" ;;
    *) echo "$*" >>"$FOLDER/asked" ;;
esac
"""


def backup(kind: str, age: int, *, damaged: bool = False) -> dict[str, object]:
    """Return a backup as pgBackRest tells of it."""
    return {"type": kind, "error": damaged, "timestamp": {"stop": int(time.time()) - age}}


@pytest.mark.parametrize(
    ("there", "kind"),
    [
        ([], "full"),
        ([backup("full", HOUR)], "diff"),
        ([backup("full", 6 * DAY), backup("diff", DAY)], "diff"),
        # The timer is not to the minute.
        ([backup("full", 7 * DAY - HOUR // 2), backup("diff", DAY)], "full"),
        ([backup("full", 20 * DAY), backup("full", 2 * DAY)], "diff"),
        ([backup("full", 20 * DAY), backup("full", 2 * DAY, damaged=True)], "full"),
    ],
)
def test_all_of_it_once_a_week(tmp_path: Path, there: list[dict[str, object]], kind: str) -> None:
    stand_in = tmp_path / "pgbackrest"
    stand_in.write_text(PGBACKREST)
    stand_in.chmod(0o755)
    (tmp_path / "info").write_text(json.dumps([{"backup": there}] if there else []))
    path = f"{tmp_path}:{os.environ['PATH']}"
    env = {"PATH": path, "FOLDER": str(tmp_path), "CREDENTIALS_DIRECTORY": "/key"}
    subprocess.run([PROGRAM], env=env, check=True)
    made, backed_up = (tmp_path / "asked").read_text().splitlines()
    common = "--config-include-path=/key --stanza=molam"
    assert (made, backed_up) == (f"{common} stanza-create", f"{common} --type={kind} backup")
