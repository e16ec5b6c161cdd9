"""The two slots, a and b: what each holds, and its units.

A slot is a link to a release, with a copy of the settings and keys of its own. One serves; the other is idle.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

from .system import SwitchError, keep, link, run

ROOT = Path("/opt/molam-webhook")
RELEASES = ROOT / "releases"
# Which slot serves: the truth that outlives a reboot.
ACTIVE = ROOT / "active"
SETTINGS = Path("/etc/molam-webhook")
# What the next switch takes; what a slot runs with is its own copy.
WANTED = SETTINGS / "settings"
UNITS = Path("/etc/systemd/system")
# What a slot's units are made from. Others have names that begin with molam- too, and are no reason to switch.
UNIT_FILES = ("molam-webhook*@.service", "molam-webhook*@.service.d/*", "molam-.service.d/*")
# Of these each slot has a copy, which systemd prefers: what is new reaches no slot that serves, as it is started again
# after a crash or a reboot. New ones name secrets that are not among that slot's.
OWN_UNIT_FILES = ("", ".d/20-limits.conf", ".d/50-reach.conf")
SOCKETS = Path("/run/molam-webhook")
ADMIN = Path("/run/molam-webhook-admin")
# What nginx connects to: a link to the socket of the slot that serves.
CURRENT = SOCKETS / "current.sock"
STATE = Path("/var/lib/molam-webhook")
SLOTS = ("a", "b")


def units(slot: str) -> tuple[str, str]:
    """Return the units of a slot, the receiver first."""
    return f"molam-webhook@{slot}.service", f"molam-webhook-worker@{slot}.service"


def migration(slot: str) -> str:
    """Return the unit that migrates the database with the release of a slot."""
    return f"molam-webhook-migrate@{slot}.service"


def socket(slot: str) -> Path:
    """Return the socket on which the receiver of a slot listens."""
    return SOCKETS / f"{slot}.sock"


def active() -> str | None:
    """Return the slot in use; None before the first switch."""
    return ACTIVE.readlink().name if ACTIVE.is_symlink() else None


def other(slot: str | None) -> str:
    """Return the slot that is not that one."""
    return SLOTS[1] if slot == SLOTS[0] else SLOTS[0]


def release_of(slot: str) -> str:
    """Return the name of the release that a slot holds."""
    return (ROOT / "slots" / slot).readlink().name


def settings_of(slot: str) -> Path:
    """Return the folder with a slot's own copy of the settings and keys."""
    return SETTINGS / "slots" / slot


def program(slot: str) -> Path:
    """Return the program of the release that a slot holds."""
    return ROOT / "slots" / slot / "run"


def runs(slot: str) -> bool:
    """Whether receiver and worker of a slot are up."""
    return run("systemctl", "is-active", "--quiet", *units(slot)).returncode == 0


def serves(slot: str) -> bool:
    """Whether a slot is up and nginx is led to it."""
    return runs(slot) and CURRENT.is_symlink() and CURRENT.readlink().name == socket(slot).name


def fingerprint(release: str) -> str:
    """Return the SHA-256 of all that a slot's processes would be made from now."""
    digest = hashlib.sha256(release.encode())
    unit_files = [path for pattern in UNIT_FILES for path in sorted(UNITS.glob(pattern))]
    for path in [*sorted(WANTED.iterdir()), *unit_files]:
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def made_from(slot: str) -> str:
    """Return the fingerprint with which a slot was put in use; nothing where it never was."""
    written = STATE / f"slot-{slot}"
    return written.read_text() if written.exists() else ""


def fill(slot: str, release: str) -> None:
    """Give a slot that is not in use a release, and copies of the settings and of its units' files."""
    link(ROOT / "slots" / slot, f"../releases/{release}")
    shutil.rmtree(settings_of(slot), ignore_errors=True)
    shutil.copytree(WANTED, settings_of(slot))
    copies = [*settings_of(slot).iterdir()]
    for unit in (*units(slot), migration(slot)):
        (UNITS / f"{unit}.d").mkdir(exist_ok=True)
        template = unit.replace(f"@{slot}.", "@.")
        copies += [Path(shutil.copy(UNITS / f"{template}{name}", UNITS / f"{unit}{name}")) for name in OWN_UNIT_FILES]
    # Those modules, too, which start it at a boot.
    keep(*copies, *{path.parent for path in copies}, ROOT / "slots", *Path(__file__).parent.glob("*.py"))
    run("systemctl", "daemon-reload")


def start(*names: str) -> None:
    """Start units side by side and wait until they are ready; raise SwitchError with the journals when one fails."""
    since = time.time()
    if run("systemctl", "start", *names).returncode != 0:
        failed = [name for name in names if run("systemctl", "is-active", "--quiet", name).returncode != 0]
        raise SwitchError("\n".join(_journal(name, since) for name in failed or names))


def _journal(unit: str, since: float) -> str:
    """Return what a unit has said since then (seconds of the epoch), and systemd about it."""
    run("journalctl", "--sync")
    said = run("journalctl", f"--unit={unit}", f"--since=@{since}", "--lines=20", "--no-pager", "--output=cat").stdout
    return f"{unit} failed; the end of its journal:\n{said.strip() or '(nothing)'}"


def leave(slot: str) -> None:
    """Have a slot answer what it has in hand and stop, which its units do by themselves: it is not waited for."""
    run("systemctl", "stop", "--no-block", *units(slot))


def stop(slot: str) -> None:
    """Have a slot stopped when this returns. A process that was killed left its sockets behind.

    What failed of it was told, and is no matter of a host that serves: molam-check would tell of it every minute.
    """
    run("systemctl", "stop", *units(slot), migration(slot))
    run("systemctl", "reset-failed", *units(slot), migration(slot))
    for left in (socket(slot), ADMIN / f"receiver-{slot}.sock", ADMIN / f"worker-{slot}.sock"):
        left.unlink(missing_ok=True)


def lead_to(slot: str) -> None:
    """Lead nginx to a slot."""
    link(CURRENT, socket(slot).name)


def put_in_use(slot: str, made_from: str) -> None:
    """Make a slot that is up the one that serves: now, and after a reboot. Raises SwitchError or OSError."""
    # First, since what is linked is taken for done by the next run of one that was cut off. To enable it again would
    # have systemd read all its units once more.
    if run("systemctl", "is-enabled", "--quiet", "molam.service").returncode != 0:
        _must("systemctl", "enable", "--quiet", "molam.service")
    _must("systemctl", "start", "molam.service")
    (STATE / f"slot-{slot}").write_text(made_from)
    link(ACTIVE, f"slots/{slot}")
    lead_to(slot)


def _must(*command: str) -> None:
    answer = run(*command)
    if answer.returncode != 0:
        raise SwitchError(f"{' '.join(command)}: {answer.stderr.strip()}")


def bring_back(slot: str) -> None:
    """Start a slot that ought to serve, and lead nginx to it."""
    lead_to(slot)
    run("systemctl", "start", *units(slot))
