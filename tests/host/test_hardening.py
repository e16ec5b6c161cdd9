"""Firewall, SSH and intrusion prevention as they are in use, without an attack."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.conftest import Saw


@pytest.mark.checklist("PRE-9", "NET-1")
def test_what_is_not_let_in_is_dropped(host: Host, saw: Saw) -> None:
    rules = host.check_output("nft --stateless list chain inet molam input")
    assert "policy drop;" in rules
    assert "tcp dport { 80, 443 } accept" in rules
    # All else is for networks that are named.
    opened = [
        line.strip() for line in rules.splitlines() if "dport" in line and "accept" in line and "saddr" not in line
    ]
    saw(f"policy drop; open to everybody: {'; '.join(opened)}")
    assert [line for line in opened if not line.startswith("tcp dport { 80, 443 } accept")] == []


@pytest.mark.checklist("PRE-9")
@pytest.mark.parametrize("unit", ["nftables", "fail2ban", "undo-changes"])
def test_guards_are_there_after_a_boot(host: Host, unit: str) -> None:
    assert host.service(unit).is_enabled


def test_nothing_is_being_tried(host: Host) -> None:
    """A change of firewall or SSH that nobody kept is undone by itself, so the host differs from what was asked for."""
    assert host.check_output("find /var/lib/molam-try -name '*.before'") == ""
    for change in ("nftables", "sshd"):
        assert host.check_output(f"molam-try {change} --dry-run") == f"{change}: unchanged"


@pytest.mark.checklist("NET-2")
def test_sshd_takes_keys_alone(host: Host) -> None:
    settings = host.check_output("sshd -T").splitlines()
    for wanted in ("passwordauthentication no", "kbdinteractiveauthentication no", "authenticationmethods publickey"):
        assert wanted in settings
    assert "permitrootlogin yes" not in settings


@pytest.mark.checklist("NET-3")
def test_jails_watch(host: Host) -> None:
    jails = host.check_output("fail2ban-client status")
    assert "sshd" in jails
    assert "molam-scanner" in jails


@pytest.mark.checklist("NET-5")
@pytest.mark.parametrize(
    ("setting", "value"),
    [("net/ipv4/tcp_syncookies", "1"), ("net/ipv4/conf/all/accept_redirects", "0"), ("net/core/somaxconn", "4096")],
)
def test_kernel_is_set(host: Host, setting: str, value: str) -> None:
    assert host.check_output(f"cat /proc/sys/{setting}") == value


@pytest.mark.parametrize("protocol", ["dccp", "rds", "sctp", "tipc"])
def test_the_kernel_loads_no_protocol_that_nobody_speaks(host: Host, protocol: str) -> None:
    assert f"install {protocol} /bin/true" in host.check_output("/usr/sbin/modprobe --showconfig").splitlines()


def test_no_process_leaves_its_memory_on_the_disk(host: Host) -> None:
    assert host.check_output("systemctl show --value --property=DefaultLimitCORE") == "0"
