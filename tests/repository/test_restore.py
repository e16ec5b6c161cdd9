"""What a restore keeps of the log that this host wrote last, what it says to go back to, and what it asks first."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

HOST = Path(__file__).resolve().parents[2] / "roles/backup/files/host"
SEGMENT = "000000010000000000000012"
HERE, ELSEWHERE = 7411, 7422


@pytest.fixture
def host(backup: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Lend the modules, which keep the log below a folder of the test's own.

    Commands are run as they are, but for what stops and starts services, and by whoever runs the test.
    """
    lent = SimpleNamespace(root=tmp_path, **vars(backup), stops="", disk_full=False)
    lent.cluster = backup.system.Cluster("postgresql@17-main.service", tmp_path / "main", tmp_path, tmp_path)

    def run(*command: str | Path, user: str = "") -> str:
        del user
        match Path(command[0]).name:
            case "pg_controldata":
                control = Path(command[1], "global", "pg_control")
                if not control.exists() or not control.read_text():
                    raise backup.system.RestoreError("pg_controldata: read 0 of 296")
                return f"Latest checkpoint's REDO WAL file:    {SEGMENT}\n"
            case "systemctl":
                return ""
            case "cp" if lent.disk_full:
                raise backup.system.RestoreError("cp: No space left on device")
            case name if name == lent.stops:
                raise KeyboardInterrupt
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    monkeypatch.setattr(backup.own, "OWN", tmp_path / "own")
    monkeypatch.setattr(backup.own, "NEW", tmp_path / "own.new")
    monkeypatch.setattr(backup.second, "SETTINGS", tmp_path / "second")
    monkeypatch.setattr(shutil, "chown", lambda *_names: None)
    for module in (backup.own, backup.restore):
        monkeypatch.setattr(module, "run", run)
    # No two of them are of one second, as on a host.
    monkeypatch.setattr(backup.restore, "stamp", (f"20261201T1000{second:02}Z" for second in range(60)).__next__)
    return lent


def segment(identifier: int, name: str) -> bytes:
    """Return a segment of the log: what its first page says of who wrote it, and its name."""
    return bytes(24) + identifier.to_bytes(8, sys.byteorder) + name.encode()


def data_folder(folder: Path, identifier: int = HERE) -> Path:
    """Make a data folder that is whole."""
    (folder / "pg_wal").mkdir(parents=True)
    (folder / "global").mkdir()
    (folder / "global" / "pg_control").write_text("whole")
    (folder / "PG_VERSION").write_text("17")
    for name in (SEGMENT, "00000002.history", "archive_status"):
        (folder / "pg_wal" / name).write_bytes(segment(identifier, name))
    return folder


def attempt(host: SimpleNamespace, when: str, *, cut_off: bool = False) -> Path:
    """Put what is there aside, unless it was cut off just before; return its new name."""
    data, aside = host.cluster.data, host.root / f"main.before-{when}"
    host.own.keep(data, aside.name, host.root, str(HERE))
    if not cut_off:
        data.rename(aside)
    return Path(aside)


def half(host: SimpleNamespace) -> None:
    """Make what pgBackRest had restored when it was cut off."""
    (host.cluster.data / "pg_wal").mkdir(parents=True)


def whole_one(host: SimpleNamespace, *more: Path) -> Path | None:
    """Return what is told as the folder to go back to."""
    found: Path | None = host.restore.first(*host.own.earlier(host.cluster.data), *more)
    return found


def streamed(host: SimpleNamespace, name: str) -> str | None:
    """Return what PostgreSQL gets where the archive has not got a file, as it is on the host but for the folder."""
    program = (HOST / "usr/local/sbin/molam-backup-streamed").read_text()
    program = program.replace("/var/lib/molam-backup", str(host.root))
    answer = subprocess.run(["sh", "-c", program, "sh", name, host.root / "got"], check=False)
    return (host.root / "got").read_bytes()[32:].decode() if answer.returncode == 0 else None


def test_a_second_attempt_has_the_log_of_the_first(host: SimpleNamespace) -> None:
    data_folder(host.cluster.data)
    first = attempt(host, "20261130T100000Z")
    half(host)
    second = attempt(host, "20261130T100500Z")
    assert streamed(host, SEGMENT) == SEGMENT
    assert streamed(host, "00000002.history") == "00000002.history"
    assert streamed(host, "archive_status") is None
    assert host.own.last() == SEGMENT[8:]
    assert whole_one(host, second) == first


def test_one_that_was_cut_off_before_anything_was_put_aside_is_no_attempt(host: SimpleNamespace) -> None:
    data = data_folder(host.cluster.data)
    first = attempt(host, "20261130T100000Z", cut_off=True)
    assert whole_one(host, first, data) == data
    second = attempt(host, "20261130T100500Z")
    assert whole_one(host, second) == second
    assert streamed(host, SEGMENT) == SEGMENT


def test_another_clusters_log_is_nothing_to_a_restore(host: SimpleNamespace) -> None:
    data_folder(host.cluster.data, ELSEWHERE)
    aside = attempt(host, "20261130T100000Z")
    assert streamed(host, SEGMENT) is None
    assert streamed(host, "00000002.history") is None
    assert host.own.last() == ""
    assert whole_one(host, aside) == aside


def test_the_log_is_kept_where_the_control_file_is_not_whole(host: SimpleNamespace) -> None:
    data = data_folder(host.cluster.data)
    (data / "global" / "pg_control").write_text("")
    attempt(host, "20261130T100000Z")
    assert streamed(host, SEGMENT) == SEGMENT
    assert host.own.last() == ""


def test_a_log_that_is_not_kept_is_told_and_leaves_nothing(host: SimpleNamespace) -> None:
    data_folder(host.cluster.data)
    host.disk_full = True
    with pytest.raises(host.system.RestoreError, match=r"(?s)No space left.*disk-full.*--although-incomplete"):
        attempt(host, "20261130T100000Z")
    assert not host.own.NEW.exists()
    assert list(host.own.OWN.iterdir()) == []


def test_what_is_kept_is_for_nobody_else(host: SimpleNamespace) -> None:
    data_folder(host.cluster.data)
    attempt(host, "20261130T100000Z")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (host.own.OWN, *host.own.OWN.iterdir())}
    assert (modes["own"], modes["main.before-20261130T100000Z"]) == (0o750, 0o700)


def test_an_attempt_of_long_ago_is_forgotten_once_there_was_a_backup(host: SimpleNamespace) -> None:
    """Somebody had the host serve another way, and what was put aside then is no more what was there before."""
    data_folder(host.cluster.data)
    attempt(host, "20260130T100000Z")
    host.own.forget(datetime(2026, 1, 29, tzinfo=UTC))
    assert host.own.last() == SEGMENT[8:]
    host.own.forget(datetime.now(UTC))
    assert list(host.own.OWN.iterdir()) == []


def test_what_was_restored_when_it_was_cut_off_makes_room(host: SimpleNamespace) -> None:
    data_folder(host.cluster.data)
    aside = attempt(host, "20261130T100000Z")
    half(host)
    host.restore.make_room(host.cluster, 1 << 20)
    assert not host.cluster.data.exists()
    assert aside.exists()


def test_without_room_nothing_is_changed(host: SimpleNamespace) -> None:
    data = data_folder(host.cluster.data)
    with pytest.raises(host.system.RestoreError, match="No space left on device for what is to be restored"):
        host.restore.make_room(host.cluster, 1 << 60)
    assert data.exists()


def go_back(host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, folder: Path, *, starts: bool = True) -> str:
    """Have a folder served again; return what the report says is put aside, or where that failed, what was said."""

    def start(_here: object) -> str:
        if not starts:
            raise host.system.RestoreError("it does not start")
        # As PostgreSQL does.
        (host.cluster.data / "recovery.signal").unlink()
        assert (host.cluster.data / "molam-back-to").read_text() == folder.name
        return ""

    monkeypatch.setattr(host.restore, "start", start)
    monkeypatch.setattr(host.restore, "verify", lambda *_arguments: {})
    try:
        report = host.restore.back_to(host.cluster, folder, "molam_webhook")
    except host.system.RestoreError as error:
        return str(error)
    return str(report["aside"])


def test_a_folder_that_does_not_start_is_not_what_is_told_to_go_back_to(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_folder(host.cluster.data)
    damaged = data_folder(host.root / "main.before-20261130T100000Z")
    said = go_back(host, monkeypatch, damaged, starts=False)
    (served,) = host.root.glob("main.before-*")
    assert said.endswith(f"molam-restore --back-to {served}")
    assert go_back(host, monkeypatch, served) != "None"


def test_what_a_failed_restore_left_is_not_told_as_whole(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    half(host)
    aside = data_folder(host.root / "main.before-20261130T100000Z")
    said = go_back(host, monkeypatch, aside, starts=False)
    assert said.endswith(f"molam-restore --back-to {host.cluster.data}")
    assert (host.cluster.data / "PG_VERSION").exists()


def test_a_folder_that_is_not_there_is_no_run_that_was_cut_off(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in its place may be a restore that was cut off, and leaves the same signal to PostgreSQL."""
    (data_folder(host.cluster.data) / "recovery.signal").touch()
    said = go_back(host, monkeypatch, host.root / "main.before-20261130T100000Z")
    assert "is no data folder beside" in said
    assert sorted(path.name for path in host.root.glob("main*")) == ["main"]


@pytest.mark.parametrize("names", [0, 1, 2])
def test_going_back_is_finished_by_the_same_command(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, names: int
) -> None:
    """Cut off before it gave a name, or behind the first or the second; the host may start in between."""
    data_folder(host.cluster.data)
    (host.cluster.data / "served").touch()
    aside = data_folder(host.root / "main.before-20261130T100000Z")
    rename, given = host.restore.rename, list[Path]()

    def cut_off(folder: Path, name: Path) -> None:
        if len(given) == names:
            os.abort()
        rename(folder, name)
        given.append(name)
        if len(given) == names:
            raise SystemExit

    monkeypatch.setattr(host.restore, "rename", cut_off)
    monkeypatch.setattr(os, "abort", lambda: (_ for _ in ()).throw(SystemExit()))
    with pytest.raises(SystemExit):
        go_back(host, monkeypatch, aside)
    monkeypatch.setattr(host.restore, "rename", rename)
    # Whichever is in its place: never the one that was put aside, on the timeline that it left.
    there = host.cluster.data
    assert not there.exists() or (there / "served").exists() or (there / "recovery.signal").exists()
    kept = Path(go_back(host, monkeypatch, aside))
    assert (kept / "served").exists()
    assert not (there / "served").exists()


def test_one_that_is_interrupted_while_all_is_stopped_says_how_to_go_on(host: SimpleNamespace) -> None:
    data = data_folder(host.cluster.data)
    with (
        pytest.raises(host.system.RestoreError, match=f"it was interrupted\n.* --back-to {data}"),
        host.restore.stopped(host.cluster, host.root / "main.before-20261130T100000Z", data),
    ):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ('{"missing": [{"event_id": "evt_1"}], "receipts": 7, "first_received_at": "2026-11-30T09:59:40+00:00"}', 1),
        ('{"missing": [], "receipts": 7, "first_received_at": "2026-11-30T10:00:31+00:00"}', 0),
        # It begins after the newest event that there is: what was in between is not known.
        ('{"missing": [], "receipts": 7, "first_received_at": "2026-11-30T10:02:00+00:00"}', None),
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
    host.restore.missing(None)
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
