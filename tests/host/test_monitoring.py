"""The host measures itself, and tells when something is not well."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from .playbooks import ROOT, play

TEXTFILE = "/var/lib/prometheus/node-exporter/molam.prom"

# Answers every request and keeps what was posted.
RECORDER = """
import http.server, pathlib
class Chat(http.server.BaseHTTPRequestHandler):
    log_message = lambda *_: None
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with pathlib.Path("/run/recorded").open("ab") as file: file.write(body + b"\\n")
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9099), Chat).serve_forever()
"""


def test_measures_every_minute(host: Host) -> None:
    assert host.service("molam-check.timer").is_running
    assert host.service("molam-check.timer").is_enabled
    age = time.time() - host.file(TEXTFILE).mtime.timestamp()
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
def recorded(host: Host) -> Iterator[str]:
    """Let the chat listen; the file in which it keeps what was posted."""
    path = "/run/recorded"
    host.check_output(f"rm -f {path} && systemd-run --quiet --unit=recorder python3 -c '{RECORDER}'")
    # Not before it listens.
    host.check_output("timeout 10 sh -c 'until ss -Hltn sport = :9099 | grep -q .; do sleep 0.1; done'")
    yield path
    host.run("systemctl stop recorder")


@pytest.mark.intrusive
def test_tells_what_is_not_well_and_when_it_is_well_again(host: Host, slot: str, recorded: str) -> None:
    worker = f"molam-webhook-worker@{slot}"
    try:
        host.check_output("systemctl start molam-check.service")
        host.check_output(f"systemctl stop {worker}")
        host.check_output("systemctl start molam-check.service")
        assert host.run("molam-check").rc == 1
        told = host.file(recorded).content_string
        assert "molam_worker_ready is 0, below its limit of 1" in told
        assert "molam-webhook status" in told
        # Not every minute.
        host.check_output("systemctl start molam-check.service")
        assert host.file(recorded).content_string == told
        host.check_output(f"systemctl start {worker}")
        host.check_output("systemctl start molam-check.service")
    finally:
        host.check_output(f"systemctl start {worker}")
    assert "molam_worker_ready is well again" in host.file(recorded).content_string


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
def test_says_what_a_playbook_did(request: pytest.FixtureRequest, host: Host, tmp_path: Path, recorded: str) -> None:
    (tmp_path / "tell.yml").write_text(TELL.format(path=ROOT / "playbooks" / "tasks" / "tell.yml"))
    answer = play(request, host, str(tmp_path / "tell.yml"))
    assert answer.returncode == 0, answer.stdout
    assert "WARNING" not in answer.stdout
    (line,) = host.file(recorded).content_string.splitlines()
    subject, text = json.loads(line)["text"].split("\n", 1)
    assert subject.startswith("[molam] ")
    assert subject.endswith(": release v1.2.0 serves, at $5 and 100%n")
    assert text.strip() == 'from v1.1.0, "slot b"'

    # Nobody takes it: what was done was done all the same.
    host.check_output("systemctl stop recorder")
    answer = play(request, host, str(tmp_path / "tell.yml"))
    assert answer.returncode == 0, answer.stdout
    told = " ".join(answer.stdout.split())
    assert 'WARNING: nobody was told "release v1.2.0 serves' in told
    assert "the message was not sent: <urlopen error [Errno 111] Connection refused>" in told


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
