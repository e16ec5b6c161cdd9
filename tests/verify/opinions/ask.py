"""Asks outside tools for their opinion of a host: those that are installed there, or here. It installs none.

What runs on the host gets what its services leave of processor and disk, ends within minutes, and leaves nothing.
"""

from __future__ import annotations

import importlib.metadata
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from testinfra.host import Host

from tests.host.conftest import SITE
from tests.host.inventory import ask as ask_inventory
from tests.verify.opinions import debsecan, lynis, openscap, ssh_audit, systemd_analyze, testssl
from tests.verify.opinions.answers import answered
from tests.verify.opinions.opinion import NoOpinionError, Opinion
from tests.verify.result import shortened
from tests.verify.target import STATE, VerifyError

SECONDS_AT_MOST = 600
# A transient unit: its processes end with it, and so does its directory, which is all that it has to itself. /tmp and
# the rest of the file system are the host's, as that is what tools look at.
BOUNDED = (
    "systemd-run --quiet --wait --pipe --collect --property=RuntimeDirectory=molam-opinion "
    "--property=RuntimeDirectoryMode=0700 --property=Nice=19 --property=IOSchedulingClass=idle --property=CPUWeight=1 "
    "--property=IOWeight=1 --property=OOMScoreAdjust=1000 --property=MemoryMax=1G "
    f"--property=RuntimeMaxSec={SECONDS_AT_MOST}"
)
# Characters of a note: what a tool says may be long.
NOTE = 500
CONTAINER = "container"
ENDED = "molam-opinion-ended"
# Of the inventory, by expression.
WANTED = {name: SITE[name] for name in ("address", "domain", "ca")} | {"ssh_port": "ansible_port | default(22)"}
# A data stream that was brought by hand, for a release that the host's and this machine's package do not know.
BROUGHT = STATE / "scap"


@dataclass(frozen=True)
class Place:
    """Where a host is seen from here, and what it is: Debian's major version, and its kinds (`CONTAINER`)."""

    address: str
    domain: str
    ssh_port: int
    ca: Path | None
    debian: str
    kinds: frozenset[str]


def chosen(names: str) -> list[str]:
    """Return the tools that an option names, with commas between, or all where it names none; raise VerifyError."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if unknown := [name for name in wanted if name not in TOOLS]:
        raise VerifyError(f"--opinions: there is no {', no '.join(unknown)}. There are: {', '.join(TOOLS)}.")
    return wanted or list(TOOLS)


def ask(host: Host, tools: Iterable[str]) -> list[Opinion]:
    """Return the opinion of each of these tools (`chosen`); raise VerifyError where the inventory can't be read."""
    where = place(host)
    return [opinion(name, host, where) for name in tools]


def place(host: Host) -> Place:
    """Return where a host is and what it is; raise VerifyError."""
    try:
        said = ask_inventory(host, WANTED)
    except ValueError as error:
        raise VerifyError(f"its inventory can't be read: {error}") from None
    return Place(
        address=said["address"],
        domain=said["domain"],
        ssh_port=int(said["ssh_port"]),
        ca=Path(said["ca"]) if said["ca"] else None,
        debian=host.system_info.release.partition(".")[0],
        kinds=frozenset({CONTAINER} if host.run("systemd-detect-virt --quiet --container").rc == 0 else ()),
    )


def opinion(name: str, host: Host, where: Place) -> Opinion:
    """Return the opinion of one tool; one that gives none says why."""
    try:
        return answered(TOOLS[name](host, where), where.kinds)
    except NoOpinionError as error:
        return Opinion(name, note=shortened(str(error), NOTE))


def _lynis(host: Host, _: Place) -> Opinion:
    _need(host, "lynis", "lynis")
    # Lynis takes its lock away itself, unless it is cut off.
    return lynis.read(_bounded(host, lynis.COMMAND, "rm -f /run/lynis.pid"))


def _debsecan(host: Host, _: Place) -> Opinion:
    _need(host, "debsecan", "debsecan")
    return debsecan.read(_bounded(host, debsecan.COMMAND), _version(host, "debsecan"))


def _systemd_analyze(host: Host, _: Place) -> Opinion:
    # It takes a moment, and a unit around it would be in the list.
    return systemd_analyze.read(str(host.run(systemd_analyze.COMMAND).stdout))


def _openscap(host: Host, where: Place) -> Opinion:
    _need(host, "oscap", "openscap-scanner")
    own = Path(openscap.CONTENT.format(debian=where.debian))
    evaluate = partial(_bounded, host, cleanup="rm -rf /tmp/oscap.*")
    if host.file(str(own)).exists:
        return openscap.read(evaluate(openscap.command(str(own))))
    here = next((path for path in (BROUGHT / own.name, own) if path.exists()), None)
    if here is None:
        raise NoOpinionError(
            f"there is no {own.name} on the host or here: package ssg-debian, as far as it knows Debian {where.debian} "
            f"(Debian 13's knows 11 and 12). A copy goes into {BROUGHT.relative_to(STATE.parent)}/ on this machine."
        )
    there = f"/run/molam-opinion-{own.name}"
    try:
        sent = host.ansible("copy", f"src={here} dest={there} mode=0600", check=False)
        if sent.get("failed"):
            raise NoOpinionError(f"{own.name} could not be sent there: {sent.get('msg', sent)}")
        return openscap.read(evaluate(openscap.command(there)))
    finally:
        host.run("rm -f %s", there)


def _ssh_audit(_: Host, where: Place) -> Opinion:
    try:
        version = importlib.metadata.version("ssh-audit")
    except importlib.metadata.PackageNotFoundError:
        raise NoOpinionError("not installed here: run scripts/setup --test") from None
    return ssh_audit.read(_here(ssh_audit.command(where.address, where.ssh_port, where.debian)), version)


def _testssl(_: Host, where: Place) -> Opinion:
    program = shutil.which("testssl") or shutil.which("testssl.sh")
    if not program:
        raise NoOpinionError("not installed here: package testssl.sh")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        told = _here(testssl.command(program, where.address, where.domain, str(result), where.ca))
        if not result.exists():
            raise NoOpinionError(f"the host was not tested: {told.strip()[-300:]}")
        return testssl.read(result.read_text(), _here([program, "--version"]))


# By the names that the option takes.
TOOLS: dict[str, Callable[[Host, Place], Opinion]] = {
    lynis.NAME: _lynis,
    testssl.NAME: _testssl,
    ssh_audit.NAME: _ssh_audit,
    debsecan.NAME: _debsecan,
    systemd_analyze.NAME: _systemd_analyze,
    openscap.NAME: _openscap,
}


def _need(host: Host, program: str, package: str) -> None:
    if host.run("command -v %s", program).rc != 0:
        raise NoOpinionError(f"not installed on the host: package {package}")


def _version(host: Host, package: str) -> str:
    return str(host.run("dpkg-query --show --showformat='${Version}' %s", package).stdout)


def _bounded(host: Host, command: str, cleanup: str = "") -> str:
    """Return what a command prints on the host, with no more of its resources than nobody else wants."""
    after = f" --property={shlex.quote(f'ExecStopPost=-/bin/sh -c {shlex.quote(cleanup)}')}" if cleanup else ""
    # Tools exit as they find: that one came to its end is said by what comes after it.
    script = shlex.quote(f"{command}\necho {ENDED}")
    answer = host.run(f"{BOUNDED}{after} sh -c {script}")
    said, ended, _ = str(answer.stdout).rpartition(ENDED)
    if not ended:
        raise NoOpinionError(f"it did not come to its end, for which it has {SECONDS_AT_MOST} s: {answer.stderr}")
    return said


def _here(command: list[str]) -> str:
    """Return what a command prints on this machine."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_AT_MOST)
    except subprocess.TimeoutExpired:
        raise NoOpinionError(f"it did not come to its end within {SECONDS_AT_MOST} s") from None
    return answer.stdout or answer.stderr
