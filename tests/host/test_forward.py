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
from .recorder import recorder

pytestmark = pytest.mark.intrusive


def test_an_event_reaches_the_merchants_own_receiver(host: Host, site: Site, event: dict[str, Any]) -> None:
    with recorder(host, 9098) as shop:
        assert site.send(event).status_code == 200
        deadline = time.monotonic() + 20
        while not (came := [posted for posted in shop.posted() if posted.headers["Idempotency-Key"] == event["id"]]):
            assert time.monotonic() < deadline, host.check_output(f"molam-webhook events show {event['id']}")
            time.sleep(0.2)
    ((headers, body),) = came
    assert json.loads(body) == event
    signed = dict(part.split("=") for part in headers["Molam-Forward-Signature"].split(","))
    secret = "forward_f0rT3sts_0nly_7d1"  # noqa: S105  the test hosts' own
    expected = hmac.digest(secret.encode(), f"{signed['t']}.{body}".encode(), hashlib.sha256)
    assert signed["v1"] == expected.hex()
