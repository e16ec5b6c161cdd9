"""What the service manager is told of the receiver's processes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "roles/webhook_app/files/host/etc/systemd/system"


@pytest.mark.parametrize("name", ["molam-webhook@.service", "molam-webhook-worker@.service"])
def test_a_process_that_grows_is_ended_before_it_takes_the_hosts_memory(name: str) -> None:
    said = [(UNITS / name).read_text(), *(path.read_text() for path in sorted((UNITS / f"{name}.d").glob("*.conf")))]
    # Of several the last one holds.
    *_, megabytes = re.findall(r"^MemoryMax=(\d+)M$", "\n".join(said), re.MULTILINE)
    assert 0 < int(megabytes) <= 512
