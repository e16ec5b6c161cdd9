"""What an administrator finds: who did what as root, how the host is, and whether its clock is right."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from .conftest import Site, new_event

MOTD = "/etc/update-motd.d/30-molam"
TIMESYNC = "/run/systemd/timesync"
BASE = Path(__file__).resolve().parents[2] / "roles" / "base" / "defaults" / "main.yml"


def test_sudo_writes_down_each_command_and_how_it_ended(host: Host) -> None:
    mark = uuid.uuid4().hex
    assert host.run(f"sudo -u nobody false {mark}").rc == 1
    host.check_output("journalctl --sync")
    logged = host.check_output(f"journalctl --identifier sudo --output cat --grep {mark} --since -5min")
    assert f"USER=nobody ; COMMAND=/usr/bin/false {mark}" in logged
    assert "EXIT=1" in logged


def test_services_that_nobody_needs_are_absent(host: Host) -> None:
    unneeded = yaml.safe_load(BASE.read_text())["base_unneeded_packages"]
    query = f"dpkg-query --show --showformat='${{db:Status-Status}} ${{Package}}\\n' {' '.join(unneeded)}"
    # With status 1 where it knows none of them.
    found = [line for line in host.run(query).stdout.splitlines() if line.startswith("installed ")]
    assert found == []


def test_nothing_listens_without_a_connection(host: Host) -> None:
    """TCP is looked at in test_services. A time client and a resolver listen for this host alone."""
    listening = host.check_output("ss --no-header --listening --udp --numeric | awk '{print $4}'").split()
    assert [address for address in listening if not address.startswith(("127.", "[::1]"))] == []


@pytest.mark.intrusive
def test_a_login_shows_how_the_host_is(host: Host, slot: str) -> None:
    worker = f"molam-webhook-worker@{slot}"
    host.check_output(f"systemctl stop {worker}")
    try:
        host.check_output("systemctl start molam-check.service")
        shown = host.check_output("run-parts /etc/update-motd.d")
    finally:
        host.check_output(f"systemctl start {worker}")
    release = host.check_output("basename $(readlink -f /opt/molam-webhook/active)")
    assert f"release         {release}, commit " in shown
    assert "receiver        ready" in shown
    assert "worker          NOT READY" in shown
    assert "! molam_worker_ready is 0" in shown
    host.check_output("systemctl start molam-check.service")
    assert "worker          ready" in host.check_output(MOTD)


@pytest.mark.intrusive
def test_a_login_says_when_nobody_has_checked(host: Host) -> None:
    assert "was not checked" not in host.check_output(MOTD)
    host.check_output("systemctl stop molam-check.timer && touch --date='10 minutes ago' /run/molam-check/motd")
    try:
        assert "The host was not checked for 3 minutes" in host.check_output(MOTD)
    finally:
        host.check_output("systemctl start molam-check.timer && systemctl start molam-check.service")


@pytest.fixture
def unsynchronised(host: Host) -> Iterator[None]:
    """Have timesyncd's folder say that the clock is not right. In a container nobody else writes there."""
    if host.run(f"test -e /run/systemd/container && ! test -e {TIMESYNC}").rc != 0:
        pytest.skip("the host's own time service says how the clock is")
    host.check_output(f"mkdir {TIMESYNC}")
    yield
    host.check_output(f"rm -r {TIMESYNC}")


@pytest.mark.intrusive
@pytest.mark.usefixtures("unsynchronised")
def test_a_clock_that_is_not_right_is_known_and_told(host: Host, site: Site) -> None:
    def check() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(host.run("molam-check --json").stdout)
        return found

    def send_old() -> tuple[int, str]:
        answer = site.send(new_event(), age_ms=600_000)
        return answer.status_code, answer.json()["error"]

    assert "below its limit" in check()["crossed"]["molam_clock_synchronised"]
    assert "clock is not synchronised" in host.run("molam-webhook status").stdout
    assert send_old() == (503, "clock_unsynchronised")
    host.check_output(f"touch {TIMESYNC}/synchronized")
    assert check()["measured"]["molam_clock_synchronised"] == 1
    assert "clock is not synchronised" not in host.run("molam-webhook status").stdout
    assert send_old() == (401, "timestamp_out_of_window")
