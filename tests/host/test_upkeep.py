"""What keeps a host well while nobody looks: updates, migrations, backups, renewals, its clock, the way back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from testinfra.host import Host

from tests.conftest import Saw, not_applicable, not_testable

LEDGER = "/var/lib/molam-webhook/ledger.jsonl"
DRILLS = "/var/lib/molam-backup/drill/results.jsonl"
TAG = re.compile(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?")
DAYS = 30


@pytest.fixture(scope="module")
def measured(host: Host) -> dict[str, Any]:
    """Return what the host's own check measures and what crosses its limit."""
    found: dict[str, Any] = json.loads(host.run("molam-check --json").stdout)
    return found


def crossed(measured: dict[str, Any], name: str) -> list[str]:
    """Return what is said of a measurement that crosses its limit."""
    return [said for key, said in measured["crossed"].items() if key.startswith(name)]


@pytest.mark.checklist("NET-4")
def test_security_updates_come_by_themselves(host: Host, inventory: dict[str, Any], saw: Saw) -> None:
    if not inventory["base_security_updates"]:
        not_applicable("base_security_updates is false: somebody else sees to them")
    settings = host.check_output("apt-config dump").splitlines()
    timers = {name: host.service(f"{name}.timer") for name in ("apt-daily", "apt-daily-upgrade")}
    running = [name for name, timer in timers.items() if timer.is_enabled and timer.is_running]
    saw(f"timers {' and '.join(running) or 'none'} run; unattended-upgrades is asked for daily")
    assert running == list(timers)
    assert 'APT::Periodic::Update-Package-Lists "1";' in settings
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings
    assert any("Origins-Pattern::" in line and "label=Debian-Security" in line for line in settings)
    assert host.package("unattended-upgrades").is_installed


@pytest.mark.checklist("PRE-5")
def test_a_certificate_is_renewed_in_time(
    host: Host, measured: dict[str, Any], inventory: dict[str, Any], saw: Saw
) -> None:
    left = measured["measured"]["molam_certificate_remaining_seconds"] / 86400
    assert crossed(measured, "molam_certificate_remaining") == []
    if inventory["certbot_enabled"]:
        timer = host.service("certbot.timer")
        result = host.check_output("systemctl show --value --property=Result certbot.service")
        saw(f"{left:.0f} days left; certbot's timer runs, its last run ended in {result}")
        assert timer.is_enabled
        assert timer.is_running
        assert result == "success"
    else:
        saw(f"{left:.0f} days left; certbot_enabled is false, molam-check tells when a sixth of its time is left")


@pytest.mark.checklist("OPS-1")
@pytest.mark.usefixtures("_own_database")
def test_migrations_have_run_and_are_recorded(host: Host, saw: Saw) -> None:
    asked = "runuser -u postgres -- psql --no-psqlrc -Atc 'SELECT version_num FROM alembic_version' molam_webhook"
    recorded = host.check_output(asked)
    files = host.check_output(
        "ls /opt/molam-webhook/active/venv/lib/python3*/site-packages/molam_webhook/migrations/versions"
    )
    newest = max(re.findall(r"^(\d+)_\w+\.py$", files, re.MULTILINE))
    saw(f"the database is at {recorded}, the release brings {newest}")
    # After a rollback it is further than the release.
    assert recorded >= newest
    assert recorded.isdigit()


@pytest.fixture
def _backups(inventory: dict[str, Any]) -> None:
    """Leave out what asks for backups where this host makes none."""
    if not inventory["backup_enabled"]:
        not_applicable("backup_enabled is false")
    if inventory["webhook_app_database_url"]:
        not_applicable("webhook_app_database_url names a database elsewhere, whose backups are that host's")


@pytest.mark.checklist("OPS-2")
@pytest.mark.usefixtures("_backups")
def test_backups_are_fresh(host: Host, measured: dict[str, Any], saw: Saw) -> None:
    """And are made again: one that was stopped is old only a day later."""
    ages = {key: value for key, value in measured["measured"].items() if key.startswith("molam_backup_age_seconds")}
    timers = {name: host.service(f"{name}.timer") for name in ("molam-backup", "molam-backup-drill")}
    stopped = [f"{name}.timer" for name, timer in timers.items() if not (timer.is_enabled and timer.is_running)]
    saw(f"{len(ages)} kinds of backup, the oldest made {max(ages.values(), default=0) / 3600:.1f} hours ago")
    assert stopped == []
    assert len(ages) >= 3
    assert crossed(measured, "molam_backup") == []
    assert crossed(measured, "molam_wal") == []


@pytest.mark.checklist("OPS-2")
@pytest.mark.usefixtures("_backups")
def test_a_backup_was_restored_in_a_drill(host: Host, measured: dict[str, Any], saw: Saw) -> None:
    passed = [
        drill["at"] for line in host.run(f"cat {DRILLS}").stdout.splitlines() if (drill := json.loads(line))["passed"]
    ]
    saw(f"{len(passed)} drills have passed, the last one at {passed[-1][:16]}" if passed else "no drill has passed yet")
    assert passed
    assert crossed(measured, "molam_backup_drill") == []
    assert host.run("systemctl is-failed molam-backup-drill").rc != 0


@pytest.mark.checklist("OPS-3")
@pytest.mark.usefixtures("_backups")
def test_backups_are_kept_for_a_month(host: Host, saw: Saw) -> None:
    settings = host.check_output("cat /etc/pgbackrest/pgbackrest.conf")
    kept = int(re.findall(r"^repo1-retention-full=(\d+)$", settings, re.MULTILINE)[0])
    saw(f"pgBackRest keeps {kept} days")
    assert "repo1-retention-full-type=time" in settings
    assert kept >= DAYS


@pytest.mark.checklist("OPS-4")
def test_the_check_sees_receiver_and_worker(measured: dict[str, Any], saw: Saw) -> None:
    names = ("molam_receiver_ready", "molam_worker_ready", "molam_front_door_ready")
    saw(", ".join(f"{name} is {measured['measured'][name]:.0f}" for name in names))
    assert [measured["measured"][name] for name in names] == [1, 1, 1]


@pytest.mark.checklist("OPS-5")
def test_the_release_is_in_the_ledger(host: Host, inventory: dict[str, Any], saw: Saw) -> None:
    release = host.check_output("basename $(readlink -f /opt/molam-webhook/active)")
    lines = [json.loads(line) for line in host.check_output(f"cat {LEDGER}").splitlines()]
    done = [line for line in lines if line["result"] == "done" and line["action"] in ("deploy", "rollback", "apply")]
    manifest = json.loads(host.check_output("cat /opt/molam-webhook/active/manifest.json"))
    saw(f"{release}, commit {done[-1]['commit'][:12]}, in use since {done[-1]['at']}")
    assert (done[-1]["to_release"], done[-1]["commit"]) == (release, manifest["commit"])
    # A demo runs what somebody is working on, committed or not.
    if inventory["molam_environment"] != "demo":
        assert TAG.fullmatch(release), f"{release} is no tag"
        assert re.fullmatch("[0-9a-f]{40}", manifest["commit"])


@pytest.mark.checklist("OPS-5")
def test_the_release_before_is_there_to_go_back_to(host: Host, saw: Saw) -> None:
    said = host.check_output("molam-webhook-switch ledger")
    back = re.findall(r"^a rollback goes to: (.*)$", said, re.MULTILINE)[0]
    installed = re.findall(r"^installed: (.*)$", said, re.MULTILINE)[0].split()
    if len(installed) == 1:
        not_testable("this host has had one release")
    saw(f"a rollback goes to {back}")
    assert not back.startswith("nothing")
    assert host.file(f"/opt/molam-webhook/releases/{back.split()[0].rstrip(',')}/complete").exists


@pytest.mark.checklist("OPS-6")
def test_the_clock_is_right(host: Host, measured: dict[str, Any], saw: Saw) -> None:
    is_container = host.run("test -e /run/systemd/container").succeeded
    saw("the container's clock is its machine's" if is_container else "the time service says that it is synchronised")
    assert measured["measured"]["molam_clock_synchronised"] == 1
