"""What stands on a host that neither Debian nor a role brought: listeners, units, and changed files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.verify.check_mode import Hide, changed_lines, cut
from tests.verify.checklist import ROOT
from tests.verify.collect import SLOT_COPY
from tests.verify.difference import Difference, Kind

ROLES = ROOT / "roles"
NULL = "/dev/null"
TRANSIENT = "/run/systemd/transient/"
# Programs of ours run in transient units for as long as an answer takes; what is there for longer is told.
TRANSIENT_SECONDS = 600
TELLING = (".service", ".timer", ".socket", ".path")
# Clients of DHCP are answered there (RFC 2131 and 8415), and who asks a name server is at one of these (RFC 6335).
DHCP_CLIENT = {68, 546}
EPHEMERAL = range(32_768, 65_536)
LOOPBACK = re.compile(r"(127\.|\[?::1\]?$|\[::ffff:127\.)")

MEND_LISTENER = (
    "Who is it? ss --listening --processes --tcp --udp; systemctl status PROCESS. Nobody's: stop it, and find out how "
    "it came. Yours: nftables_openings where others are to reach it, else verify_known (docs/verify.md)."
)
MEND_UNIT = (
    "What is it? systemctl cat UNIT; stat FILE. Nobody's: systemctl disable --now it, keep a copy, and find out how it "
    "came. Yours: verify_known (docs/verify.md)."
)
MEND_MASK = "systemctl unmask it, or, where it is meant, name it in verify_known (docs/verify.md)."
MEND_PACKAGE = (
    "apt-get install --reinstall PACKAGE brings it back (a settings file: with -o Dpkg::Options::=--force-confmiss "
    "where it is missing, --force-confnew where it was changed). Meant? verify_known (docs/verify.md)."
)
MEND_OWN = "Run site.yml on it, which makes it so. Nobody of yours did that? Find out who before you do."


@dataclass(frozen=True)
class Listener:
    """A socket that is listened on: `address` as ss has it, `processes` its names with their ids."""

    protocol: str
    address: str
    port: int
    names: tuple[str, ...]
    pids: tuple[str, ...]

    @property
    def only_here(self) -> bool:
        """Whether nobody but the host itself reaches it."""
        return LOOPBACK.match(self.address) is not None


@dataclass(frozen=True)
class Brought:
    """What is known of a host's files: the packages that own them (`owners`), and which ones the playbook looked at in
    a whole check run (`made`, None where there was none).
    """

    owners: Mapping[str, str]
    made: frozenset[str] | None = None

    def has(self, path: str) -> bool:
        """Say whether a file is a package's or a role's. What a slot's copy says is compared elsewhere."""
        path = SLOT_COPY.sub(r"\1\2", path)
        return path in self.owners or path in brought_files() or self.is_written(path)

    def is_written(self, path: str) -> bool:
        """Say whether a role writes a file. What a variable in a path is, a check run knows; else it may be any."""
        if path in written_paths():
            return True
        if self.made is not None:
            return path in self.made
        return any(pattern.fullmatch(path) for pattern in written_paths().values())


def of_host(
    collected: Mapping[str, Any],
    openings: Iterable[Mapping[str, Any]] | None,
    made: frozenset[str] | None,
    hide: Hide,
) -> list[Difference]:
    """Return all strangers among what tests/verify/collect.py told; without openings no listener is judged."""
    brought = Brought(collected["owners"], made)
    known = known_units(collected, brought)
    found = [*units(collected, known, brought), *package_files(collected, brought), *own_files(collected["own"], hide)]
    found += tried_files(collected["tried"], hide)
    if openings is not None:
        opened = {int(port) for opening in openings for port in opening["ports"]}
        found += listeners(collected, opened, known)
    return found


def listeners(collected: Mapping[str, Any], opened: set[int], known: set[str]) -> Iterator[Difference]:
    """Yield the sockets that no role and no opening of the inventory has asked for.

    Open ports are the firewall's openings (TCP), and whoever listens there has to be a unit that is known. On the
    loopback any such unit may listen.
    """
    told: set[str] = set()
    for socket in read_sockets(collected["sockets"] or ""):
        groups = [collected["groups"].get(pid, "") for pid in socket.pids]
        of_known = bool(groups) and all(unit_of(group) in known for group in groups)
        if of_known and (socket.only_here or is_open(socket, opened)):
            continue
        what = f"port {socket.port}/{socket.protocol}"
        if what in told:
            continue
        told.add(what)
        names = ", ".join(sorted(set(socket.names))) or "nobody that is seen"
        where = "from the host itself alone" if socket.only_here else f"at {socket.address}"
        of = sorted({unit_of(group) or group or "a process that has ended" for group in groups})
        why = (
            "no role opens that port, and nftables_openings does not" if of_known else "it is of no unit that is known"
        )
        words = f"is listened on, {where}, by {names} ({', '.join(of) or 'the kernel'}): {why}"
        yield Difference(Kind.LISTENER, what, words, MEND_LISTENER)


def is_open(socket: Listener, opened: set[int]) -> bool:
    """Say whether a known unit may be reached at a socket from elsewhere."""
    if socket.protocol == "tcp":
        return socket.port in opened
    return socket.port in DHCP_CLIENT or socket.port in EPHEMERAL


def read_sockets(text: str) -> list[Listener]:
    """Read what ss lists. A process may have any name, one with a line's end in it too."""
    lines: list[str] = []
    for line in text.splitlines():
        if re.match(r"(tcp|udp)\s+(LISTEN|UNCONN)\s", line):
            lines.append(line)
        elif lines:
            lines[-1] += line
    found = []
    for line in lines:
        protocol, _, _, _, local, *_ = line.split()
        address, _, port = local.rpartition(":")
        _, _, users = line.partition("users:(")
        names = tuple(re.findall(r'\("(.*?)",pid=', users))
        found.append(Listener(protocol, address, int(port), names, tuple(re.findall(r"pid=(\d+)", users))))
    return found


def unit_of(group: str) -> str:
    """Return the unit that a control group is of, '' where it is a person's, or none."""
    parts = group.split("/")
    if "user.slice" in parts:
        return ""
    return next((part for part in parts if part.endswith((".service", ".scope"))), "")


def known_units(collected: Mapping[str, Any], brought: Brought) -> set[str]:
    """Return the names of loaded units that Debian or a role brought."""
    names = {unit["Id"] for unit in read_units(collected["units"]) if brought.has(unit.get("FragmentPath", ""))}
    # systemd itself holds the sockets that units are started by.
    return names | {"init.scope"}


def read_units(text: str) -> list[dict[str, str]]:
    """Read the blocks that `systemctl show` prints."""
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n")]
    return [block for block in blocks if block.get("Id")]


def units(collected: Mapping[str, Any], known: set[str], brought: Brought) -> Iterator[Difference]:
    """Yield unit files, links to some, drop-ins and transient units that nobody known made, and masked units."""
    loaded = {unit["Id"]: unit for unit in read_units(collected["units"])}
    for path, leads_to in sorted(collected["unit_files"].items()):
        if brought.has(path) or (leads_to not in (path, NULL) and brought.has(leads_to)):
            continue
        if leads_to != path and collected["unit_files"].get(leads_to) == leads_to:
            # What it leads to is told by itself.
            continue
        name, folder = path.rpartition("/")[2], path.rpartition("/")[0]
        if leads_to == NULL:
            yield Difference(Kind.UNIT, name, f"is masked by {path}: nothing can start it", MEND_MASK)
        elif folder.endswith(".d"):
            words = f"changes {folder.rpartition('/')[2].removesuffix('.d')}, and no package and no role made it"
            yield Difference(Kind.UNIT, path, words, MEND_UNIT)
        elif leads_to != path:
            yield Difference(Kind.UNIT, path, f"leads to {leads_to}, which no package and no role made", MEND_UNIT)
        else:
            words = f"is a unit ({state_of(loaded.get(name))}) that no package and no role made: {path}"
            yield Difference(Kind.UNIT, name, words, MEND_UNIT)
    for unit in loaded.values():
        path = unit.get("FragmentPath", "")
        source = unit.get("SourcePath", "")
        if unit.get("ActiveState") != "active" or not unit["Id"].endswith(TELLING) or unit["Id"] in known:
            continue
        if path.startswith(TRANSIENT) and collected["uptime"] - since(unit) > TRANSIENT_SECONDS:
            minutes = (collected["uptime"] - since(unit)) / 60
            words = (
                f"was started by hand (systemd-run) {minutes:.0f} minutes ago, and is there until the next boot at most"
            )
            yield Difference(Kind.UNIT, unit["Id"], words, MEND_UNIT)
        elif source.startswith("/etc/init.d/") and not brought.has(source):
            words = f"is started by {source}, which no package and no role made"
            yield Difference(Kind.UNIT, unit["Id"], words, MEND_UNIT)


def since(unit: Mapping[str, str]) -> float:
    """Return when a unit became active, in seconds of the monotonic clock."""
    said = unit.get("ActiveEnterTimestampMonotonic", "")
    return int(said) / 1e6 if said.isdecimal() else 0.0


def state_of(unit: Mapping[str, str] | None) -> str:
    """Say how a unit stands."""
    if unit is None:
        return "not loaded"
    return ", ".join(word for word in (unit.get("ActiveState"), unit.get("UnitFileState")) if word)


def package_files(collected: Mapping[str, Any], brought: Brought) -> Iterator[Difference]:
    """Yield files that are not as their package brought them, where no role writes them."""
    for line in collected["verify"].splitlines():
        found = re.fullmatch(r"(missing|[?.A-Z0-9]{9}) +(?:(\w) +)?(/.*?)(?: \(.*\))?", line)
        if not found or brought.is_written(found[3]):
            continue
        package = brought.owners.get(found[3], "a package that is not known")
        is_now = "is missing" if found[1] == "missing" else "has other content"
        words = f"{is_now}; it is {'a settings file' if found[2] == 'c' else 'a file'} of {package}"
        yield Difference(Kind.PACKAGE, found[3], words, MEND_PACKAGE.replace("PACKAGE", package))


def own_files(differing: Mapping[str, str | None], hide: Hide) -> Iterator[Difference]:
    """Yield the files that a role brings as they are, and that are not so."""
    for path, text in sorted(differing.items()):
        if text is None:
            yield Difference(Kind.SETTING, path, "is not there and would be made", MEND_OWN)
        else:
            wanted = brought_files()[path].read_text()
            lines = cut(changed_lines(hide(text), wanted))
            yield Difference(Kind.SETTING, path, "has other content", MEND_OWN, lines)


def tried_files(differing: Mapping[str, list[str | None]], hide: Hide) -> Iterator[Difference]:
    """Yield the files that are not what molam-try (role base) put there."""
    for path, (there, wanted) in sorted(differing.items()):
        words = "has other content than was put there" if there is not None else "is not there any more"
        lines = cut(changed_lines(hide(there or ""), hide(wanted or "")))
        yield Difference(Kind.SETTING, path, words, MEND_OWN, lines)


@cache
def tried_places() -> dict[str, str]:
    """Return where molam-try puts each change, by the place, and from where."""
    places = re.findall(r'"(\w+)": Change\(\s*Path\("([^"]+)"\)', (ROLES / "base" / "files" / "molam-try").read_text())
    return {place: f"/var/lib/molam-try/{name}" for name, place in places}


@cache
def brought_files() -> dict[str, Path]:
    """Return the files that roles bring as they are (their files/host), by their paths on a host."""
    return {
        f"/{path.relative_to(folder)}": path
        for folder in sorted(ROLES.glob("*/files/host"))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def digests() -> dict[str, str]:
    """Return their SHA-256 sums."""
    return {path: hashlib.sha256(file.read_bytes()).hexdigest() for path, file in brought_files().items()}


@cache
def written_paths() -> dict[str, re.Pattern[str]]:
    """Return which files roles write, as they stand there, and as patterns: a variable in a path may be any name."""
    files = [path for part in ("tasks", "vars") for path in sorted(ROLES.glob(f"*/{part}/*.yml"))]
    paths = {
        path
        for file in files
        for path in paths_in(yaml.safe_load(file.read_text()), of_vars=file.parent.name == "vars")
    }
    return {path: re.compile("[^/]+".join(map(re.escape, re.split(r"\{\{.*?\}\}", path)))) for path in sorted(paths)}


def paths_in(value: Any, *, of_vars: bool) -> Iterator[str]:  # noqa: ANN401  any YAML value
    """Yield the paths that a task's `path` or `dest` names, and that variables hold."""
    if isinstance(value, dict):
        for name, part in value.items():
            is_path = isinstance(part, str) and (name in ("path", "dest") or of_vars)
            yield from [part] if is_path and re.fullmatch(r"/[^\s|;]+(?:\{\{.*\}\}[^\s|;]*)*", part) else []
            yield from paths_in(part, of_vars=of_vars) if not is_path else ()
    elif isinstance(value, list):
        for part in value:
            if isinstance(part, str) and of_vars and part.startswith("/"):
                yield part
            else:
                yield from paths_in(part, of_vars=of_vars)
