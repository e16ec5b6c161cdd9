"""Runs on the host, as root, by Python alone: tells what stands there, and changes nothing.

Its arguments are JSON: the files that the roles bring, by path, each with its SHA-256 sum; and the files that molam-try
puts in their places, and from where. It prints one JSON object, which tests/verify/strangers.py and expiry.py beside it
put into words.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

UNIT_FOLDERS = [
    "/etc/systemd/system",
    "/etc/systemd/system.control",
    "/run/systemd/system",
    "/run/systemd/system.control",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
]
PROPERTIES = "Id,FragmentPath,SourcePath,UnitFileState,ActiveState,ActiveEnterTimestampMonotonic"
SECRET_DATES = Path("/etc/molam-webhook/secret-dates.json")
# A slot's copy of a file of its units, and what it is a copy of without the slot's name.
SLOT_COPY = re.compile(r"(/etc/systemd/system/molam-webhook[a-z-]*@)[ab](\.service(?:\.d/.+)?)")
# Of a file that differs no more is sent.
CHARACTERS = 65_536


def run(*command: str) -> str | None:
    """Return what a command prints, or None where it is not there."""
    try:
        answer = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except OSError:
        return None
    return answer.stdout.decode(errors="replace")


def unit_files() -> dict[str, str]:
    """Return the files and links in the folders of units and one below, and where each leads to in the end."""
    found = {}
    for folder in UNIT_FOLDERS:
        for where, _, names in os.walk(folder):
            found.update({f"{where}/{name}": os.path.realpath(f"{where}/{name}") for name in names})
    return found


def owners(paths: set[str]) -> dict[str, str]:
    """Return the packages that the files of these paths are from. /lib is /usr/lib, which packages may call either."""
    wanted = paths | {path.removeprefix("/usr") for path in paths if path.startswith("/usr/lib/")}
    found = {}
    for file in Path("/var/lib/dpkg/info").glob("*.list"):
        for path in wanted.intersection(file.read_text(errors="replace").splitlines()):
            # A path may be asked for by both of its names.
            names = paths.intersection((path, f"/usr{path}"))
            found.update(dict.fromkeys(names, file.name.removesuffix(".list").partition(":")[0]))
    return found


def differing(files: dict[str, str]) -> dict[str, str | None]:
    """Return the texts of those files that do not have their sum; None is one that is not there."""
    found: dict[str, str | None] = {}
    for path, digest in files.items():
        try:
            content = Path(path).read_bytes()
        except OSError:
            found[path] = None
            continue
        if hashlib.sha256(content).hexdigest() != digest:
            found[path] = content[:CHARACTERS].decode(errors="replace")
    return found


def text_of(path: str) -> str | None:
    """Return the text of a file, or None where it is not there."""
    try:
        return Path(path).read_bytes()[:CHARACTERS].decode(errors="replace")
    except OSError:
        return None


def tried(places: dict[str, str]) -> dict[str, list[str | None]]:
    """Return the files that are not as what was tried to be put in their places: what is there, and what was tried."""
    found = {place: [text_of(place), text_of(wanted)] for place, wanted in places.items()}
    return {place: texts for place, texts in found.items() if texts[0] != texts[1]}


def slot_copies(paths: Iterable[str]) -> dict[str, str]:
    """Return the slots' copies among these files, and what each is a copy of."""
    found = {path: SLOT_COPY.sub(r"\1\2", path) for path in paths if SLOT_COPY.fullmatch(path)}
    return {path: template for path, template in found.items() if Path(template).exists()}


def cgroup(pid: str) -> str:
    """Return the control group of a process, or '' where it has ended."""
    try:
        return Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::")[2]
    except OSError:
        return ""


def secrets_since() -> dict[str, str]:
    """Return since which day each secret is in use, of those that are."""
    try:
        entries = json.loads(SECRET_DATES.read_text())
    except OSError:
        return {}
    return {name: entry["created"] for name, entry in entries.items() if entry["active"]}


def main() -> None:
    """Collect, and print."""
    # It reads every file of every package: beside the rest, and behind whoever serves.
    verify = subprocess.Popen(
        ["nice", "-n", "19", "dpkg", "--verify"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    sockets = run("ss", "--no-header", "--listening", "--numeric", "--processes", "--tcp", "--udp")
    units = run("systemctl", "show", "--all", f"--property={PROPERTIES}", "*") or ""
    files = unit_files()
    changed = verify.communicate()[0].decode(errors="replace")
    paths = {*files, *files.values(), *re.findall(r"(?m)^(?:FragmentPath|SourcePath)=(/.+)$", units)}
    paths |= set(re.findall(r"(?m)^\S+ +(?:\w +)?(/.*?)(?: \(.*\))?$", changed))
    said: dict[str, Any] = {
        "sockets": sockets,
        "groups": {pid: cgroup(pid) for pid in set(re.findall(r"pid=(\d+)", sockets or ""))},
        "units": units,
        "unit_files": files,
        "uptime": time.monotonic(),
        "owners": owners(paths),
        "verify": changed,
        "own": differing(json.loads(sys.argv[1])),
        "tried": tried(json.loads(sys.argv[2]) | slot_copies(files)),
        "secrets": secrets_since(),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
