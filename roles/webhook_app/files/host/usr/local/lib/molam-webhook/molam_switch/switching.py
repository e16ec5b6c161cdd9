"""The switch between the slots: fill the idle one, migrate, start it, try it, lead nginx to it, leave the other one.

It has to be ready on a socket of its own and to pass a signed self-test before the socket's link, which is all that
nginx knows, is turned to it. Whatever fails before that, the old one goes on serving.
"""

from __future__ import annotations

import shutil

from . import installed, ledger, readiness, slots
from .ledger import Entry, Steps
from .system import SwitchError, as_receiver, run

UNCHANGED = "unchanged"

# What a slot's copy of the settings and a line of the ledger need, many times over.
FREE_BYTES = 16 * 2**20


def ask(slot: str, *command: str) -> tuple[int, str, str]:
    """Run a command of the release in a slot as its receiver; return exit status, output and errors."""
    unit = "door" if "--url" in " ".join(command) else "ask"
    answer = as_receiver(slots.settings_of(slot), slots.program(slot), *command, unit=unit)
    return answer.returncode, answer.stdout, answer.stderr


def switch(entry: Entry) -> str:
    """Make the release of ``entry`` serve with the settings on disk; return what was done.

    A release that does not go with the database's schema says so when it is to migrate it, and nothing is changed then.

    Raises SwitchError or OSError where it was not made; which slot serves then is told by ``slots.active()``.
    """
    release, old = entry.to_release, slots.active()
    was_up = old is not None and slots.serves(old)
    if old is not None and not was_up:
        # A switch that was cut off may have turned the link already, or somebody stopped the slot.
        print(f"slot {old}: bring it back, release {slots.release_of(old)}", flush=True)
        slots.bring_back(old)
    wanted = slots.fingerprint(release)
    if old is not None and slots.runs(old) and slots.made_from(old) == wanted:
        _require_commit(release, entry.commit)
        # What an earlier switch that was cut off may have left behind.
        slots.stop(slots.other(old))
        run("systemctl", "daemon-reload")
        return UNCHANGED if was_up else f"slot {old} serves {release}"
    with ledger.recorded(entry) as step:
        _require(release, entry.commit)
        entry.commit = installed.commit_of(release)
        step("check", f"release {release}: check the settings")
        _check(release)
        _change_over(release, old, wanted, step)
    return f"slot {slots.other(old)} serves {release}"


def _require(release: str, commit: str | None) -> None:
    if not installed.complete(release):
        raise SwitchError(f"release {release} is not installed below {slots.RELEASES}")
    _require_commit(release, commit)
    for folder in (slots.ROOT, slots.SETTINGS, slots.STATE):
        if (free := shutil.disk_usage(folder).free) < FREE_BYTES:
            raise SwitchError(
                f"only {free // 2**20} MiB are free at {folder}, and {FREE_BYTES // 2**20} are wanted: make room "
                "(journalctl --vacuum-size=200M, apt-get clean)"
            )


def _require_commit(release: str, commit: str | None) -> None:
    there = installed.commit_of(release)
    if commit and there != commit:
        raise SwitchError(
            f"release {release} on this host was built from commit {there}, and is {commit} now: a tag that was once "
            "deployed must not be moved. Make a new one"
        )


def _check(release: str) -> None:
    """Ask a release whether it would start with the settings on disk."""
    answer = as_receiver(slots.WANTED, slots.RELEASES / release / "run", "check-config")
    if answer.returncode != 0:
        # As deploy.yml calls it.
        name = "worktree" if "+worktree." in release else release
        raise SwitchError(
            f"release {release} would not start with the settings that are on disk:\n{answer.stderr.strip()}\n"
            f"Mend them in the inventory, and put both in use: playbooks/deploy.yml -e release={name}"
        )


def _change_over(release: str, old: str | None, wanted: str, step: Steps) -> None:
    new = slots.other(old)
    step("fill", f"slot {new}: fill with release {release}")
    slots.stop(new)
    try:
        slots.fill(new, release)
        step("migrate", "database: migrate")
        slots.start(slots.migration(new))
        step("start", f"slot {new}: start")
        slots.start(*slots.units(new))
        readiness.wait(new)
        step("self-test", f"slot {new}: self-test")
        _self_test(new)
        step("serve", f"slot {new}: serve")
        slots.put_in_use(new, wanted)
    except (SwitchError, OSError):
        if slots.active() != new:
            slots.stop(new)
        raise
    if old is not None:
        slots.leave(old)


def _self_test(slot: str) -> None:
    """Send signed self-test events to a slot's own socket."""
    status, output, errors = ask(slot, "selftest", "--uds", str(slots.socket(slot)))
    if status != 0:
        raise SwitchError(f"the self-test of slot {slot} failed:\n{(output + errors).strip()}")


def boot() -> None:
    """Start the slot in use. Its units are ordered after others that this boot has still to start: not waited for."""
    slot = slots.active()
    if slot is not None:
        slots.lead_to(slot)
        run("systemctl", "start", "--no-block", *slots.units(slot))
