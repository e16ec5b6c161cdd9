"""With a synchronous copy nothing that was acknowledged is lost with the host, and without it nothing is acknowledged.

After test_second_repository.py: the receiver is on the spare host, and comes back from there to a new one.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from testinfra.host import Host

from tests.host.conftest import Site, new_event
from tests.host.load import stored, until_taken
from tests.host.playbooks import ROOT, play, run
from tests.host.test_backup import measured, sql

from .conftest import reached
from .loss import take_away
from .test_second_repository import MOVED, SETTINGS, SPARE

BOTH = "--limit=second,repository"
ON, OFF = '--extra-vars={"backup_synchronous": true}', '--extra-vars={"backup_synchronous": false}'
FROM_SECOND = "--extra-vars=confirm=second repository=2"


@pytest.fixture(scope="module")
def spare() -> Host:
    """Return the host that serves."""
    return reached(SPARE)


@pytest.fixture(scope="module")
def there(site: Site) -> Site:
    """Return its front door."""
    return replace(site, address=SPARE)


def waits(host: Host) -> bool:
    """Whether commits wait for the other host, and it is there."""
    return measured(host)["molam_synchronous_copy"] == 1


def until_it_waits(host: Host) -> None:
    deadline = time.monotonic() + 120
    while not waits(host):
        assert time.monotonic() < deadline, host.run("journalctl -u 'molam-backup-s*' -n 40 --no-pager").stdout
        # Its unit may be started five times in ten seconds.
        time.sleep(3)


@pytest.fixture(scope="module", autouse=True)
def _synchronous(request: pytest.FixtureRequest, host: Host, spare: Host) -> None:
    answer = play(request, host, "site.yml", MOVED, BOTH, ON)
    assert answer.returncode == 0, answer.stdout[-3000:]
    until_it_waits(spare)


def test_without_the_other_host_nothing_is_acknowledged(spare: Host, repository: Host, there: Site) -> None:
    event = new_event()
    repository.check_output("systemctl stop molam-repository")
    try:
        assert there.send(event).status_code == 503
        # It is committed here and not there, so that its duplicate is no more than it.
        assert sql(spare, f"SELECT count(*) FROM event_ids WHERE event_id = '{event['id']}'") == "1"
        assert there.send(event).status_code == 503
        assert not waits(spare)
        told = spare.run("molam-check")
        assert told.rc == 1
        assert "molam_synchronous_copy is 0" in told.stdout
    finally:
        repository.check_output("systemctl start molam-repository")
    assert until_taken(there, event) == "duplicate"
    until_it_waits(spare)


def test_it_gives_nothing_away(spare: Host) -> None:
    ssh = f"ssh -F {SETTINGS}/ssh_config -i {SETTINGS}/stream_key second"
    told = spare.run(f"{ssh} id </dev/null")
    assert told.rc == 1
    assert "another repository's" in told.stderr
    assert spare.run(f"! {ssh} -W 127.0.0.1:22 </dev/null").rc == 0
    said = spare.check_output("systemd-analyze security --no-pager molam-backup-stream.service | tail -n 1")
    assert float(re.findall(r"\d+\.\d+", said)[-1]) <= 2.0, said
    rights = "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = 'molam_stream'"
    assert sql(spare, rights) == "f"


def test_what_the_archive_has_is_not_kept_twice(spare: Host, repository: Host, there: Site) -> None:
    for _ in range(3):
        assert until_taken(there, new_event()) == "accepted"
        sql(spare, "SELECT pg_switch_wal()")
    full = "find /var/lib/molam-repository/second/log -type f -regextype posix-extended -regex '.*/[0-9A-F]{24}'"
    deadline = time.monotonic() + 150
    while len(repository.check_output(full).split()) > 1:
        assert time.monotonic() < deadline, repository.check_output(full)
        time.sleep(2)


def test_nothing_is_lost_with_the_host(request: pytest.FixtureRequest, host: Host, there: Site, site: Site) -> None:
    taken = take_away("molam-second-spare", there, seconds=8, pause_seconds=0.05).until()
    assert len(taken) > 50

    inventory = ROOT / request.config.getoption("--ansible-inventory")
    made = run(inventory, "molecule/shared/create.yml", "--limit=localhost,second")
    assert made.returncode == 0, made.stdout[-3000:]
    for playbook, more in (("site.yml", BOTH), ("playbooks/restore.yml", FROM_SECOND)):
        answer = play(request, host, playbook, more, ON)
        assert answer.returncode == 0, answer.stdout[-3000:]
    new = reached(site.address)
    assert stored(new, taken)[0] == len(taken)
    assert until_taken(site, new_event()) == "accepted"
    until_it_waits(new)


def test_switched_off_it_is_waited_for_no_more(
    request: pytest.FixtureRequest, host: Host, repository: Host, site: Site
) -> None:
    new = reached(site.address)
    repository.check_output("systemctl kill --signal=STOP molam-repository")
    try:
        assert site.send(new_event()).status_code == 503
        new.check_output("molam-backup-second --not-synchronous")
        assert site.send(new_event()).status_code == 200
    finally:
        repository.check_output("systemctl kill --signal=CONT molam-repository")
    answer = play(request, host, "site.yml", BOTH, OFF)
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert sql(new, "SHOW synchronous_standby_names") == ""
    assert "molam_stream" not in repository.file("/etc/molam-repository/authorized_keys").content_string
    assert repository.file("/etc/molam-repository/authorized_keys").content_string.count("command=") == 1
    assert "molam_synchronous_copy" not in measured(new)
