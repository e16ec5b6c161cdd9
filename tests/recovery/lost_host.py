"""What is lost with a host that is gone: events, and seconds.

Takes the receiver of the scenario `second_repository` away under load, first with the second repository and then with
the synchronous copy, and brings it back as docs/runbooks/host-lost.md says, on a new host with its name and address.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import NamedTuple

from tests.host.conftest import Site
from tests.host.playbooks import ROOT, run
from tests.release.bench import STATE, BenchError, shared
from tests.second_repository.loss import take_away

INVENTORY = ROOT / "molecule" / "second_repository" / "inventory"
HOST, ADDRESS, DOMAIN, REPOSITORY = "second", "10.89.77.81", "second.test.localhost", "repository"
# Longer than what the copy is behind.
LOAD_SECONDS = 90
# The copy has a backup, and the log since then is on its way; or commits wait for it.
FOLLOWED = "jq --exit-status '.list > 0' /var/lib/molam-backup/second/sent.json"
WAITED_FOR = "runuser -u postgres -- psql -XAtc 'SELECT sync_state FROM pg_stat_replication' | grep --line-regexp sync"
WAIT_SECONDS = 300


class Loss(NamedTuple):
    """How many events were acknowledged and how many of them are lost, within how many seconds before the end.

    And how many seconds went from a bare host to one that serves again.
    """

    acknowledged: int
    events: int
    seconds: float
    recovery: float


def on_host(command: str) -> str:
    """Return what a command on the receiver prints; raise CalledProcessError where it fails."""
    ssh = ["ssh", "-F", str(STATE / "ssh" / "config"), ADDRESS, command]
    return subprocess.run(ssh, capture_output=True, text=True, check=True).stdout


def until(ready: str) -> None:
    """Wait until a command on the receiver passes; raise CalledProcessError where it does not."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            on_host(ready)
        except subprocess.CalledProcessError:
            if time.monotonic() > end:
                raise
            time.sleep(2)
        else:
            return


def play(playbook: str, *arguments: str) -> None:
    """Run a playbook; raise BenchError where it fails."""
    answer = run(INVENTORY, playbook, *arguments)
    if answer.returncode:
        raise BenchError(answer.stdout)


def lose(*, synchronous: bool) -> Loss:
    """Take the host away, bring it back, and say what is missing."""
    both, wanted = f"--limit={HOST},{REPOSITORY}", f"--extra-vars={json.dumps({'backup_synchronous': synchronous})}"
    play("site.yml", both, wanted)
    until(WAITED_FOR if synchronous else FOLLOWED)
    secret = (STATE / "secrets" / f"{HOST}.webhook_secret").read_text()
    site = Site(ADDRESS, DOMAIN, "v1", secret, STATE / "pki" / "ca.pem")
    taken = take_away(f"molam-{HOST}", site, seconds=LOAD_SECONDS, pause_seconds=0.05)
    shared("create.yml", INVENTORY, f"--limit=localhost,{HOST}")
    began = time.monotonic()
    play("site.yml", both, wanted)
    play("playbooks/restore.yml", f"--limit={HOST}", f"--extra-vars=confirm={HOST} repository=2", wanted)
    recovery = time.monotonic() - began
    there = set(on_host("runuser -u postgres -- psql -XAtc 'SELECT event_id FROM event_ids' molam_webhook").split())
    missing = [at for at, event_id in taken.answered if event_id not in there]
    return Loss(len(taken.answered), len(missing), taken.gone - min(missing, default=taken.gone), recovery)


def measure() -> dict[str, Loss]:
    """Return what is lost by what there is of the host elsewhere; makes and removes the hosts."""
    shared("destroy.yml", INVENTORY)
    shared("create.yml", INVENTORY, f"--limit=localhost,{HOST},{REPOSITORY}")
    losses = {"second repository": lose(synchronous=False), "synchronous copy": lose(synchronous=True)}
    shared("destroy.yml", INVENTORY)
    return losses
