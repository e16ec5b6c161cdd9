"""The host measures itself, and tells when something is not well."""

from __future__ import annotations

import time

import pytest
from testinfra.host import Host

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


@pytest.mark.intrusive
def test_tells_what_is_not_well_and_when_it_is_well_again(host: Host, slot: str) -> None:
    worker = f"molam-webhook-worker@{slot}"
    host.check_output(f"rm -f /run/recorded && systemd-run --quiet --unit=recorder python3 -c '{RECORDER}'")
    try:
        host.check_output("systemctl start molam-check.service")
        host.check_output(f"systemctl stop {worker}")
        host.check_output("systemctl start molam-check.service")
        assert host.run("molam-check").rc == 1
        told = host.file("/run/recorded").content_string
        assert "molam_worker_ready is 0, below its limit of 1" in told
        assert "molam-webhook status" in told
        # Not every minute.
        host.check_output("systemctl start molam-check.service")
        assert host.file("/run/recorded").content_string == told
        host.check_output(f"systemctl start {worker}")
        host.check_output("systemctl start molam-check.service")
    finally:
        host.check_output(f"systemctl start {worker}")
        host.check_output("systemctl stop recorder")
    assert "molam_worker_ready is well again" in host.file("/run/recorded").content_string
