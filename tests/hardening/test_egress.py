"""What the receiver, the worker and the worker's user may connect to, over IPv4 and IPv6."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from .conftest import ATTACKER, SENDER, Target, ssh

# By name; the sender's second port is opened for these tests alone.
PLACES = {
    f"{name}, IPv{family}": (address if family == 4 else address.replace("10.89.77.", "fd89:77::"), port)
    for name, address, port in (
        ("sender", SENDER, 22),
        ("sender's other port", SENDER, 8022),
        ("attacker", ATTACKER, 22),
    )
    for family in (4, 6)
}
SENDERS = {"sender, IPv4", "sender, IPv6"}
OTHERS = {"sender's other port, IPv4", "sender's other port, IPv6"}
EVERYTHING = set(PLACES)

# Prints the names of the places that are reached, one a line, all tried at once.
KNOCK = f"""
import concurrent.futures, socket
def knock(place):
    try:
        socket.create_connection(place[1], 3).close()
    except OSError:
        return ""
    return place[0]
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print("\\n".join(filter(None, pool.map(knock, {PLACES}.items()))))
"""

# The program in place of the unit's own, in an instance of its own: its sandbox and its reach stay what they are.
INSTEAD = """
[Service]
Type=oneshot
Restart=no
EnvironmentFile=
LoadCredentialEncrypted=
ExecStart=
ExecStart=/usr/bin/python3 /usr/local/lib/knock.py
StandardOutput=truncate:/run/knock
"""


@pytest.fixture(scope="module", autouse=True)
def _listener() -> None:
    """Have the sender's host listen on another port too, for as long as it is there: each target's tests need it."""
    listen = "systemd-run --quiet --unit=listener python3 -m http.server --bind :: 8022"
    assert ssh(SENDER, f"{listen} || systemctl is-active --quiet listener").returncode == 0


@pytest.fixture(scope="module", autouse=True)
def _program(host: Host) -> Iterator[None]:
    """Put the program on the host."""
    host.check_output(f"printf %s {shlex.quote(KNOCK)} > /usr/local/lib/knock.py")
    yield
    host.check_output("rm -f /usr/local/lib/knock.py /run/knock")


def reached_by_unit(host: Host, unit: str) -> set[str]:
    """Return the places that a process of a unit reaches."""
    folder = f"/run/systemd/system/{unit}@knock.service.d"
    host.check_output(f"mkdir -p {folder} && printf %s {shlex.quote(INSTEAD)} > {folder}/90-knock.conf")
    try:
        host.check_output(f"systemctl daemon-reload && systemctl start {unit}@knock")
        return set(host.check_output("cat /run/knock").splitlines()) - {""}
    finally:
        host.check_output(f"rm -r {folder} && systemctl daemon-reload")


def reached_by_user(host: Host, user: str) -> set[str]:
    """Return the places that a process of a user reaches, outside of any unit of ours."""
    return set(host.check_output(f"runuser -u {user} -- python3 /usr/local/lib/knock.py").splitlines()) - {""}


def test_the_receiver_has_no_network(host: Host) -> None:
    unit = host.check_output("systemctl list-units --plain --no-legend 'molam-webhook@*' | cut -d' ' -f1")
    process = host.check_output(f"systemctl show --value --property=MainPID {unit}")
    assert host.check_output(f"nsenter --target={process} --net ip -o link | cut -d: -f2").split() == ["lo"]
    assert reached_by_unit(host, "molam-webhook") == set()


def test_the_worker_reaches_what_its_unit_names_and_nothing_by_default(host: Host, target: Target) -> None:
    assert reached_by_unit(host, "molam-webhook-worker") == (SENDERS if "hard13" in target.domain else set())


def test_a_closed_user_reaches_what_is_named_for_it(host: Host, target: Target) -> None:
    """However its process was started. Everybody else is as free as before."""
    closed = "hard13" in target.domain
    assert reached_by_user(host, "molam_webhook_worker") == (SENDERS if closed else EVERYTHING)
    assert reached_by_user(host, "root") == EVERYTHING
