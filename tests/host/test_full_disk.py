"""No room left where the logs are, or the data: the host goes on, or says 503, and is well once there is room."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from .conftest import Site, new_event
from .load import load, stored
from .recorder import recorder

pytestmark = pytest.mark.intrusive

LOGS, DATA = "/var/log", "/var/lib/postgresql"
# What the check keeps on the disk.
CHECKS = ("/var/lib/molam-check", "/var/lib/prometheus/node-exporter")
ACCESS = "/var/log/nginx/molam-webhook.log"
CLUSTER = "postgresql@$(ls /etc/postgresql)-main"
WRITERS = "nginx systemd-journald"
SECONDS = 60
ENOUGH = 5
# systemd's own limit is 5 tries in 10 s, which a slow machine does not reach.
TRIES = 6

# A file system of its own, with what was there, half as much again and so many MiB more: enough for the check, which
# would tell of it otherwise before it is full.
SMALL = """
set -eu
mkdir -p /run/molam-small
mount -t tmpfs -o size=$(($(du -sm {path} | cut -f1) * 3 / 2 + {room}))m small /run/molam-small
cp -a {path}/. /run/molam-small/
mount --bind /run/molam-small {path}
umount /run/molam-small
"""

# A database that runs is ended at once, and its file of before gives its room to the ballast: a start has to write
# that file anew, and finds none.
END = """
systemctl --quiet is-active {cluster} || exit 0
systemctl kill --signal=KILL {cluster}
rm -f {data}/*/main/postmaster.pid
cat /dev/zero >> {data}/ballast.more
true
"""


def wait_until(what: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.2)


def wait_until_done(host: Host, taken: list[str]) -> None:
    """Every event that was acknowledged is stored and acted on, once."""
    deadline = time.monotonic() + SECONDS
    while (found := stored(host, taken)) != (len(taken), len(taken)):
        assert time.monotonic() < deadline, f"of {len(taken)} acknowledged, stored and done are {found}"
        time.sleep(0.2)


@contextmanager
def filled(host: Host, path: str) -> Iterator[None]:
    """Leave no room in a folder's file system."""
    host.run(f"cat /dev/zero > {path}/ballast")
    assert host.check_output(f"df --output=avail {path} | tail -n 1").strip() == "0"
    try:
        yield
    finally:
        host.check_output(f"rm {path}/ballast*")


@pytest.fixture(scope="module")
def small(host: Host) -> Iterator[None]:
    """Give logs and data a small file system each. What is written there meanwhile goes with that of the logs."""
    host.check_output(f"systemctl stop {CLUSTER}")
    mounted = []
    try:
        for path, room in ((LOGS, 16), (DATA, 64)):
            host.check_output(SMALL.format(path=path, room=room))
            mounted.append(path)
        host.check_output(f"systemctl start {CLUSTER} && systemctl restart {WRITERS}")
        yield
    finally:
        # The archive has what was committed meanwhile: the database must not go back behind that.
        host.check_output(f"systemctl stop {CLUSTER} && cp -a {DATA} /run/kept")
        for path in mounted:
            host.check_output(f"umount --lazy {path}")
        host.check_output(f"rm -r {DATA}/* && cp -a /run/kept/. {DATA}/ && rm -r /run/kept")
        host.check_output(f"systemctl reset-failed; systemctl start {CLUSTER} && systemctl restart {WRITERS}")


@pytest.mark.usefixtures("small")
def test_logs_that_find_no_room_stop_nothing(host: Host, site: Site) -> None:
    with filled(host, LOGS), load(site, pause_seconds=0.02) as answers:
        host.check_output("timeout 5 logger nobody waits for this")
        host.check_output("systemctl restart nginx")
        began = len(answers)
        wait_until("nginx answers", lambda: len(answers) >= began + ENOUGH)
        # Nor does PostgreSQL start only where its log can be written.
        host.check_output(f"systemctl restart {CLUSTER}")
        wait_until("events are taken", lambda: [status for _, status in answers[-ENOUGH:]] == [200] * ENOUGH)
        host.check_output("systemctl reset-failed logrotate; systemctl start logrotate")
    assert {status for _, status in answers} <= {0, 200, 503}
    taken = [event_id for event_id, status in answers if status == 200]
    wait_until_done(host, taken)

    # nginx skips a log for the rest of the second in which it found no room for a line.
    time.sleep(2)
    event = new_event()
    assert site.send(event).status_code == 200
    wait_until("nginx logs", lambda: host.run(f"grep -q {event['id']} {ACCESS}").succeeded)
    host.check_output(f"logger {event['id']}")
    said = f"journalctl --quiet --output=cat --identifier=root --grep={event['id']}"
    wait_until("the journal has it", lambda: host.run(said).stdout)


@pytest.mark.usefixtures("small")
def test_data_that_finds_no_room_is_not_acknowledged(host: Host, site: Site) -> None:
    """PostgreSQL ends there and can't start: it tries for as long as it takes. Logs find no room either."""
    tries = f"systemctl show --property=NRestarts --property=Result {CLUSTER}"
    assert host.check_output(f"systemctl show --value --property=StartLimitIntervalUSec {CLUSTER}") == "0"

    def taken() -> list[str]:
        return [event_id for event_id, status in answers if status == 200]

    def tried() -> bool:
        host.run(END.format(cluster=CLUSTER, data=DATA))
        told = dict(line.split("=") for line in host.check_output(tries).splitlines())
        return int(told["NRestarts"]) >= TRIES and told["Result"] == "exit-code"

    with load(site) as answers:
        wait_until("events are taken", lambda: len(taken()) >= ENOUGH)
        with filled(host, LOGS), filled(host, DATA):
            wait_until("PostgreSQL has tried often", tried)
            answer = site.send(new_event())
            assert (answer.status_code, answer.headers["Retry-After"].isdigit()) == (503, True)
            assert site.request("GET", "/health").status_code == 503
        again = len(taken())
        wait_until("events are taken again", lambda: len(taken()) >= again + ENOUGH)
    assert {status for _, status in answers} == {200, 503}
    wait_until_done(host, taken())


@pytest.mark.usefixtures("small")
def test_somebody_is_told_though_nothing_can_be_kept(host: Host) -> None:
    """Once, and not every minute."""
    for path in CHECKS:
        host.check_output(SMALL.format(path=path, room=1))
    try:
        with filled(host, LOGS), filled(host, CHECKS[0]), filled(host, CHECKS[1]), recorder(host, 9099) as chat:
            for _ in range(2):
                host.check_output("systemctl start molam-check.service")
            assert "molam_filesystem_free_ratio" in host.check_output("/etc/update-motd.d/30-molam")
            messages = [json.loads(posted.body)["text"] for posted in chat.posted()]
            (told,) = [text for text in messages if 'path="/var/log"' in text]
            assert re.search(r'path="/var/log"\} is 0, .*docs/runbooks/disk-full\.md', told)
    finally:
        for path in CHECKS:
            host.check_output(f"umount --lazy {path}")
        host.check_output("systemctl start molam-check.service")
