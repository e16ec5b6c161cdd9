"""What a drill looks at before it restores anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

MIB = 1 << 20


@pytest.mark.parametrize(
    ("free_mib", "says"), [(120, "No space left on device.* 100 MiB"), (130, "the repository is asked")]
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
    monkeypatch.setattr(drill.shutil, "disk_usage", lambda _path: SimpleNamespace(free=free_mib * MIB))
    monkeypatch.setattr(backup.repository, "backups", reached)
    with pytest.raises(backup.system.RestoreError, match=says):
        drill.rehearse(tmp_path, "molam_webhook")
