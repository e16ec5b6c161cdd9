"""What the firewall lets in, for whom, and what it leaves alone."""

from __future__ import annotations

import re
import time

import pytest
from testinfra.host import Host

from .conftest import ADMINISTRATOR, ATTACKER, RULES, SENDER, Target, ssh


def open_ports(caller: str, target: Target, family: int) -> set[str]:
    """Return the TCP ports on which something answers a caller."""
    address = target.ipv6 if family == 6 else target.ipv4
    scan = f"nmap {'-6' if family == 6 else ''} -Pn -n -p- --min-rate 10000 --max-retries 1 -oG - {address}"
    answer = ssh(caller, scan)
    assert answer.returncode == 0, answer.stderr
    assert "Nmap done" in answer.stdout
    return set(re.findall(r"(\d+)/open/", answer.stdout))


@pytest.mark.checklist("PRE-9", "NET-1")
@pytest.mark.parametrize("family", [4, 6])
def test_an_attacker_finds_the_web_alone(host: Host, target: Target, family: int) -> None:
    listening = host.check_output("ss --no-header --listening --tcp --numeric | awk '{print $4}'")
    assert ":22\n" in listening + "\n"
    assert open_ports(ATTACKER, target, family) == {"80", "443"}


@pytest.mark.parametrize("family", [4, 6])
def test_an_attacker_hears_nothing_over_udp(target: Target, family: int) -> None:
    """A port that is closed, and not dropped, would say so: those that are asked for most all keep silent."""
    address = target.ipv6 if family == 6 else target.ipv4
    scan = f"nmap {'-6' if family == 6 else ''} -sU -Pn -n --top-ports 50 --max-retries 0 -oG - {address}"
    answer = ssh(ATTACKER, scan)
    assert "Ignored State: open|filtered (50)" in answer.stdout, answer.stdout + answer.stderr


@pytest.mark.checklist("NET-1")
@pytest.mark.parametrize(("caller", "comes_in"), [(ADMINISTRATOR, True), (ATTACKER, False), (SENDER, False)])
@pytest.mark.parametrize("family", [4, 6])
def test_only_administrators_reach_ssh(target: Target, caller: str, family: int, *, comes_in: bool) -> None:
    address = target.ipv6 if family == 6 else target.ipv4
    knock = f"import socket; print(socket.create_connection(('{address}', 22), 3).recv(4))"
    answer = ssh(caller, f'python3 -c "{knock}"')
    assert ("SSH-" in answer.stdout) == comes_in, answer.stderr


@pytest.mark.checklist("NET-5")
def test_a_stranger_gets_so_many_connections_and_others_are_served(target: Target) -> None:
    """The scenario sets the limit to 100."""
    hold = (
        "import socket\nheld = []\n"
        "for _ in range(130):\n"
        "    try:\n"
        f"        held.append(socket.create_connection(('{target.ipv4}', 443), 0.2))\n"
        "    except OSError:\n"
        "        pass\n"
        "print(len(held))\n"
    )
    # Those of the tests before are still counted for a while.
    assert 0 < int(ssh(ATTACKER, "python3 -", hold).stdout) <= 100
    assert int(ssh(ADMINISTRATOR, "python3 -", hold).stdout) > 100
    # Those of the attacker are counted until they are over.
    deadline = time.monotonic() + 30
    while int(ssh(ATTACKER, "python3 -", hold).stdout) == 0:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("action", ["reload", "restart", "stop"])
def test_other_tables_are_left_alone(host: Host, action: str) -> None:
    host.check_output("nft add table inet theirs '{ set banned { type ipv4_addr; elements = { 198.18.0.1 }; }; }'")
    try:
        host.check_output(f"systemctl {action} nftables")
        assert "198.18.0.1" in host.check_output("nft list set inet theirs banned")
        assert (host.run("nft list table inet molam").rc == 0) == (action != "stop")
    finally:
        host.check_output("systemctl start nftables")
        host.check_output("nft delete table inet theirs")
    assert host.run("nft list table inet molam").rc == 0


def test_after_a_boot_what_nobody_kept_is_undone_and_the_rest_is_there(host: Host, target: Target) -> None:
    before = host.check_output(RULES)
    boot = "systemctl show --value --property=UserspaceTimestampMonotonic"
    booted = host.check_output(boot)
    host.check_output("sed -i 's/ 443 }/ 443, 8443 }/' /var/lib/molam-try/nftables && molam-try nftables --seconds 600")
    assert "8443" in host.check_output(RULES)
    ssh(target.ipv4, "systemctl reboot")
    deadline = time.monotonic() + 90
    while ssh(target.ipv4, boot).stdout.strip() in ("", booted):
        assert time.monotonic() < deadline, "it did not come back"
        time.sleep(0.5)
    assert ssh(target.ipv4, RULES).stdout.strip() == before
    assert ssh(target.ipv4, "molam-try nftables").stdout == "nftables: unchanged\n"
