"""The host measures itself, and tells when something is not well."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.conftest import Saw

from .playbooks import ROOT, play
from .recorder import Recorder, recorder

TEXTFILE = "/var/lib/prometheus/node-exporter/molam.prom"


@pytest.mark.checklist("OPS-4")
def test_measures_every_minute(host: Host, saw: Saw) -> None:
    assert host.service("molam-check.timer").is_running
    assert host.service("molam-check.timer").is_enabled
    age = time.time() - host.file(TEXTFILE).mtime.timestamp()
    saw(f"molam-check's timer runs; measured {age:.0f} s ago")
    assert age < 130


def test_metrics_are_for_node_exporter_to_read(host: Host) -> None:
    measured = dict(
        line.rsplit(" ", 1) for line in host.check_output(f"runuser -u nobody -- cat {TEXTFILE}").splitlines()
    )
    assert measured["molam_receiver_ready"] == "1"
    assert measured["molam_worker_ready"] == "1"
    assert 'molam_filesystem_free_ratio{path="/var/lib/postgresql"}' in measured
    assert {"molam_dead_events", "molam_oldest_pending_seconds", "molam_conflicts", "molam_unknown_kids"} <= set(
        measured
    )


def test_only_root_reads_whom_it_tells(host: Host) -> None:
    assert host.file("/etc/molam-check.json").mode == 0o600


@pytest.fixture
def chat(host: Host) -> Iterator[Recorder]:
    """Let the chat listen."""
    with recorder(host, 9099) as listening:
        yield listening


def told(chat: Recorder) -> list[str]:
    """Return the messages that it got."""
    return [json.loads(posted.body)["text"] for posted in chat.posted()]


@pytest.mark.checklist("OPS-4")
@pytest.mark.intrusive
def test_tells_what_is_not_well_and_when_it_is_well_again(host: Host, slot: str, chat: Recorder) -> None:
    worker = f"molam-webhook-worker@{slot}"
    try:
        host.check_output("systemctl start molam-check.service")
        host.check_output(f"systemctl stop {worker}")
        host.check_output("systemctl start molam-check.service")
        assert host.run("molam-check").rc == 1
        messages = told(chat)
        assert "molam_worker_ready is 0, below its limit of 1" in messages[-1]
        assert "molam-webhook status" in messages[-1]
        # Not every minute.
        host.check_output("systemctl start molam-check.service")
        assert told(chat) == messages
        host.check_output(f"systemctl start {worker}")
        host.check_output("systemctl start molam-check.service")
    finally:
        host.check_output(f"systemctl start {worker}")
    assert "molam_worker_ready is well again" in told(chat)[-1]


# As a playbook does it that was run by somebody.
TELL = """
- hosts: webhook
  gather_facts: false
  become: true
  vars:
    tell_subject: release v1.2.0 serves, at $5 and 100%n
    tell_text: |
      from v1.1.0, "slot b"
  tasks:
    - ansible.builtin.include_tasks: {path}
"""


@pytest.mark.intrusive
def test_says_what_a_playbook_did(request: pytest.FixtureRequest, host: Host, tmp_path: Path, chat: Recorder) -> None:
    (tmp_path / "tell.yml").write_text(TELL.format(path=ROOT / "playbooks" / "tasks" / "tell.yml"))
    answer = play(request, host, str(tmp_path / "tell.yml"))
    assert answer.returncode == 0, answer.stdout
    assert "WARNING" not in answer.stdout
    (message,) = told(chat)
    subject, text = message.split("\n", 1)
    assert subject.startswith("[molam] ")
    assert subject.endswith(": release v1.2.0 serves, at $5 and 100%n")
    assert text.strip() == 'from v1.1.0, "slot b"'

    # Nobody takes it: what was done was done all the same.
    chat.stop()
    answer = play(request, host, str(tmp_path / "tell.yml"))
    assert answer.returncode == 0, answer.stdout
    said = " ".join(answer.stdout.split())
    assert 'WARNING: nobody was told "release v1.2.0 serves' in said
    assert "the message was not sent: <urlopen error [Errno 111] Connection refused>" in said


@pytest.mark.intrusive
def test_what_says_a_text_is_in_the_checks_sandbox(host: Host) -> None:
    """Whatever systemd is told of the timer's unit holds for it, but for what makes the two differ."""
    unit = "molam-say-test"
    run = f"systemd-run --quiet --collect --unit={unit} --property=User=molam_check sleep 60"
    host.check_output(run)
    try:
        names = "PrivateNetwork,IPAddressAllow,IPAddressDeny,RestrictAddressFamilies,ProtectSystem,NoNewPrivileges,User"
        show = "systemctl show --property=" + names
        assert host.check_output(f"{show} {unit}") == host.check_output(f"{show} molam-check.service")
    finally:
        host.check_output(f"systemctl stop {unit}")
