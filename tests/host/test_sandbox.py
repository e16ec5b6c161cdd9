"""What somebody could do who has taken over one of our processes: try to get out of its sandbox, and fail."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testinfra.host import Host

pytestmark = pytest.mark.intrusive

# Prints what could be done, by name. Run as root outside of the sandbox it can do all of it.
BREAK_OUT = r"""
import ctypes, json, os, pathlib, socket

def read(path):
    return lambda: open(path).read(1)

def write(path):
    def attempt():
        with open(path, "a"):
            pass
        os.remove(path)
    return attempt

def connect(*address):
    def attempt():
        try:
            socket.create_connection(address, 3).close()
        except ConnectionRefusedError:
            # It got as far as that.
            pass
    return attempt

def see_others():
    others = [entry for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit() and entry.stat().st_uid == 0]
    assert others, "no process of root's is seen"

def become_root():
    os.setuid(0)
    assert os.getuid() == 0
    open("/etc/shadow").close()

def new_namespace():
    assert ctypes.CDLL(None, use_errno=True).unshare(0x10000000) == 0, "refused"

def run_what_was_written():
    import mmap
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)

ATTEMPTS = {
    "read the passwords": read("/etc/shadow"),
    "read a secret of ours": read(os.environ["SECRET"]),
    "read the key of TLS": read("/etc/molam-tls/privkey.pem"),
    "read the database's files": lambda: os.listdir(os.environ["DATA"]),
    "read a home": lambda: os.listdir("/root"),
    "write a program": write("/usr/local/bin/evil"),
    "write a setting": write("/etc/evil"),
    "write a release": write("/opt/molam-webhook/releases/evil"),
    "see root's processes": see_others,
    "become root": become_root,
    "make a user namespace": new_namespace,
    "run what it has written": run_what_was_written,
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP).close(),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "connect to a stranger": connect(os.environ["STRANGER"], 22),
    "connect to nginx": connect("127.0.0.1", 443),
}
done = []
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
    except (OSError, AssertionError, PermissionError):
        continue
    done.append(name)
print(json.dumps(done))
"""


@pytest.fixture
def attempts(host: Host) -> Iterator[str]:
    """Put the attempts on the host; the command that makes them."""
    path = "/usr/local/lib/molam-break-out.py"
    host.check_output(f"cat > {path} <<'END'\n{BREAK_OUT}\nEND")
    slot = host.check_output("basename $(readlink /opt/molam-webhook/active)")
    secret = host.check_output(f"ls /etc/molam-webhook/slots/{slot}/*.cred | head -n 1")
    data = host.check_output("ls -d /var/lib/postgresql/*/main")
    stranger = host.check_output("ip route show default").split()[2]
    yield f"env SECRET={secret} DATA={data} STRANGER={stranger} python3 {path}"
    host.check_output(f"rm {path}")


@pytest.mark.parametrize("user", ["molam_webhook", "molam_webhook_worker"])
def test_nobody_gets_out_of_the_sandbox(host: Host, attempts: str, user: str) -> None:
    """The sandbox belongs to every unit whose name begins with molam-, so to this one."""
    run = f"systemd-run --quiet --collect --wait --pipe --unit=molam-break-out --property=User={user} {attempts}"
    assert json.loads(host.check_output(run)) == []


def test_a_self_test_by_the_front_door_gets_no_further(host: Host, attempts: str) -> None:
    run = "systemd-run --quiet --collect --wait --pipe --unit=molam-door-break-out --property=User=molam_webhook"
    assert json.loads(host.check_output(f"{run} {attempts}")) == ["connect to nginx"]


def test_the_attempts_are_real(host: Host, attempts: str) -> None:
    """Without a sandbox root can do each of these; the others depend on the host's kernel."""
    done = set(json.loads(host.check_output(attempts)))
    assert done >= {
        "read the passwords",
        "read a secret of ours",
        "read the key of TLS",
        "read the database's files",
        "write a program",
        "write a setting",
        "see root's processes",
        "run what it has written",
        "connect to a stranger",
        "connect to nginx",
    }
