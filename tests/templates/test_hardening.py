"""What the firewall, sshd and fail2ban are told, for each Debian release and for the variables that matter."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from .render import render

OFFICE: dict[str, Any] = {"ports": [22], "networks": ["198.18.7.0/24", "fd00:7::/64"], "purpose": "SSH"}
WEB: dict[str, Any] = {"ports": [80, 443], "networks": [], "purpose": "HTTP and HTTPS"}


def rules(folder: Path, **variables: Any) -> str:  # noqa: ANN401  any YAML value
    """Return the firewall's rules, which nft takes."""
    text = render("nftables", "molam.nft.j2", **variables)
    path = folder / "molam.nft"
    path.write_text(text)
    answer = subprocess.run(["/usr/sbin/nft", "--check", "--file", path], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return text


@pytest.mark.parametrize("networks", [[], ["198.18.7.0/24"], ["fd00:7::/64"], ["198.18.7.0/24", "fd00:7::/64"]])
def test_rules_hold_whatever_networks_are_named(tmp_path: Path, networks: list[str]) -> None:
    closed = [{"user": "root", "networks": networks}]
    text = rules(
        tmp_path,
        molam_administrator_networks=networks,
        molam_sender_networks=["198.18.7.0/25"],
        nftables_openings_of_roles=[OFFICE | {"networks": networks}, WEB],
        nftables_closed_users=closed,
    )
    assert "policy drop;" in text
    # An opening for nobody in particular is for everybody, which is why an empty list is refused for SSH.
    assert ("ip saddr { 198.18.7.0/24 } tcp dport { 22 } accept" in text) == ("198.18.7.0/24" in networks)
    assert ("ip6 saddr { fd00:7::/64 } tcp dport { 22 } accept" in text) == ("fd00:7::/64" in networks)


def test_rules_touch_no_other_table(tmp_path: Path) -> None:
    text = rules(tmp_path, nftables_openings_of_roles=[WEB])
    assert "flush" not in text
    tables = {line.split("table ")[1] for line in text.splitlines() if "table " in line and not line.startswith("#")}
    assert {table.removesuffix(" {") for table in tables} == {"inet molam"}


def test_openings_of_ones_own_come_beside_those_of_the_roles(tmp_path: Path) -> None:
    own = {"ports": [9100], "networks": ["198.18.9.9/32"], "purpose": "node-exporter"}
    text = rules(tmp_path, nftables_openings_of_roles=[OFFICE, WEB], nftables_openings=[own])
    assert 'ip saddr { 198.18.9.9/32 } tcp dport { 9100 } accept comment "node-exporter"' in text
    assert "tcp dport { 22 }" in text


def test_a_closed_user_may_stand_there_several_times(tmp_path: Path) -> None:
    """Whatever is allowed comes before the refusal."""
    closed: list[dict[str, Any]] = [
        {"user": "root", "networks": ["198.18.7.53/32"], "ports": [53]},
        {"user": "root", "networks": ["fd00:7::/64"]},
    ]
    text = rules(tmp_path, nftables_closed_users=closed)
    lines = [line.strip() for line in text.splitlines() if "skuid" in line]
    assert lines == [
        "meta skuid root ip daddr { 198.18.7.53/32 } meta l4proto { tcp, udp } th dport { 53 } accept",
        "meta skuid root ip6 daddr { fd00:7::/64 } accept",
        "meta skuid root counter reject",
    ]


@pytest.mark.parametrize("debian", [12, 13])
def test_sshd_takes_keys_alone(debian: int) -> None:
    settings = dict(
        line.split(" ", 1)
        for line in render("sshd", "sshd.conf.j2", debian=debian).splitlines()
        if line and not line.startswith("#")
    )
    assert settings["AuthenticationMethods"] == "publickey"
    assert settings["PasswordAuthentication"] == settings["KbdInteractiveAuthentication"] == "no"
    assert settings["PermitRootLogin"] == "prohibit-password"
    assert settings["AllowGroups"] == "root sudo"


@pytest.mark.parametrize(
    ("senders", "jails"), [([], {"sshd", "scanner"}), (["198.18.8.0/24"], {"sshd", "scanner", "forger"})]
)
def test_forgers_are_banned_only_where_the_sender_is_known(senders: list[str], jails: set[str]) -> None:
    text = render(
        "fail2ban", "jail.local.j2", molam_administrator_networks=["198.18.7.0/24"], molam_sender_networks=senders
    )
    found = {line.strip("[]").removeprefix("molam-") for line in text.splitlines() if line.startswith("[")}
    assert found == jails | {"DEFAULT"}
    trusted = next(line for line in text.splitlines() if line.startswith("ignoreip"))
    assert trusted.split(" = ")[1].split() == ["127.0.0.0/8", "::1", "198.18.7.0/24", *senders]
    site = render("nginx", "site.conf.j2", molam_sender_networks=senders)
    assert ("forger;" in site) == ("forger" in jails)
