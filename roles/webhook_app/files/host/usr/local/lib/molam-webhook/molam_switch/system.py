"""Programs of the host that a switch runs, and files that appear whole."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path


class SwitchError(Exception):
    """The switch was not made; the text says why and what to do."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, keeping what it prints."""
    return subprocess.run(  # noqa: S603  the commands are ours
        [str(part) for part in command], capture_output=True, text=True, errors="replace", check=False
    )


def as_receiver(settings: Path, *command: str | Path, unit: str = "ask") -> subprocess.CompletedProcess[str]:
    """Run a program of a release as the receiver's user, with the settings and keys of a slot, and our own input.

    A ``unit`` door may go to nginx (its drop-in says so); others have no network.
    """
    return run(
        "systemd-run",
        "--quiet",
        "--collect",
        "--wait",
        "--pipe",
        # In the sandbox of all units with such a name.
        f"--unit=molam-{unit}-{secrets.token_hex(4)}",
        "--property=User=molam_webhook",
        f"--property=EnvironmentFile={settings}/environment",
        *(
            f"--property=LoadCredentialEncrypted={name}:{path}"
            for path in settings.glob("*.cred")
            for name, _, job in [path.stem.partition(".")]
            # What is another job's is not its own.
            if job in ("", "receiver")
        ),
        *command,
    )


def link(path: Path, target: str) -> None:
    """Make ``path`` a link to ``target``, in one step for whoever follows it."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def keep(*paths: Path) -> None:
    """Have files and folders (their entries) on the disk when this returns, as a link to them may be there sooner."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
