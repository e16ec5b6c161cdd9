"""The check that a host makes of itself: what it measures, when it tells, and that the message arrives."""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/monitoring/files/host/usr/local/sbin/molam-check"
LIMITS = {
    "ready": 1,
    "clock_synchronised": 1,
    "oldest_pending_seconds": 300,
    "dead_events": 0,
    "dead_forwards": 0,
    "new_conflicts": 0,
    "new_unknown_kids": 0,
    "filesystem_free_ratio": 0.15,
    "memory_available_ratio": 0.05,
    "failed_units": 0,
    "reboot_pending_seconds": 259200,
    "secret_age_days": 92,
    "certificate_remaining_ratio": 1 / 6,
    "backup_age_seconds": 129600,
    "backup_drill_age_seconds": 604800,
    "wal_waiting_seconds": 300,
    "wal_missing": 0,
    "second_repository_age_seconds": 300,
    "synchronous_copy": 1,
}
METRICS = """\
# HELP molam_webhook_dead_events Events that were given up
molam_webhook_dead_events 3.0
molam_webhook_oldest_pending_seconds NaN
molam_webhook_stored_conflicts 7.0
"""


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """Return the program as a module."""
    loader = SourceFileLoader("molam_check", str(PROGRAM))
    spec = spec_from_loader("molam_check", loader)
    assert spec is not None
    module = module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[module.__name__] = module
    loader.exec_module(module)
    return module


@contextlib.contextmanager
def served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_process_is_asked_over_its_socket(check: ModuleType, tmp_path: Path) -> None:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 503)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def address_string(self) -> str:
            return "unix"

    path = tmp_path / "s"
    with served(socketserver.UnixStreamServer(str(path), Pages)):
        assert check.ask(path, "/readyz")[0] == 503
        status, text = check.ask(path, "/metrics")
    assert status == 200
    assert check.numbers(text, check.FROM_WORKER) == {"molam_dead_events": 3, "molam_conflicts": 7}
    assert check.ask(path, "/readyz") == (0, "")


@pytest.mark.parametrize(
    ("name", "well", "unwell"),
    [
        ("molam_receiver_ready", 1, 0),
        ("molam_worker_ready", 1, 0),
        ("molam_clock_synchronised", 1, 0),
        ("molam_oldest_pending_seconds", 300, 301),
        ("molam_oldest_pending_forward_seconds", 300, 301),
        ("molam_dead_events", 0, 1),
        ("molam_dead_forwards", 0, 1),
        ('molam_filesystem_free_ratio{path="/"}', 0.15, 0.14),
        ("molam_memory_available_ratio", 0.05, 0.04),
        ("molam_cache_healthy", 1, 0),
        ("molam_failed_units", 0, 1),
        ("molam_reboot_pending_seconds", 259200, 259201),
        ('molam_secret_age_days{secret="keyring/v1"}', 92, 93),
        ("molam_front_door_ready", 1, 0),
        ('molam_backup_age_seconds{of="database"}', 129600, 129601),
        ("molam_backup_drill_age_seconds", 604800, 604801),
        ("molam_wal_waiting_seconds", 300, 301),
        ("molam_wal_missing", 0, 1),
        ("molam_second_repository_age_seconds", 300, 301),
        ("molam_second_repository_free_ratio", 0.15, 0.14),
        ("molam_synchronous_copy", 1, 0),
        ("molam_certificate_remaining_ratio", 0.17, 0.16),
    ],
)
def test_a_measurement_crosses_its_limit(check: ModuleType, name: str, well: float, unwell: float) -> None:
    assert check.crossed({name: well}, {}, LIMITS) == {}
    sentence = check.crossed({name: unwell}, {}, LIMITS)[name]
    assert sentence.startswith(f"{name} is {unwell:g}, ")


def test_a_reboot_that_is_waited_for_is_measured(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "REBOOT", tmp_path / "reboot-required")
    assert check.reboot_pending_seconds() == 0
    check.REBOOT.touch()
    os.utime(check.REBOOT, (0, time.time() - 1000))
    assert 1000 <= check.reboot_pending_seconds() < 1100


def test_what_opens_something_has_an_age(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SECRET_DATES", tmp_path / "dates.json")
    assert check.secret_ages() == {}
    today = datetime.now(UTC).date()
    dates = {
        "keyring/v1": {"created": (today - timedelta(days=100)).isoformat(), "active": False},
        "keyring/v2": {"created": (today - timedelta(days=93)).isoformat(), "active": True},
        "forward_secret": {"created": today.isoformat(), "active": True},
    }
    check.SECRET_DATES.write_text(json.dumps(dates))
    measured = check.secret_ages()
    assert measured == {
        'molam_secret_age_days{secret="keyring/v2"}': 93,
        'molam_secret_age_days{secret="forward_secret"}': 0,
    }
    (sentence,) = check.crossed(measured, {}, LIMITS).values()
    assert "docs/runbooks/rotate-key.md" in sentence


def test_the_clock_is_asked_where_its_keeper_tells(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "TIMESYNC", tmp_path / "timesync")
    monkeypatch.setattr(check, "CONTAINER", tmp_path / "container")
    # A container's is the machine's.
    check.CONTAINER.touch()
    assert check.clock_synchronised()
    check.TIMESYNC.mkdir()
    assert not check.clock_synchronised()
    (check.TIMESYNC / "synchronized").touch()
    assert check.clock_synchronised()


def test_whoever_logs_in_is_told_what_was_measured(check: ModuleType) -> None:
    config = {"host": "web1", "domain": "webhooks.shop.test"}
    measured = {
        "molam_receiver_ready": 0.0,
        "molam_failed_units": 0.0,
        "molam_reboot_pending_seconds": 7300.0,
        "molam_certificate_remaining_seconds": 5.9 * 86_400,
    }
    told = check.motd(config, measured, {})
    assert "web1 (webhooks.shop.test)" in told
    assert [line for line in told.splitlines() if line.startswith("  ")][:-1] == [
        "  release         none",
        "  receiver        NOT READY",
        "  worker          not known",
        "  oldest pending  not known",
        "  failed units    0",
        "  reboot          needed, for 2 h now",
        "  certificate     5 days left",
    ]
    assert "All is well" in told
    measured |= {'molam_backup_age_seconds{of="repository"}': 7300.0, "molam_backup_drill_age_seconds": 90_000.0}
    told = check.motd(config, measured, {})
    assert "  last backup     2 h ago\n  last drill      25 h ago\n" in told
    told = check.motd(config, measured, {"molam_receiver_ready": "No webhook is taken in."})
    assert "  ! No webhook is taken in.\n  NOT WELL" in told


def test_backups_grow_older_where_nobody_measures_them(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = tmp_path / "backups.json"
    monkeypatch.setattr(check, "BACKUPS", measured)
    # No backups are made here.
    assert check.backups() == {}
    name = 'molam_backup_age_seconds{of="repository"}'
    measured.write_text(json.dumps({name: 60.0}))
    assert 60 <= check.backups()[name] < 120
    os.utime(measured, (time.time() - 200_000,) * 2)
    (sentence,) = check.crossed(check.backups(), {}, LIMITS).values()
    assert "above its limit of 129600" in sentence


@pytest.mark.parametrize("name", ["molam_conflicts", "molam_unknown_kids"])
def test_a_rise_is_what_came_since_the_last_time(check: ModuleType, name: str) -> None:
    assert check.crossed({name: 7}, {}, LIMITS) == {}
    assert check.crossed({name: 7}, {name: 7}, LIMITS) == {}
    assert "rose by 2" in check.crossed({name: 9}, {name: 7}, LIMITS)[name]
    assert check.crossed({name: 0}, {name: 7}, LIMITS) == {}


def test_a_counter_of_a_new_process_rises_from_0(check: ModuleType) -> None:
    kids = "molam_unknown_kids"
    assert "rose by 1" in check.crossed({kids: 1}, {kids: 7}, LIMITS)[kids]
    # Rows that somebody removed.
    assert check.crossed({"molam_conflicts": 1}, {"molam_conflicts": 7}, LIMITS) == {}


def test_a_rise_is_told_though_its_process_did_not_answer_meanwhile(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CONFIG", "STATE", "SPARE_STATE", "TEXTFILE", "MOTD"):
        monkeypatch.setattr(check, name, tmp_path / name)
    nobody = {"webhook_url": "", "mail_to": ""}
    check.CONFIG.write_text(json.dumps(nobody | {"host": "x", "domain": "x", "filesystems": [], "limits": LIMITS}))
    monkeypatch.setattr(sys, "argv", ["molam-check", "--tell"])
    for measured in ({"molam_unknown_kids": 7.0}, {}, {"molam_unknown_kids": 9.0}):
        monkeypatch.setattr(check, "measure", lambda *_, measured=measured: measured)
        check.main()
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "all well",
        "all well",
        "molam_unknown_kids rose by 2",
    ]


def test_what_was_told_is_known_though_the_disk_has_no_room(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    for name, path in (("STATE", disk / "state"), ("SPARE_STATE", tmp_path / "spare")):
        monkeypatch.setattr(check, name, path)
    assert check.recall() == {"measured": {}, "told": {}}
    for room, told in ((False, 1.0), (True, 2.0)):
        if room:
            disk.mkdir()
        check.remember({"measured": {}, "told": {"x": told}})
        assert check.recall()["told"] == {"x": told}
        assert check.STATE.exists() == room != check.SPARE_STATE.exists()


def test_the_certificate_that_is_served_is_measured(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, key, certificate = 86_400, tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 8 -subj /CN=x -keyout {key}"
    )
    subprocess.run([*make.split(), "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with served(server), monkeypatch.context() as later:
        measured = check.front_door("webhooks.shop.test", server.server_address)
        now = time.time()
        later.setattr("time.time", lambda: now + 7 * day)
        week_later = check.front_door("webhooks.shop.test", server.server_address)
    assert measured["molam_front_door_ready"] == 1
    assert measured["molam_certificate_remaining_seconds"] == pytest.approx(8 * day, abs=3600)
    assert measured["molam_certificate_remaining_ratio"] == pytest.approx(1, abs=0.01)
    assert check.crossed(measured, {}, LIMITS) == {}
    sentence = check.crossed(week_later, {}, LIMITS)["molam_certificate_remaining_ratio"]
    assert "below its limit of 0.166667" in sentence
    assert "journalctl -u certbot" in sentence
    # Nobody listens any more.
    assert check.front_door("webhooks.shop.test", server.server_address) == {"molam_front_door_ready": 0}


def test_told_once_a_day_and_when_it_is_well_again(check: ModuleType) -> None:
    now = {"x": "x is bad."}
    assert check.news(now, {}, 1e6) == (["x is bad."], {"x": 1e6})
    assert check.news(now, {"x": 1e6}, 1e6 + 60) == ([], {"x": 1e6})
    later = 1e6 + check.REMIND_SECONDS
    assert check.news(now, {"x": 1e6}, later) == (["x is bad."], {"x": later})
    assert check.news({}, {"x": 1e6}, later) == (["x is well again."], {})


def test_a_webhook_is_posted_to(check: ModuleType) -> None:
    posted: list[Any] = []

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Chat)
    config = {"host": "host", "webhook_url": f"http://127.0.0.1:{server.server_port}/", "mail_to": ""}
    with served(server):
        check.tell(config, "x", "x is bad.")
    assert posted == [{"text": "[molam] host: x\nx is bad."}]
    with pytest.raises(OSError, match="refused"):
        check.tell(config, "x", "x is bad.")


def test_a_mail_is_sent(check: ModuleType) -> None:
    received: list[str] = []

    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 ready\r\n")
            for line in self.rfile:
                word = line.split()[0].upper() if line.split() else b""
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    while (text := self.rfile.readline()) != b".\r\n":
                        received.append(text.decode().rstrip())
                self.wfile.write(b"250 well\r\n" if word != b"QUIT" else b"221 bye\r\n")

    server = socketserver.TCPServer(("127.0.0.1", 0), Mail)
    config = {
        "host": "host",
        "webhook_url": "",
        "mail_to": "ops@shop.test",
        "mail_from": "molam@shop.test",
        "mail_host": "127.0.0.1",
        "mail_port": server.server_address[1],
    }
    with served(server):
        check.tell(config, "x", "x is bad.")
    assert "Subject: [molam] host: x" in received
    assert "To: ops@shop.test" in received
    assert received[-1] == "x is bad."
