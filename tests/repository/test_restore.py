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


def attempt(host: SimpleNamespace, when: str, *, whole: bool, identifier: str = HERE, cut_off: bool = False) -> Path:
    """Put a data folder aside, unless it was cut off just before; return its new name.

    One that is not whole has what pgBackRest had restored by then.
    """
    data, aside = host.cluster.data, host.root / f"main.before-{when}"
    (data / "pg_wal").mkdir(parents=True, exist_ok=True)
    if whole:
        (data / "global").mkdir(exist_ok=True)
        (data / "global" / "pg_control").touch()
        for name in (SEGMENT, "00000002.history", "archive_status"):
            (data / "pg_wal" / name).write_text(name)
    host.restore.keep_log(data, aside.name, host.root, identifier)
    if not cut_off:
        data.rename(aside)
    return Path(aside)


def whole_one(host: SimpleNamespace, *more: Path) -> Path | None:
    """Return what is told as the folder to go back to."""
    found: Path | None = host.restore.first(*host.restore.earlier(host.cluster.data), *more)
    return found


def streamed(host: SimpleNamespace, name: str) -> str | None:
    """Return what PostgreSQL gets where the archive has not got a file, as it is on the host but for the folder."""
    program = (HOST / "usr/local/sbin/molam-backup-streamed").read_text()
    program = program.replace("/var/lib/molam-backup", str(host.root))
    answer = subprocess.run(["sh", "-c", program, "sh", name, host.root / "got"], check=False)
    return (host.root / "got").read_text() if answer.returncode == 0 else None


def test_a_second_attempt_has_the_log_of_the_first(host: SimpleNamespace) -> None:
    first = attempt(host, "20261130T100000Z", whole=True)
    # What the first one had restored when it was cut off.
    second = attempt(host, "20261130T100500Z", whole=False)
    assert streamed(host, SEGMENT) == SEGMENT
    assert streamed(host, "00000002.history") == "00000002.history"
    assert streamed(host, "archive_status") is None
    assert host.restore.own_last() == SEGMENT[8:]
    assert whole_one(host, second) == first


def test_one_that_was_cut_off_before_anything_was_put_aside_is_no_attempt(host: SimpleNamespace) -> None:
    data = host.cluster.data
    first = attempt(host, "20261130T100000Z", whole=True, cut_off=True)
    assert whole_one(host, first, data) == data
    second = attempt(host, "20261130T100500Z", whole=True)
    assert whole_one(host, second) == second
    assert streamed(host, SEGMENT) == SEGMENT


def test_another_clusters_log_is_nothing_to_a_restore(host: SimpleNamespace) -> None:
    aside = attempt(host, "20261130T100000Z", whole=True, identifier=ELSEWHERE)
    assert streamed(host, SEGMENT) is None
    assert host.restore.own_last() == ""
    assert whole_one(host, aside) == aside


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ('{"missing": [{"event_id": "evt_1"}], "receipts": 7}', 1),
        ('{"missing": [], "receipts": 7}', 0),
        # No log is no news.
        ('{"missing": [], "receipts": 0}', None),
        ("a release that does not know of this", None),
    ],
)
def test_what_was_acknowledged_and_is_missing_is_counted(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, said: str, count: int | None
) -> None:
    commands: list[tuple[str, ...]] = []

    def run(*command: str) -> str:
        commands.append(command)
        return said

    monkeypatch.setattr(host.restore, "run", run)
    assert host.restore.missing("2026-11-30T12:00:30+02:00") == count
    assert commands[0][-1] == "--since=2026-11-30T11:59:30+02:00"
    assert host.restore.missing(None) == count
    assert commands[1][-1] == "sh"


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
