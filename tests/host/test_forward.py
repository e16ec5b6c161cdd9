"""What is forwarded leaves the worker's sandbox for the one address that is open, signed."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from testinfra.host import Host

from .conftest import Site

pytestmark = pytest.mark.intrusive

# Answers every request and keeps its headers and body.
RECORDER = """
import http.server, json, pathlib
class Shop(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with pathlib.Path("/run/forwarded").open("a") as file:
            file.write(json.dumps([dict(self.headers.items()), body]) + "\\n")
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9098), Shop).serve_forever()
"""


def test_an_event_reaches_the_merchants_own_receiver(host: Host, site: Site, event: dict[str, Any]) -> None:
    host.check_output(f"rm -f /run/forwarded && systemd-run --quiet --unit=shop python3 -c '{RECORDER}'")
    try:
        assert site.send(event).status_code == 200
        deadline = time.monotonic() + 20
        while host.run(f"grep --quiet {event['id']} /run/forwarded").rc != 0:
            assert time.monotonic() < deadline, host.check_output(f"molam-webhook events show {event['id']}")
            time.sleep(0.2)
    finally:
        host.run("systemctl stop shop")
    requests = [json.loads(line) for line in host.file("/run/forwarded").content_string.splitlines()]
    headers, body = next(request for request in requests if request[0]["Idempotency-Key"] == event["id"])
    assert json.loads(body) == event
    signed = dict(part.split("=") for part in headers["Molam-Forward-Signature"].split(","))
    secret = "forward_f0rT3sts_0nly_7d1"  # noqa: S105  the test hosts' own
    expected = hmac.digest(secret.encode(), f"{signed['t']}.{body}".encode(), hashlib.sha256)
    assert signed["v1"] == expected.hex()
