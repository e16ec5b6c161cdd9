"""Who reaches the host, and how often: looked at from here and from the host itself, without an attack."""

from __future__ import annotations

import concurrent.futures
import json
import re
import socket
import subprocess
from typing import Any

import pytest
from testinfra.host import Host

from tests.conftest import Saw, not_applicable, not_testable

from .conftest import WEBHOOK_PATH, Site

# What is found open most often where it should not be.
PORTS = {21, 23, 25, 53, 110, 111, 139, 143, 389, 445, 873, 1433, 2375, 3000, 3306, 3389, 5000, 5432, 5900}
PORTS |= {6379, 8000, 8080, 8443, 9000, 9090, 9100, 9200, 11211, 27017}
FORGERIES_AT_MOST = 200

# Forges until it is told to wait, from an address of the loopback's that nobody else has.
STRANGER = r"""
import collections, http.client, json, random, socket, ssl, time
here = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"
trust = ssl.create_default_context(); trust.check_hostname = False; trust.verify_mode = ssl.CERT_NONE
plain = socket.create_connection(("127.0.0.1", 443), 10, (here, 0))
door = http.client.HTTPSConnection("@DOMAIN@", timeout=10)
door.sock = trust.wrap_socket(plain, server_hostname="@DOMAIN@")
told = collections.Counter()
for _ in range(@TIMES@):
    forged = f"t={int(time.time() * 1000)},v1={'0' * 64}"
    door.request("POST", "@PATH@", "{}", {"Content-Type": "application/json", "Molam-Signature": forged})
    answer = door.getresponse(); answer.read()
    told[answer.status] += 1
    if answer.status == 429:
        break
print(json.dumps(told))
"""


def answers(address: str, port: int) -> bool:
    """Say whether something answers there within two seconds."""
    try:
        socket.create_connection((address, port), 2).close()
    except OSError:
        return False
    return True


@pytest.mark.checklist("NET-1", "PRE-9")
def test_nothing_answers_but_the_web_and_ssh(host: Host, site: Site, inventory: dict[str, Any], saw: Saw) -> None:
    """What listens there is tried, and what is found open elsewhere; what the inventory opens to somebody may be."""
    listening = host.check_output("ss --no-header --listening --tcp --numeric | awk '{print $4}'").split()
    ours = {int(address.rpartition(":")[2]) for address in listening if not address.startswith(("127.", "[::1]"))}
    named = {
        int(port) for opening in inventory["nftables_openings"] if opening["networks"] for port in opening["ports"]
    }
    tried = (ours | PORTS) - {80, 443, inventory["ansible_port"]} - named
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        found = dict(zip(tried, pool.map(lambda port: answers(site.address, port), tried), strict=True))
    saw(f"{len(tried)} other ports tried from here, {sum(found.values())} answer")
    assert answers(site.address, 443)
    assert [port for port, is_open in found.items() if is_open] == []


@pytest.mark.checklist("NET-2")
def test_no_password_is_asked_for(site: Site, inventory: dict[str, Any], saw: Saw) -> None:
    options = ["BatchMode=yes", "PubkeyAuthentication=no", "ConnectTimeout=5", "ControlPath=none"]
    # Whose key the server has is no matter: nothing is said to it.
    options += ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    command = ["ssh", "-F", "none", f"-p{inventory['ansible_port']}", *(f"-o{option}" for option in options)]
    answer = subprocess.run([*command, f"root@{site.address}", "true"], capture_output=True, text=True, check=False)
    if "Permission denied" not in answer.stderr:
        assert answer.returncode == 255, "it let somebody in without a key"
        not_testable("this machine does not reach SSH directly")
    saw(f"from here, without a key: {answer.stderr.strip().rpartition(': ')[2]}")
    assert "Permission denied (publickey)." in answer.stderr


@pytest.mark.checklist("NET-3")
def test_a_ban_outlives_the_firewall_and_meets_nobody_who_is_known(
    host: Host, inventory: dict[str, Any], saw: Saw
) -> None:
    known = set(inventory["molam_administrator_networks"]) | set(inventory["molam_sender_networks"])
    jails = host.check_output("fail2ban-client status | sed -n 's/.*Jail list:\\s*//p'").replace(",", "").split()
    for jail in jails:
        ignored = host.check_output(f"fail2ban-client get {jail} ignoreip")
        assert [network for network in known if network.removesuffix("/32").removesuffix("/128") not in ignored] == []
    # Debian's unit would take every ban with it.
    unit = host.check_output("systemctl show --property=ExecStart,ExecReload,ExecStop nftables")
    saw(f"jails {', '.join(jails)} never ban {len(known)} known networks; the firewall's unit flushes no other table")
    assert {"sshd", "molam-scanner"} <= set(jails)
    assert "flush" not in unit
    assert "/etc/nftables.conf" not in unit


@pytest.mark.checklist("PRE-8")
def test_a_forger_is_told_to_wait(host: Host, site: Site, inventory: dict[str, Any], saw: Saw) -> None:
    """From the host itself, as an address of its own: each is counted alone, so nobody else is told to wait."""
    limit = int(inventory["webhook_app_failure_limit"])
    if limit > FORGERIES_AT_MOST:
        not_testable(f"webhook_app_failure_limit is {limit}: too many to send to a host that serves")
    program = STRANGER.replace("@DOMAIN@", site.domain).replace("@PATH@", WEBHOOK_PATH)
    program = program.replace("@TIMES@", str(2 * limit + 5))
    told = json.loads(host.check_output(f"python3 - <<'END'\n{program}\nEND"))
    saw(f"{told.get('401', 0)} forgeries of one address are refused, the next is told to wait")
    # A new minute may have begun in between.
    assert told.get("429") == 1
    assert limit <= told["401"] <= 2 * limit


@pytest.mark.checklist("PRE-8", "NET-5")
def test_a_stranger_has_so_many_requests(host: Host, saw: Saw) -> None:
    """What is in nginx's settings. A flood shows that it works, and is not for a host that serves."""
    settings = host.check_output("nginx -T -c /etc/nginx/molam.conf 2>/dev/null")
    limits = re.findall(r"^\s*((?:limit_req|limit_conn) .*);$", settings, re.MULTILINE)
    rates = re.findall(r"zone=molam_strangers:\S+ rate=(\S+);", settings)
    saw(f"strangers have {', '.join(rates) or 'no rate'}; {len(limits)} limits in use")
    assert any(limit.startswith("limit_req zone=molam_strangers ") for limit in limits)
    assert any(limit.startswith("limit_conn molam_strangers_at_once ") for limit in limits)
    assert len(rates) == 1


@pytest.mark.checklist("NET-5")
def test_a_stranger_has_so_many_connections(host: Host, saw: Saw) -> None:
    rules = host.check_output("nft --stateless list table inet molam")
    assert "tcp dport { 80, 443 } jump limits" in rules
    limits = [line.strip() for line in rules.splitlines() if "limit rate over" in line or "ct count over" in line]
    saw(f"{len(limits)} limits of connections stand before ports 80 and 443")
    assert len(limits) == 4


@pytest.mark.checklist("NET-5")
def test_a_cdn_is_believed_and_nobody_else(host: Host, inventory: dict[str, Any], saw: Saw) -> None:
    if not (inventory["nginx_cdn"] or inventory["nginx_trusted_proxies"]):
        not_applicable("neither nginx_cdn nor nginx_trusted_proxies names anybody in front of the host")
    settings = host.check_output("nginx -T -c /etc/nginx/molam.conf 2>/dev/null")
    believed = settings.count("set_real_ip_from ")
    saw(f"{believed} networks of {inventory['nginx_cdn'] or 'proxies'} may say whom they call for")
    assert believed > 0
    assert "real_ip_recursive on;" in settings
    assert not any(f"set_real_ip_from {everybody};" in settings for everybody in ("0.0.0.0/0", "::/0"))
