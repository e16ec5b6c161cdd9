"""What pgBackRest says of a repository, and what that is told as."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize(
    ("newest", "histories", "follows"),
    [
        ("00000001000000000000001A", "", True),
        ("00000002000000000000001A", "17-1/00000002.history\n", True),
        # Restored, and nothing written since.
        ("00000002000000000000001A", "17-1/00000002.history\n17-1/00000003.history\n", True),
        ("00000003000000000000001A", "17-1/00000002.history\n", False),
        ("00000002000000000000001A", "", False),
    ],
)
def test_a_timeline_that_postgresql_would_not_find_is_told(
    backup: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, newest: str, histories: str, *, follows: bool
) -> None:
    said = json.dumps([{"archive": [{"id": "15-1", "max": None}, {"id": "17-1", "max": newest}], "repo": []}])
    monkeypatch.setattr(backup.repository, "run", lambda *command, **_user: histories if "repo-ls" in command else said)
    if follows:
        backup.repository.follow(KEY)
        return
    with pytest.raises(backup.system.RestoreError, match=f"{newest[:8]}.history, .* is missing"):
        backup.repository.follow(KEY)
