"""Who is banned, who never is, and what a ban outlives."""

from __future__ import annotations

import time

import pytest
from testinfra.host import Host

from .conftest import ADMINISTRATOR, ATTACKER, ATTACKER_IPV6, SENDER, Target, call

pytestmark = pytest.mark.usefixtures("_nobody_banned")

FORGED = "t=1,v1=00,kid=v1"
WEBHOOK = "/molam/webhook"
TRIES = 20


def banned(host: Host) -> str:
    """Return who is banned, and for what."""
    return str(host.check_output("fail2ban-client banned"))


def wait_for_ban(host: Host, address: str) -> None:
    deadline = time.monotonic() + 20
    while address not in banned(host):
        assert time.monotonic() < deadline, "not banned"
        time.sleep(0.2)


@pytest.mark.checklist("NET-3")
def test_a_scanner_is_banned_and_stays_so(host: Host, target: Target) -> None:
    assert set(call(ATTACKER, target, "/wp-login.php", times=TRIES)) <= {"404", "refused"}
    wait_for_ban(host, ATTACKER)
    assert call(ATTACKER, target, "/health") == ["refused"]
    for action in ("reload", "restart"):
        host.check_output(f"systemctl {action} nftables")
        assert call(ATTACKER, target, "/health") == ["refused"]
    # It answers a while after systemd calls it started.
    answers = "until fail2ban-client ping >/dev/null 2>&1; do sleep 0.1; done"
    host.check_output(f"systemctl restart fail2ban && timeout 60 sh -c '{answers}'")
    wait_for_ban(host, ATTACKER)
    assert call(ATTACKER, target, "/health") == ["refused"]
    host.check_output(f"fail2ban-client unban {ATTACKER}")
    assert call(ATTACKER, target, "/health") == ["200"]


def test_a_scanner_is_banned_over_ipv6_too(host: Host, target: Target) -> None:
    """By the address that it came from: over IPv4 the same host still gets in."""
    call(ATTACKER, target, "/wp-login.php", times=TRIES, family=6)
    wait_for_ban(host, ATTACKER_IPV6)
    assert call(ATTACKER, target, "/health", family=6) == ["refused"]
    host.check_output("systemctl restart nftables")
    assert call(ATTACKER, target, "/health", family=6) == ["refused"]
    assert call(ATTACKER, target, "/health") == ["200"]


@pytest.mark.checklist("NET-3")
@pytest.mark.parametrize("caller", [ADMINISTRATOR, SENDER])
def test_who_is_known_is_never_banned(host: Host, target: Target, caller: str) -> None:
    known = caller == ADMINISTRATOR or "hard13" in target.domain
    call(caller, target, WEBHOOK, signature=FORGED, times=2 * TRIES)
    if known:
        call(caller, target, "/wp-login.php", times=2 * TRIES)
    # Somebody who is banned after them: what they did has been judged by then.
    call(ATTACKER, target, "/wp-login.php", times=TRIES)
    wait_for_ban(host, ATTACKER)
    assert caller not in banned(host)
    assert call(caller, target, "/health") == ["200"]


def test_a_forger_is_banned_only_where_the_sender_is_known(host: Host, target: Target) -> None:
    """Where it is not known, the forger could be the sender with a wrong key; the receiver limits it."""
    answers = call(ATTACKER, target, WEBHOOK, signature=FORGED, times=2 * TRIES)
    if "hard13" in target.domain:
        wait_for_ban(host, ATTACKER)
    else:
        assert set(answers) <= {"400", "401", "429"}
        assert "429" in answers
        assert ATTACKER not in banned(host)
