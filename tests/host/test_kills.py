"""Killed without a warning while events come in: all comes back by itself, and nothing is lost or done twice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from testinfra.host import Host

from .conftest import Site, slot_in_use
from .load import load, stored

pytestmark = pytest.mark.intrusive

# Ends a hopeless wait. It is less than the lease of what a killed worker had in hand.
SECONDS = 25
# systemd ends what was silent for 30 s.
WATCHDOG_SECONDS = 60
ENOUGH = 5

PIDS = {
    "the receiver": "systemctl show --value --property=MainPID molam-webhook@{slot}",
    "the worker": "systemctl show --value --property=MainPID molam-webhook-worker@{slot}",
    "PostgreSQL": "head -n 1 /var/lib/postgresql/*/main/postmaster.pid",
    "nginx": "systemctl show --value --property=MainPID nginx",
}


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.parametrize("what", PIDS)
def test_comes_back_when_it_is_killed(host: Host, site: Site, what: str) -> None:
    pid = PIDS[what].format(slot=slot_in_use(host))
    killed = host.check_output(pid)

    def taken() -> list[str]:
        return [event_id for event_id, status in answers if status == 200]

    with load(site) as answers:
        wait_until(lambda: len(taken()) >= ENOUGH)
        host.check_output(f"kill -KILL {killed}")
        wait_until(lambda: host.run(pid).stdout.strip() not in ("", "0", killed))
        again = len(taken())
        wait_until(lambda: len(taken()) >= again + ENOUGH)
    wait_until(lambda: stored(host, taken()) == (len(taken()), len(taken())))


def test_postgresql_comes_back_when_it_is_killed_while_it_starts(host: Host, site: Site) -> None:
    with load(site) as answers:
        again_and_again = "systemctl kill --signal=KILL 'postgresql@*'; sleep 0.$((n % 9 + 1))"
        host.check_output(f"for n in $(seq 20); do {again_and_again}; done")
        before = len(answers)
        wait_until(lambda: [status for _, status in answers[before:]].count(200) >= ENOUGH)
    taken = [event_id for event_id, status in answers if status == 200]
    wait_until(lambda: stored(host, taken) == (len(taken), len(taken)))


@pytest.mark.debian("13")
def test_what_stands_still_is_ended_and_comes_back(host: Host, site: Site) -> None:
    """Receiver and worker both, at once: each has 30 s to say that it is well."""
    slot = slot_in_use(host)
    units = [f"molam-webhook@{slot}", f"molam-webhook-worker@{slot}"]
    pids = f"systemctl show --value --property=MainPID {' '.join(units)}"
    began = host.check_output("date +%s")
    stopped = set(host.check_output(pids).split())

    def taken() -> list[str]:
        return [event_id for event_id, status in answers if status == 200]

    with load(site) as answers:
        wait_until(lambda: len(taken()) >= ENOUGH)
        host.check_output(f"kill -STOP {' '.join(stopped)}")
        wait_until(lambda: not stopped & set(host.run(pids).stdout.split()), WATCHDOG_SECONDS)
        again = len(taken())
        wait_until(lambda: len(taken()) >= again + ENOUGH)
    for unit in units:
        assert "Watchdog timeout" in host.check_output(f"journalctl --unit={unit} --since=@{began} --output=cat")
    wait_until(lambda: stored(host, taken()) == (len(taken()), len(taken())))
