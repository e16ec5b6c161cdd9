"""The hosts that are looked at: which ones an inventory has, and how each is reached."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host

from tests.verify.checklist import ROOT

STATE = ROOT / ".state"
# Of the receivers.
GROUP = "webhook"


class VerifyError(Exception):
    """A host could not be looked at, or the inventory is wrong; the text says why, and what to do."""


@dataclass(frozen=True)
class Target:
    """A host of an inventory, and the SSH client's settings for it where it is a test host."""

    name: str
    inventory: Path
    ssh_config: Path | None
    sudo: bool


def find_inventory(name: str) -> Path:
    """Return an inventory's path, by its name below inventories/ or by its path; raise VerifyError."""
    for path in (ROOT / "inventories" / name, Path(name)):
        if name and path.exists():
            return path.resolve()
    there = ", ".join(sorted(path.name for path in (ROOT / "inventories").iterdir()))
    raise VerifyError(f"there is no inventory '{name}'. Below inventories/ there are: {there}.")


def hosts(inventory: Path, limit: str) -> list[Target]:
    """Return the receivers of an inventory, those of ``limit``; raise VerifyError."""
    command = ["ansible-inventory", f"--inventory={inventory}", "--list", f"--limit={limit}"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise VerifyError(f"Ansible does not read {inventory}:\n{(answer.stderr or answer.stdout).strip()}")
    known = json.loads(answer.stdout)
    variables = known["_meta"]["hostvars"]
    names = receivers(known, GROUP)
    if not names:
        raise VerifyError(f"{inventory} has no host in the group {GROUP} that --limit={limit} leaves.")
    return [target(name, inventory, variables.get(name, {})) for name in names]


def receivers(known: dict[str, Any], group: str) -> list[str]:
    """Return the hosts of a group, and those of the groups in it, each once."""
    entry = known.get(group, {})
    below = [name for child in entry.get("children", []) for name in receivers(known, child)]
    return list(dict.fromkeys([*entry.get("hosts", []), *below]))


def target(name: str, inventory: Path, variables: dict[str, Any]) -> Target:
    """Return how a host is reached. Test hosts have keys of their own; who does not log in as root uses sudo."""
    ssh_config = STATE / "ssh" / "config" if "test_state" in variables else None
    return Target(name, inventory, ssh_config, sudo=variables.get("ansible_user") != "root")


def connect(of: Target) -> Host:
    """Return a host that answers; raise VerifyError."""
    config = {"ssh_config": str(of.ssh_config)} if of.ssh_config else {}
    host = testinfra.get_host(f"ansible://{of.name}", ansible_inventory=str(of.inventory), sudo=of.sudo, **config)
    try:
        answer = host.run("true")
    except RuntimeError as error:
        # testinfra's, with the whole result: ssh's own words are what helps.
        answer = error.args[0]
    if answer.rc != 0:
        raise VerifyError(f"it is not reached by SSH, or not as root: {answer.stderr.strip()}")
    return host
