"""A release goes to several hosts one after the other, and to no other where one is not well afterwards.

The playbook is the real one. The hosts' own programs are stand-ins, which say what they are asked.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
WELL, ILL = '{"crossed": {}}', '{"crossed": {"molam_worker_ready": "molam_worker_ready is 0"}}'
FAILS = "echo no such luck >&2; exit 1"
SENT = '{"proofs": [], "latency": {"p50_ms": 1, "p99_ms": 2, "max_ms": 3}}'
# The first that is told to switch does what `switches` says, the others do it.
SWITCH = """#!/bin/sh
case "$*" in
    *--plan*) echo '{"from": "v2", "to": "v1", "installed": true}' ;;
    ledger*--json*) echo '{"serving": "v2", "rollback": "v1"}' ;;
    ledger*) echo 'serving: v1' ;;
    rollback*)
        mkdir "$FOLDER/first" 2>/dev/null && sleep 1 && . "$FOLDER/switches"
        echo "$*" >>"$FOLDER/switched"
        echo 'slot b serves v1'
        ;;
esac
"""


def roll_back(
    folder: Path, *, switches: str, check: str, serial: int = 1
) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run the playbook on three hosts; return how it ended, and how many were switched."""
    programs = {
        "molam-webhook-switch": SWITCH,
        "molam-check": f"#!/bin/sh\necho '{check}'\n",
        "molam-webhook": f"#!/bin/sh\necho '{SENT}'\n",
    }
    (folder / "bin").mkdir()
    for name, text in programs.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    (folder / "switches").write_text(switches)
    common = {"ansible_connection": "local", "ansible_become": False, "molam_domain": "a.test.localhost"}
    inventory = {"webhook": {"hosts": {name: {} for name in ("one", "two", "three")}, "vars": common}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory, sort_keys=False))
    asked = f"gate_from_here=no release_serial={serial}"
    env = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "FOLDER": str(folder), "ANSIBLE_NOCOLOR": "1"}
    command = ["ansible-playbook", "-i", str(folder / "hosts.yml"), "playbooks/rollback.yml", "-e", asked]
    answer = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    switched = folder / "switched"
    return answer, len(switched.read_text().splitlines()) if switched.exists() else 0


def test_all_hosts_that_are_well(tmp_path: Path) -> None:
    answer, switched = roll_back(tmp_path, switches="true", check=WELL)
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert switched == 3


@pytest.mark.parametrize(
    ("switches", "check", "serial", "switched", "says"),
    [
        # Not switched; switched and not well; not switched, and the one beside it well.
        (FAILS, WELL, 1, 0, ["no such luck", "as they are: two, three.", "run the same again with -e release=v1"]),
        ("true", ILL, 1, 1, ["molam_worker_ready is 0", "as they are: two, three."]),
        (FAILS, WELL, 2, 1, ["no such luck", "as they are: three."]),
    ],
)
def test_no_other_host_after_one_that_failed(
    tmp_path: Path, switches: str, check: str, serial: int, switched: int, says: list[str]
) -> None:
    answer, count = roll_back(tmp_path, switches=switches, check=check, serial=serial)
    assert answer.returncode == 2
    assert count == switched
    said = " ".join(answer.stdout.split())
    assert [words for words in says if words not in said] == []
    assert "Not begun with, and left as they are: " in said
    assert "undefined" not in said
