"""ssh-audit: its hardened policy for the host's Debian release, which the role sshd follows."""

from __future__ import annotations

import json
import sys

from tests.verify.opinions.opinion import Finding, NoOpinionError, Opinion

NAME = "ssh-audit"
# By Debian's major version.
POLICIES = {"12": "Hardened Debian 12 (version 3)", "13": "Hardened Debian 13 (version 1)"}


def command(address: str, port: int, debian: str) -> list[str]:
    """Return what asks a host, from this machine."""
    if debian not in POLICIES:
        raise NoOpinionError(f"it has no hardened policy that we follow for Debian {debian}")
    return [sys.executable, "-m", "ssh_audit", "--json", f"--policy={POLICIES[debian]}", f"--port={port}", address]


def read(said: str, version: str) -> Opinion:
    """Return what its JSON says."""
    try:
        answer = json.loads(said)
        errors, policy = answer["errors"], answer["policy"]
    except (ValueError, KeyError, TypeError):
        raise NoOpinionError(f"the host was not audited: {said.strip()[-300:] or 'it said nothing'}") from None
    findings = [
        Finding(error["mismatched_field"], f"is {_list(error['actual'])}; wanted: {_list(error['expected_required'])}")
        for error in errors
    ]
    figure = f"{'passes' if answer['passed'] else 'does not pass'} the policy {policy}"
    return Opinion(NAME, version=version, figure=figure, unanswered=findings)


def _list(algorithms: list[str]) -> str:
    return ", ".join(algorithms)
