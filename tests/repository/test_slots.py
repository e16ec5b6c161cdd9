"""What a slot is made of, and what a switch leaves that is cut off while it puts one in use."""

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
        return SimpleNamespace(returncode=verb == "is-enabled", stderr="")

    monkeypatch.setattr(host.slots, "run", run)
    with pytest.raises(CutOffError):
        host.slots.put_in_use("a", "its fingerprint")
    assert not host.slots.ACTIVE.is_symlink()
    assert host.slots.made_from("a") == ""


def test_a_slot_has_copies_that_what_is_new_does_not_reach(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(host.slots, "run", lambda *command: done.append(" ".join(command)))
    wanted, units = host.root / "settings", host.root / "units"
    for name, folder in (("WANTED", wanted), ("SETTINGS", host.root / "etc"), ("UNITS", units)):
        monkeypatch.setattr(host.slots, name, folder)
    wanted.mkdir()
    (wanted / "environment").write_text("A=1")
    for unit in ("molam-webhook", "molam-webhook-worker", "molam-webhook-migrate"):
        (units / f"{unit}@.service.d").mkdir(parents=True)
        (units / f"{unit}@.service").write_text("[Service]\n")
        (units / f"{unit}@.service.d" / "20-limits.conf").write_text("[Service]\nMemoryMax=1G\n")
        (units / f"{unit}@.service.d" / "50-reach.conf").write_text("[Service]\nPrivateNetwork=no\n")
    before = host.slots.fingerprint("A")
    host.slots.fill("b", "A")
    assert done == ["systemctl daemon-reload"]
    copied = sorted(str(path.relative_to(units)) for path in units.rglob("*@b*/*"))
    assert len(copied) == 6
    assert copied[-1] == "molam-webhook@b.service.d/50-reach.conf"
    assert (units / "molam-webhook-migrate@b.service").read_text() == "[Service]\n"
    # They are no reason to switch.
    assert host.slots.fingerprint("A") == before
    new = units / "molam-webhook@.service.d" / "50-reach.conf"
    new.write_text("[Service]\nLoadCredentialEncrypted=new:/there/is/none\n")
    assert host.slots.fingerprint("A") != before
    assert (units / copied[-1]).read_text() == "[Service]\nPrivateNetwork=no\n"


@pytest.mark.parametrize(("release", "named"), [("v1.2.0", "v1.2.0"), ("0.1.0+worktree.1f0c1d2e", "worktree")])
def test_what_is_to_be_run_after_settings_were_mended_is_a_command_that_goes(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, release: str, named: str
) -> None:
    refused = SimpleNamespace(returncode=1, stderr="LOG_LEVEL: must be one of them")
    monkeypatch.setattr(host.switching, "as_receiver", lambda *_command: refused)
    with pytest.raises(host.switching.SwitchError, match=f"LOG_LEVEL.*\n.*deploy.yml -e release={named}$"):
        host.switching._check(release)
