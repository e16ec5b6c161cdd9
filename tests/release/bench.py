"""Measure deploys and rollbacks on a host that is sent signed events all the while.

Each round deploys a release that is built already and goes back from it; the seconds of the switch itself are those of
the host's ledger and, of the slot that is left, systemd's. Makes and removes the test host of the scenario `release`;
don't run it beside the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.host.conftest import Site
from tests.host.load import load

from .clone import ROOT, Clone, add_releases

STATE = ROOT / ".state"
INVENTORY = ROOT / "molecule" / "release" / "inventory"
HOST, ADDRESS, DOMAIN = "release", "10.89.77.51", "release.test.localhost"
EVENTS = 20_000


class BenchError(Exception):
    """A step failed; the text has what it printed."""


def shared(name: str, inventory: Path = INVENTORY, *arguments: str) -> None:
    """Run a playbook that makes or removes the test hosts of an inventory."""
    playbook = ROOT / "molecule" / "shared" / name
    answer = subprocess.run(
        [ROOT / ".venv/bin/ansible-playbook", f"--inventory={inventory}", *arguments, playbook],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise BenchError(answer.stdout)


def on_host(command: str) -> str:
    """Return what a command on the test host prints."""
    ssh = ["ssh", "-F", str(STATE / "ssh" / "config"), ADDRESS, command]
    return subprocess.run(ssh, capture_output=True, text=True, check=True).stdout


def timed(clone: Clone, label: str, playbook: str, **variables: object) -> tuple[float, dict[str, Any]]:
    """Run a playbook; return the seconds it took, and the last line of the host's ledger."""
    print(f"  {label} …", end="", flush=True, file=sys.stderr)
    began = time.monotonic()
    play = clone.play(playbook, **variables)
    seconds = time.monotonic() - began
    if play.status:
        raise BenchError(play.said)
    print(f" {seconds:.1f} s", file=sys.stderr)
    (entry,) = json.loads(on_host("molam-webhook-switch ledger --json --limit=1"))["entries"]
    return seconds, entry


def drained(slot: str) -> float:
    """Return the seconds from when the receiver of a slot was told to stop until it had stopped."""
    unit = f"molam-webhook@{slot}"
    on_host(f"while systemctl is-active {unit} | grep -q deactivating; do sleep 0.1; done")
    shown = on_host(f"systemctl show --property=ActiveExitTimestampMonotonic,InactiveEnterTimestampMonotonic {unit}")
    at = dict(line.split("=") for line in shown.split())
    return (int(at["InactiveEnterTimestampMonotonic"]) - int(at["ActiveExitTimestampMonotonic"])) / 1e6


def measure(clone: Clone, rounds: int) -> tuple[dict[str, list[float]], list[tuple[str, int]], float]:
    """Return the seconds of each measurement, the id and status of each event, and how many were sent a second."""
    timed(clone, "bare host to the first release", "site.yml")
    add_releases(clone)
    timed(clone, "a first deploy, which builds", "playbooks/deploy.yml", release="v9.1.0")
    secret = (STATE / "secrets" / f"{HOST}.webhook_secret").read_text()
    site = Site(ADDRESS, DOMAIN, "v1", secret, STATE / "pki" / "ca.pem")
    seconds: dict[str, list[float]] = {"deploy": [], "rollback": [], "switch": [], "drain": []}
    timed(clone, "another, so that all is built", "playbooks/deploy.yml", release="v9.2.0")
    timed(clone, "back to begin with", "playbooks/rollback.yml")
    # What a busy shop gets, and no more: the senders share the machine with the host.
    with load(site, 8, newcomers=1, pause_seconds=0.1) as answers:
        began = time.monotonic()
        number = 0
        while number < rounds or len(answers) < EVENTS:
            number += 1
            print(f"round {number}, {len(answers)} events so far", file=sys.stderr)
            for action, variables in (("deploy", {"release": "v9.2.0"}), ("rollback", {})):
                taken, entry = timed(clone, action, f"playbooks/{action}.yml", **variables)
                seconds[action].append(taken)
                seconds["drain"].append(drained(entry["before"]))
                seconds["switch"].append(entry["steps"]["serve"] + seconds["drain"][-1])
        rate = len(answers) / (time.monotonic() - began)
    return seconds, answers, rate


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="so many deploys and rollbacks at least (default: 5)")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    try:
        shared("destroy.yml")
        shared("create.yml")
        with tempfile.TemporaryDirectory() as folder:
            clone = Clone(Path(folder))
            clone.tag("v9.0.0")
            seconds, answers, rate = measure(clone, arguments.rounds)
        shared("destroy.yml")
    except BenchError as error:
        print(f"\nbench-release: {error}", file=sys.stderr)
        return 1
    failed = [answer for answer in answers if answer[1] != 200]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}, Debian 13 test host over SSH")
    print(f"\n{len(answers)} events sent meanwhile, {rate:.0f} a second, {len(failed)} not answered 200.\n")
    print("| what | median, in brackets the least and the most (s) | to reach |\n|---|---:|---:|")
    for label, key, target in (
        ("deploy of a release that is built", "deploy", "≤ 15"),
        ("rollback to one on the host", "rollback", "≤ 5"),
        ("of these: new one ready → old one drained", "switch", "≤ 2 and the drain"),
        ("of that: the drain", "drain", ""),
    ):
        values = seconds[key]
        print(f"| {label} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) | {target} |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
