"""The modules of molam-webhook-switch, without a host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "roles/webhook_app/files/host/usr/local/lib/molam-webhook"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Lend the modules of the switch, which look for their host below a folder of the test's own."""
    monkeypatch.syspath_prepend(LIBRARY)
    # Beside them it would be packed, or be a difference to what is.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    from molam_switch import cli, installed, ledger, slots

    monkeypatch.setattr(slots, "ROOT", tmp_path)
    monkeypatch.setattr(slots, "RELEASES", tmp_path / "releases")
    monkeypatch.setattr(slots, "ACTIVE", tmp_path / "active")
    monkeypatch.setattr(slots, "CURRENT", tmp_path / "current.sock")
    monkeypatch.setattr(slots, "STATE", tmp_path)
    monkeypatch.setattr(ledger, "LEDGER", tmp_path / "ledger.jsonl")
    monkeypatch.setattr(ledger, "BEGUN", tmp_path / "begun.json")
    (tmp_path / "slots").mkdir()
    yield SimpleNamespace(root=tmp_path, cli=cli, installed=installed, ledger=ledger, slots=slots)
    for name in [name for name in sys.modules if name.startswith("molam_switch")]:
        del sys.modules[name]
