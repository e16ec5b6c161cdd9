"""What a switch leaves that is cut off while it puts a slot in use."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


class CutOffError(Exception):
    """Here the process ended."""


@pytest.mark.parametrize("at", ["is-enabled", "enable", "start"])
def test_nothing_is_linked_before_the_unit_is_there_at_a_boot(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The next run takes a slot that is linked for done, and would leave it at that."""

    def run(_program: str, verb: str, *_rest: str) -> SimpleNamespace:
        if verb == at:
            raise CutOffError
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(host.slots, "run", run)
    with pytest.raises(CutOffError):
        host.slots.put_in_use("a", "its fingerprint")
    assert not host.slots.ACTIVE.is_symlink()
    assert host.slots.made_from("a") == ""
