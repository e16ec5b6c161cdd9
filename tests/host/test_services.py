"""What runs, where it listens, and that it is there again after a boot."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.conftest import Saw


@pytest.mark.parametrize("unit", ["molam-webhook@{slot}", "molam-webhook-worker@{slot}", "nginx", "postgresql"])
def test_runs(host: Host, slot: str, unit: str) -> None:
    assert host.service(unit.format(slot=slot)).is_running


def test_the_idle_slot_is_stopped(host: Host, slot: str) -> None:
    idle = "b" if slot == "a" else "a"
    assert not host.service(f"molam-webhook@{idle}").is_running
    assert not host.service(f"molam-webhook-worker@{idle}").is_running


@pytest.mark.parametrize("unit", ["molam", "nginx", "postgresql"])
def test_starts_at_boot(host: Host, unit: str) -> None:
    assert host.service(unit).is_enabled


def test_no_unit_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --no-legend --plain") == ""


def test_only_ssh_and_web_listen(host: Host) -> None:
    """PostgreSQL and the receiver are reached over Unix sockets; TCP is for SSH and nginx."""
    listening = host.check_output("ss --no-header --listening --tcp --numeric | awk '{print $4}'").split()
    public = {address.rpartition(":")[2] for address in listening if not address.startswith(("127.", "[::1]"))}
    local = {address for address in listening if address.startswith(("127.", "[::1]"))}
    assert public == {"22", "80", "443"}
    assert not any(address.endswith((":5432", ":8000")) for address in local)


@pytest.mark.parametrize("port", ["80", "443"])
def test_web_listens_on_both_protocols(host: Host, port: str) -> None:
    listening = host.check_output("ss --no-header --listening --tcp --numeric | awk '{print $4}'").split()
    assert f"0.0.0.0:{port}" in listening
    assert f"[::]:{port}" in listening


def test_current_socket_names_the_slot_in_use(host: Host, slot: str) -> None:
    assert host.check_output("readlink /run/molam-webhook/current.sock") == f"{slot}.sock"
    assert host.file(f"/run/molam-webhook/{slot}.sock").is_socket


@pytest.mark.checklist("OPS-5")
def test_release_is_whole(host: Host, saw: Saw) -> None:
    """The slot runs a release whose sums were checked, and which is not the working tree of the host."""
    release = host.check_output("readlink -f /opt/molam-webhook/active")
    assert release.startswith("/opt/molam-webhook/releases/")
    assert host.file(f"{release}/complete").exists
    files = host.check_output(f"cd {release} && wc --lines <SHA256SUMS")
    saw(f"the sums of {files} files of {release} were compared")
    assert host.run(f"cd {release} && sha256sum --check --strict --quiet SHA256SUMS").rc == 0
