"""When commits are made to wait for the second repository's host."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture
def statements(backup: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Lend what is asked of PostgreSQL, of a host that wants it and whose other host streams and has a backup."""
    second, asked = backup.second, list[str]()

    def sql(statement: str) -> str:
        asked.append(statement)
        return "1"

    monkeypatch.setattr(second, "SYNCHRONOUS", tmp_path / "synchronous")
    monkeypatch.setattr(second, "sent", lambda: {"log": 1, "list": 1})
    monkeypatch.setattr(second, "send_log", lambda _since: None)
    monkeypatch.setattr(second, "archived", lambda: None)
    monkeypatch.setattr(second, "run", lambda *_command: "")
    monkeypatch.setattr(second, "sql", sql)
    second.SYNCHRONOUS.touch()
    return asked


def test_commits_wait_once_the_other_host_has_what_came_before(backup: SimpleNamespace, statements: list[str]) -> None:
    backup.second.synchronous()
    assert "ALTER SYSTEM SET synchronous_standby_names = molam_repository" in statements


def test_what_is_called_off_while_the_log_is_sent_is_not_switched_on_afterwards(
    backup: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, statements: list[str]
) -> None:
    monkeypatch.setattr(backup.second, "archived", backup.second.not_synchronous)
    backup.second.synchronous()
    settings = [statement for statement in statements if "synchronous_standby_names" in statement]
    assert settings[-1] == "ALTER SYSTEM RESET synchronous_standby_names"
