"""What a restore keeps of the log that this host wrote last, until one has got to its end."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

HOST = Path(__file__).resolve().parents[2] / "roles/backup/files/host"
SEGMENT = "000000010000000000000012"
HERE, ELSEWHERE = "7411", "7422"


@pytest.fixture
def host(backup: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Lend the module, which keeps the log below a folder of the test's own, and whose commands say what is asked."""
    restore = backup.restore
    monkeypatch.setattr(restore, "OWN", tmp_path / "own")
    monkeypatch.setattr(shutil, "chown", lambda *_names: None)
    told = f"Database system identifier:           {HERE}\nLatest checkpoint's REDO WAL file:    {SEGMENT}\n"
    monkeypatch.setattr(restore, "run", lambda *_command: told)
    cluster = backup.system.Cluster("postgresql@17-main.service", tmp_path / "main", tmp_path, tmp_path)
    return SimpleNamespace(root=tmp_path, restore=restore, cluster=cluster)


def put_aside(host: SimpleNamespace, when: str, *, whole: bool) -> Path:
    """Make a data folder that was put aside; one that is not whole has what pgBackRest had restored by then."""
    folder: Path = host.root / f"main.before-{when}"
    (folder / "pg_wal").mkdir(parents=True)
    if whole:
        (folder / "global").mkdir()
        (folder / "global" / "pg_control").touch()
        for name in (SEGMENT, "00000002.history", "archive_status"):
            (folder / "pg_wal" / name).write_text(name)
    return folder


def streamed(host: SimpleNamespace, name: str) -> str | None:
    """Return what PostgreSQL gets where the archive has not got a file, as it is on the host but for the folder."""
    program = (HOST / "usr/local/sbin/molam-backup-streamed").read_text()
    program = program.replace("/var/lib/molam-backup", str(host.root))
    answer = subprocess.run(["sh", "-c", program, "sh", name, host.root / "got"], check=False)
    return (host.root / "got").read_text() if answer.returncode == 0 else None


def test_a_second_attempt_has_the_log_of_the_first(host: SimpleNamespace) -> None:
    first = put_aside(host, "20261130T100000Z", whole=True)
    host.restore.keep_log(first, host.root, HERE)
    # What the first one had restored when it was cut off.
    second = put_aside(host, "20261130T100500Z", whole=False)
    host.restore.keep_log(second, host.root, HERE)
    assert streamed(host, SEGMENT) == SEGMENT
    assert streamed(host, "00000002.history") == "00000002.history"
    assert streamed(host, "archive_status") is None
    assert host.restore.own_last() == SEGMENT[8:]
    assert host.restore.before(host.cluster, second) == first


def test_another_clusters_log_is_nothing_to_a_restore(host: SimpleNamespace) -> None:
    aside = put_aside(host, "20261130T100000Z", whole=True)
    host.restore.keep_log(aside, host.root, ELSEWHERE)
    assert streamed(host, SEGMENT) is None
    assert host.restore.own_last() == ""
    assert host.restore.before(host.cluster, aside) == aside


def test_two_restores_at_once_are_refused(host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.restore, "LOCK", host.root / "lock")
    with host.restore.alone(), pytest.raises(host.restore.RestoreError, match="another restore is at work"):
        host.restore.alone().__enter__()


@pytest.mark.parametrize(("typed", "goes_on"), [("webhook-1", True), ("yes", False), ("", False)])
def test_whoever_sits_at_a_terminal_is_asked(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, typed: str, *, goes_on: bool
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "webhook-1")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda _question: typed)
    assert host.restore.confirmed() == goes_on
