"""The releases that are on this host's disk, and how long they stay."""

from __future__ import annotations

import json
import shutil
import time

from . import ledger, slots

# What was unpacked and never installed: somebody may be installing it now.
LEFT_BEHIND_SECONDS = 86_400


def complete(release: str) -> bool:
    """Whether a release was installed to its end."""
    return (slots.RELEASES / release / "complete").exists()


def commit_of(release: str) -> str | None:
    """Return the commit that an installed release was built from."""
    manifest = slots.RELEASES / release / "manifest.json"
    if not manifest.exists():
        return None
    commit: str | None = json.loads(manifest.read_text()).get("commit")
    return commit


def names() -> list[str]:
    """Return the releases that are installed."""
    return sorted(path.parent.name for path in slots.RELEASES.glob("*/complete"))


def prune(keep: int) -> list[str]:
    """Remove releases that are not needed; return their names.

    Kept are those that the slots hold, the one that a rollback goes to, and ``keep`` that served last.
    """
    entries = ledger.read()
    needed = {slots.release_of(slot) for slot in slots.SLOTS if (slots.ROOT / "slots" / slot).is_symlink()}
    needed |= {ledger.before(entries) or ""}
    served = ledger.last_served(entries)
    latest = sorted(names(), key=lambda name: served.get(name, ""), reverse=True)
    removed = [name for name in latest[keep:] if name not in needed]
    removed += [
        path.name
        for path in slots.RELEASES.iterdir()
        if path.is_dir() and not complete(path.name) and path.stat().st_mtime < time.time() - LEFT_BEHIND_SECONDS
    ]
    for name in removed:
        # No longer complete from the first moment: cut off here, it would be half a release that looks whole.
        (slots.RELEASES / name / "complete").unlink(missing_ok=True)
        shutil.rmtree(slots.RELEASES / name)
    return removed
