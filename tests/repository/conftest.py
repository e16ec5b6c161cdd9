"""The modules of molam-webhook-switch and of molam-restore, without a host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

ROLES = Path(__file__).resolve().parents[2] / "roles"


@contextmanager
def imported(monkeypatch: pytest.MonkeyPatch, folder: str, package: str) -> Iterator[None]:
    """Let a package that a role puts onto hosts be imported meanwhile, from nothing each time."""
    monkeypatch.syspath_prepend(ROLES / folder)
    # Beside them it would be packed, or be a difference to what is.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.startswith(package)]:
            del sys.modules[name]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Lend the modules of the switch, which look for their host below a folder of the test's own."""
    with imported(monkeypatch, "webhook_app/files/host/usr/local/lib/molam-webhook", "molam_switch"):
        from molam_switch import cli, installed, ledger, slots, switching

        monkeypatch.setattr(slots, "ROOT", tmp_path)
        monkeypatch.setattr(slots, "RELEASES", tmp_path / "releases")
        monkeypatch.setattr(slots, "ACTIVE", tmp_path / "active")
        monkeypatch.setattr(slots, "CURRENT", tmp_path / "current.sock")
        monkeypatch.setattr(slots, "STATE", tmp_path)
        monkeypatch.setattr(ledger, "LEDGER", tmp_path / "ledger.jsonl")
        monkeypatch.setattr(ledger, "BEGUN", tmp_path / "begun.json")
        (tmp_path / "slots").mkdir()
        yield SimpleNamespace(
            root=tmp_path, cli=cli, installed=installed, ledger=ledger, slots=slots, switching=switching
        )


@pytest.fixture
def backup(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Lend the modules of molam-restore."""
    with imported(monkeypatch, "backup/files/host/usr/local/lib/molam-backup", "molam_backup"):
        from molam_backup import drill, own, repository, restore, second, system

        yield SimpleNamespace(
            drill=drill, own=own, repository=repository, restore=restore, second=second, system=system
        )
