"""The cache: there for the receiver's processes and for nobody else, bounded, and without a trace on disk."""

from __future__ import annotations

import time
from typing import Any

import pytest
from testinfra.host import Host

from .conftest import Site

SOCKET = "/run/molam-valkey/valkey.sock"


@pytest.fixture(scope="module")
def name(host: Host, inventory: dict[str, Any]) -> str:
    """Return what the host's release calls it: valkey or redis. Skips where the inventory wants none."""
    if not inventory["valkey_enabled"]:
        pytest.skip("valkey_enabled is false")
    return "redis" if host.system_info.release.startswith("12") else "valkey"


def ask(host: Host, name: str, command: str, user: str = "molam_webhook_worker") -> str:
    """Return what the cache answers to a user, on one line, or why it does not."""
    return " ".join(host.run(f"runuser -u {user} -- {name}-cli -s {SOCKET} {command} 2>&1").stdout.split())


def test_runs_now_and_after_a_boot(host: Host, name: str) -> None:
    service = host.service(f"{name}-server")
    assert service.is_running
    assert service.is_enabled


@pytest.mark.parametrize("user", ["molam_webhook", "molam_webhook_worker", "root"])
def test_remembers_for_the_receivers_processes(host: Host, name: str, user: str) -> None:
    assert ask(host, name, "SET molam:test:host there EX 5", user) == "OK"
    assert ask(host, name, "GET molam:test:host", user) == "there"


@pytest.mark.parametrize("user", ["www-data", "nobody", "molam_webhook_owner"])
def test_nobody_else_gets_in(host: Host, name: str, user: str) -> None:
    assert "Permission denied" in ask(host, name, "PING", user)


def test_no_tcp(host: Host, name: str) -> None:
    sockets = host.check_output("ss --no-header --listening --tcp --processes")
    assert f"{name}-server" not in sockets
    assert ":6379" not in sockets


@pytest.mark.parametrize(
    "command",
    [
        "CONFIG GET maxmemory",
        "FLUSHALL",
        "SHUTDOWN NOSAVE",
        "EVAL x 0",
        "REPLICAOF a 1",
        "SAVE",
        "SET other x",
        "KEYS x",
    ],
)
def test_knows_no_more_than_it_must(host: Host, name: str, command: str) -> None:
    assert ask(host, name, command).startswith("NOPERM")


def test_is_bounded(host: Host, name: str) -> None:
    memory = ask(host, name, "INFO memory")
    assert "maxmemory_policy:allkeys-lru" in memory
    assert "maxmemory:0 " not in memory
    assert int(host.service(f"{name}-server").systemd_properties["MemoryMax"]) < 2**40


def test_writes_nothing_to_disk(host: Host, name: str) -> None:
    """It could not, either: an empty file there is what Debian's own settings left behind at the first start."""
    properties = host.service(f"{name}-server").systemd_properties
    assert (properties["ProtectSystem"], properties.get("ReadWritePaths", "")) == ("strict", "")
    assert host.check_output(f"find /var/lib/{name} -type f -newer {SOCKET}") == ""


def test_unit_is_sandboxed(host: Host, name: str) -> None:
    """systemd's own score: 0 is closed, 10 is open."""
    answer = host.check_output(f"systemd-analyze security --no-pager {name}-server.service | tail -n 1")
    assert float(answer.split(":")[1].split()[0]) <= 1.5


@pytest.mark.intrusive
def test_comes_back_when_it_is_killed(host: Host, name: str) -> None:
    killed = host.service(f"{name}-server").systemd_properties["MainPID"]
    host.check_output(f"kill -KILL {killed}")
    for _ in range(100):
        if ask(host, name, "PING") == "PONG":
            break
        time.sleep(0.1)
    assert host.service(f"{name}-server").systemd_properties["MainPID"] not in ("0", killed)


@pytest.mark.intrusive
def test_without_it_webhooks_are_taken(host: Host, name: str, site: Site, event: dict[str, Any]) -> None:
    host.check_output(f"systemctl stop {name}-server")
    try:
        assert site.send(event).status_code == 200
        assert site.request("GET", "/health").status_code == 200
    finally:
        host.check_output(f"systemctl start {name}-server")
