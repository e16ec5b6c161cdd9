"""What pgBackRest says of a repository, and what that is told as."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

KEY = Path("/run/key")
INFO = "unable to load info file '/var/lib/pgbackrest/backup/molam/backup.info'"


def told(message: str) -> str:
    """Return what pgBackRest 2.45 and 2.55 say of a repository that they cannot read."""
    repo = {"key": 1, "status": {"code": 99, "message": message}}
    status = {"code": 99, "message": "other"}
    return json.dumps([{"archive": [], "backup": [], "db": [], "name": "molam", "repo": [repo], "status": status}])


@pytest.mark.parametrize(
    ("said", "means"),
    [
        # What it decrypts with another key, and quotes, is most times no JSON.
        ('[{"name":"molam","repo":[{"status":{"message":"\x06\x1f"}}]}]', "encrypted with another key"),
        (told(f"[CryptoError] {INFO}:\nCryptoError: unable to flush"), "encrypted with another key"),
        (told(f"[FormatError] {INFO}:\nFormatError: key/value found outside of section"), "encrypted with another key"),
        (told(f"[FileOpenError] {INFO}: [13] Permission denied"), r"no backup that is whole \(\[FileOpenError\]"),
        ("[]", "no database is known to it"),
    ],
)
def test_a_repository_that_cannot_be_read_is_told_as_what_it_is(
    backup: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, said: str, means: str
) -> None:
    monkeypatch.setattr(backup.repository, "run", lambda *_command, **_user: said)
    with pytest.raises(backup.system.RestoreError, match=means):
        backup.repository.backups(KEY)


def repository(newest: str, backed_up: list[tuple[str, int]], histories: str) -> Callable[..., str]:
    """Return what pgBackRest says of a repository: its newest segment, each backup's last one and end, and files."""
    backups = [
        {"label": "F", "type": "full", "timestamp": {"stop": end}, "info": {"size": 1}, "archive": {"stop": stop}}
        for stop, end in backed_up
    ]
    archive = [{"id": "15-1", "max": None}, {"id": "17-1", "max": newest}]
    said = json.dumps([{"archive": archive, "backup": backups, "repo": []}])
    return lambda *command, **_user: histories if "repo-ls" in command else said


@pytest.mark.parametrize(
    ("backed_up", "newest", "histories", "follows"),
    [
        ("000000010000000000000010", "00000001000000000000001A", "", True),
        ("000000010000000000000010", "00000002000000000000001A", "17-1/00000002.history\n", True),
        # Restored, and nothing written since.
        (
            "000000010000000000000010",
            "00000002000000000000001A",
            "17-1/00000002.history\n17-1/00000003.history\n",
            True,
        ),
        # Begun anew, with another key.
        ("000000020000000000000010", "00000002000000000000001A", "", True),
        ("000000020000000000000010", "00000003000000000000001A", "17-1/00000002.history\n", False),
        ("000000010000000000000010", "00000002000000000000001A", "", False),
    ],
)
def test_a_timeline_that_postgresql_would_not_find_is_told(
    backup: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    backed_up: str,
    newest: str,
    histories: str,
    *,
    follows: bool,
) -> None:
    monkeypatch.setattr(backup.repository, "run", repository(newest, [(backed_up, 100)], histories))
    if follows:
        backup.repository.follow(KEY)
        return
    with pytest.raises(backup.system.RestoreError, match=f"{newest[:8]}.history, .* is missing"):
        backup.repository.follow(KEY)


@pytest.mark.parametrize(("seconds", "timeline"), [(150, 2), (250, 3), (350, 4), (450, 4)])
def test_a_moment_is_on_the_timeline_that_was_written_then(
    backup: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, seconds: int, timeline: int
) -> None:
    """The repository was begun anew on the second one, and what tells where that began was left behind."""
    backed_up = [("000000020000000000000010", 100), ("000000040000000000000019", 400)]
    histories = json.dumps({"17-1/00000003.history": {"time": 200}, "17-1/00000004.history": {"time": 300}})
    monkeypatch.setattr(backup.repository, "run", repository("00000004000000000000001A", backed_up, histories))
    assert backup.repository.timeline_at(KEY, datetime.fromtimestamp(seconds, UTC)) == timeline
