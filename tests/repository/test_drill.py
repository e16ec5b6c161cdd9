"""What a drill looks at before it restores anything, and afterwards."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

MIB = 1 << 20


@pytest.mark.parametrize(
    ("free_mib", "says"),
    [(120, "No space left on device for a drill: it needs 125 MiB"), (130, "the repository is asked")],
)
def test_a_drill_needs_room_for_the_database_and_some_more(
    backup: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_mib: int, says: str
) -> None:
    drill = backup.drill

    def reached(_key: Path) -> None:
        raise backup.system.RestoreError("the repository is asked")

    monkeypatch.setattr(drill, "DRILL", tmp_path)
    monkeypatch.setattr(drill, "cluster", lambda: SimpleNamespace(programs=tmp_path))
    monkeypatch.setattr(drill, "sql", lambda _statement: str(100 * MIB))
    monkeypatch.setattr(backup.system.shutil, "disk_usage", lambda _path: SimpleNamespace(free=free_mib * MIB))
    monkeypatch.setattr(backup.repository, "backups", reached)
    with pytest.raises(backup.system.RestoreError, match=says):
        drill.rehearse(tmp_path, "molam_webhook")


@pytest.mark.parametrize(
    ("restored", "ready", "why"),
    [
        (1000, "t", ""),
        (999, "t", "1000 events came until .*, and 999 of them were restored"),
        (0, "t", "1000 events came until .*, and 0 of them were restored"),
        (1000, "f", "a receiver would not be ready"),
    ],
)
def test_a_backup_that_lacks_an_event_or_would_not_serve_does_not_pass(
    backup: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, restored: int, ready: str, why: str
) -> None:
    drill = backup.drill

    def sql(statement: str, _database: str = "", server: Path | None = None) -> str:
        if "has_table_privilege" in statement:
            return ready
        counts = "1000" if server is None else str(restored)
        return counts if "event_ids" in statement else "0"

    newest = backup.repository.Backup(
        "20261130-021500F", "full", datetime.now(UTC) - timedelta(minutes=1), 0, "00000001"
    )
    monkeypatch.setattr(drill, "DRILL", tmp_path)
    monkeypatch.setattr(drill, "cluster", lambda: SimpleNamespace(programs=tmp_path))
    monkeypatch.setattr(drill, "sql", sql)
    monkeypatch.setattr(drill, "server", lambda *_arguments: nullcontext())
    for module, name, answer in (
        (backup.repository, "backups", [newest]),
        (backup.repository, "timeline", "00000001"),
        (backup.repository, "backrest", ""),
        (backup.repository, "restore", None),
        (drill.recovery, "same_timeline", None),
        (drill.recovery, "wait", "now"),
        (drill.recovery, "check", {"events": restored}),
    ):
        monkeypatch.setattr(module, name, lambda *_arguments, answer=answer: answer)
    if not why:
        assert drill.rehearse(tmp_path, "molam_webhook")["compared_events"] == restored
        return
    with pytest.raises(backup.system.RestoreError, match=why):
        drill.rehearse(tmp_path, "molam_webhook")
