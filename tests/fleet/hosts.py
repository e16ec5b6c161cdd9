"""Both hosts of the scenario `hardening` at once, when each has passed its own tests, and playbooks for the two."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "molecule" / "hardening" / "inventory"
SSH = ("ssh", "-F", ROOT / ".state" / "ssh" / "config", "-o", "ConnectTimeout=5")
FIRST, SECOND = "10.89.77.33", "10.89.77.32"


def on(address: str, command: str) -> str:
    """Run a command on a host, over a connection of its own; return what it printed."""
    answer = subprocess.run(
        [*SSH, "-o", "ControlPath=none", address, "sh", "-eu"],
        input=command,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def play(playbook: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook against both hosts, as people do."""
    return subprocess.run(
        ["ansible-playbook", f"--inventory={INVENTORY}", f"playbooks/{playbook}", *options],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
