"""Fixtures of the checks of a host that is attacked: whoever stands around it, and what each may do."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.host.conftest import site  # noqa: F401  a fixture, by the name it has here
from tests.host.inventory import ask

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "molecule" / "hardening" / "inventory"
SSH = ("ssh", "-F", ROOT / ".state" / "ssh" / "config")
ATTACKER, ADMINISTRATOR, SENDER = "10.89.77.36", "10.89.77.35", "10.89.77.37"
ATTACKER_IPV6 = "fd89:77::36"

# What shows the firewall's rules that are in use.
RULES = "nft --stateless list table inet molam"

# What a script kiddie's client does: asks for a path so many times, over TLS without a look at the certificate.
CALLER = """
import http.client, ssl, sys
address, name, method, path, signature, times = sys.argv[1:]
trust = ssl._create_unverified_context()
for _ in range(int(times)):
    try:
        caller = http.client.HTTPSConnection(name, timeout=5, context=trust)
        caller._create_connection = lambda _, *rest: __import__("socket").create_connection((address, 443), *rest)
        caller.request(method, path, "{}", {"Molam-Signature": signature, "Content-Type": "application/json"})
        print(caller.getresponse().status)
    except OSError:
        print("refused")
"""


@dataclass(frozen=True)
class Target:
    """The host under attack, as others see it."""

    ipv4: str
    ipv6: str
    domain: str


@pytest.fixture(scope="module")
def target(host: Host) -> Target:
    """Return the host's addresses and the name that it serves."""
    return Target(**ask(host, {"ipv4": "test_host_ipv4", "ipv6": "test_host_ipv6", "domain": "molam_domain"}))


@pytest.fixture
def _nobody_banned(host: Host) -> Iterator[None]:
    """Let in whoever a test had banned."""
    yield
    host.check_output("fail2ban-client unban --all")


def ssh(address: str, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command on one of the hosts, over a connection of its own."""
    return subprocess.run(
        [*SSH, "-o", "ControlPath=none", "-o", "ConnectTimeout=5", address, command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def call(caller: str, target: Target, path: str, *, signature: str = "", times: int = 1, family: int = 4) -> list[str]:
    """Ask the target for a path from another host, so many times; returns the statuses, or "refused"."""
    method = "POST" if signature else "GET"
    arguments = f"{target.ipv6 if family == 6 else target.ipv4} {target.domain} {method} {path} '{signature}' {times}"
    answer = ssh(caller, f"python3 - {arguments}", CALLER)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


def make_mistake(host: Host, role: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run one role of the playbook against this host alone, with variables that lock everybody out."""
    return subprocess.run(
        [
            "ansible-playbook",
            f"--inventory={INVENTORY}",
            f"--limit={host.backend.get_hostname()}",
            f"--extra-vars={json.dumps({'mistaken_role': role, 'base_undo_seconds': 16, **variables})}",
            "molecule/hardening/mistake.yml",
        ],
        cwd=ROOT,
        # As people run it. Molecule has settings of its own, and asks for colours in the middle of sentences.
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
