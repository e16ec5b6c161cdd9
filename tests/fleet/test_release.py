"""Releases of two hosts, one after the other: one that does not serve ends it, and a rollback goes to one release."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .hosts import FIRST, SECOND, on, play

LEDGER = "/var/lib/molam-webhook/ledger.jsonl"
# A setting that is new, so that there is something to switch.
DEPLOY = ("deploy.yml", "--extra-vars=release=worktree", "--extra-vars=webhook_app_pool_idle_seconds=33")


def slot(address: str) -> str:
    """Return the slot that serves on a host."""
    return on(address, "basename $(readlink /opt/molam-webhook/active)")


@pytest.fixture
def served_before() -> Iterator[None]:
    """Have each host's ledger say that another release served there before."""
    for address, release in ((FIRST, "v0.0.1"), (SECOND, "v0.0.2")):
        line = {"at": "2026-01-01T00:00:00Z", "by": "a test", "action": "deploy", "from_release": None}
        line |= {"to_release": release, "result": "done"}
        on(address, f"cp {LEDGER} /run/ledger; {{ echo '{json.dumps(line)}'; cat /run/ledger; }} >{LEDGER}")
    yield
    for address in (FIRST, SECOND):
        on(address, f"cp /run/ledger {LEDGER}")


def test_a_host_that_does_not_serve_ends_it() -> None:
    before = slot(FIRST), slot(SECOND)
    on(FIRST, "systemctl stop nginx")
    answer = play(*DEPLOY)
    message = " ".join(answer.stdout.split())
    assert answer.returncode == 2
    assert "hard13 does not serve as it should" in message
    assert "The switch itself was made." in message or "hard13 serves" in message
    assert "left as they are: hard12. Mend it and run the same again" in message
    assert slot(FIRST) != before[0]
    assert slot(SECOND) == before[1]
    on(FIRST, "systemctl start nginx")
    answer = play(*DEPLOY)
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert slot(FIRST) != before[0]
    assert slot(SECOND) != before[1]


@pytest.mark.usefixtures("served_before")
def test_hosts_that_would_go_back_to_different_releases() -> None:
    before = slot(FIRST), slot(SECOND)
    answer = play("rollback.yml")
    message = " ".join(answer.stdout.split())
    assert answer.returncode == 2
    assert "do not go back to one release by themselves; name it" in message
    assert "would go to v0.0.1" in message
    assert "would go to v0.0.2" in message
    assert (slot(FIRST), slot(SECOND)) == before
