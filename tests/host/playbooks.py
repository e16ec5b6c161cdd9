"""Playbooks run from a test, against the host that is tested, as an administrator would."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[2]


def run(inventory: Path, playbook: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a playbook, by its path in the repository; what it asks nobody answers."""
    return subprocess.run(
        ["ansible-playbook", f"--inventory={inventory}", *arguments, ROOT / playbook],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def play(
    request: pytest.FixtureRequest, host: Host, playbook: str, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run a playbook against ``host`` alone, of the inventory that is tested."""
    inventory = ROOT / request.config.getoption("--ansible-inventory")
    return run(inventory, playbook, f"--limit={host.backend.host}", *arguments)
