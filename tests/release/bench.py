"""Measure deploys and rollbacks on a host that is sent signed events all the while, and before that on a quiet one.

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
# systemd's messages of a unit (systemd.journal catalog).
STOPPING, STOPPED = "de5b426a63be47a7b6ac3eaac82e2f6f", "9d1aaa27d60140bd96365438aad20286"
Seconds = dict[str, list[float]]
# What is measured, in words, and what is to be reached.
MEASURED = {
    "deploy": ("deploy of a release that is built", "≤ 15"),
    "rollback": ("rollback to one on the host", "≤ 5"),
    "switch": ("of these: new one ready → old one drained", "≤ 2 and the drain"),
    "drain": ("of that: the drain, which nobody waits for", ""),
}


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
    """Return the seconds from when the receiver of a slot was told to stop until it had stopped.

    By the journal: of a unit that has stopped, systemd itself remembers nothing.
    """
    unit = f"molam-webhook@{slot}"
    on_host(f"while systemctl is-active {unit} | grep -q deactivating; do sleep 0.1; done; journalctl --sync")
    messages = " ".join(f"MESSAGE_ID={name}" for name in (STOPPING, STOPPED))
    said = on_host(f"journalctl --output=json --lines=2 UNIT={unit}.service {messages}").splitlines()
    began, ended = (int(json.loads(line)["__MONOTONIC_TIMESTAMP"]) for line in said)
    return (ended - began) / 1e6


def one_round(clone: Clone, seconds: Seconds) -> None:
    """Deploy a release that is on the host, go back from it, and keep what each took."""
    for action, variables in (("deploy", {"release": "v9.2.0"}), ("rollback", {})):
        taken, entry = timed(clone, action, f"playbooks/{action}.yml", **variables)
        seconds[action].append(taken)
        seconds["drain"].append(drained(entry["before"]))
        seconds["switch"].append(entry["steps"]["serve"] + seconds["drain"][-1])


def measure(clone: Clone, rounds: int) -> tuple[Seconds, Seconds, list[tuple[str, int]], float]:
    """Return the seconds of each measurement, without load and with it, and of the load each event's id and status.

    And how many events were sent a second.
    """
    timed(clone, "bare host to the first release", "site.yml")
    add_releases(clone)
    timed(clone, "a first deploy, which builds", "playbooks/deploy.yml", release="v9.1.0")
    secret = (STATE / "secrets" / f"{HOST}.webhook_secret").read_text()
    site = Site(ADDRESS, DOMAIN, "v1", secret, STATE / "pki" / "ca.pem")
    timed(clone, "another, so that all is built", "playbooks/deploy.yml", release="v9.2.0")
    timed(clone, "back to begin with", "playbooks/rollback.yml")
    quiet: Seconds = {name: [] for name in MEASURED}
    for _ in range(rounds):
        one_round(clone, quiet)
    busy: Seconds = {name: [] for name in MEASURED}
    # What a busy shop gets, and no more: the senders share the machine with the host.
    with load(site, 8, newcomers=1, pause_seconds=0.1) as answers:
        began = time.monotonic()
        while len(busy["deploy"]) < rounds or len(answers) < EVENTS:
            print(f"{len(answers)} events so far", file=sys.stderr)
            one_round(clone, busy)
        rate = len(answers) / (time.monotonic() - began)
    return quiet, busy, answers, rate


def shown(values: list[float]) -> str:
    """Return the median, and in brackets the least and the most."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


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
            quiet, busy, answers, rate = measure(clone, arguments.rounds)
        shared("destroy.yml")
    except BenchError as error:
        print(f"\nbench-release: {error}", file=sys.stderr)
        return 1
    failed = [answer for answer in answers if answer[1] != 200]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}, Debian 13 test host over SSH")
    print(f"\n{len(answers)} events sent meanwhile, {rate:.0f} a second, {len(failed)} not answered 200.\n")
    print("Medians, in brackets the least and the most, in seconds.\n")
    print("| what | without load | under load | to reach |\n|---|---:|---:|---:|")
    for name, (label, target) in MEASURED.items():
        print(f"| {label} | {shown(quiet[name])} | {shown(busy[name])} | {target} |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
