"""What stands on a host besides what the playbook made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.check_runs import HIDDEN, event, hide, only
from tests.collected import ETC, GROUPS, NAMES, OF_ROLES, SOCKETS, VERIFY
from tests.verify import collect, drift, strangers
from tests.verify.difference import Difference, Kind

KNOWN = {*NAMES, "init.scope", "user@1000.service"}
OPENED = {22, 80, 443}


def listeners(*lines: str, groups: dict[str, str] | None = None) -> list[Difference]:
    collected = {"sockets": "\n".join([SOCKETS.rstrip(), *lines]), "groups": GROUPS | (groups or {})}
    return list(strangers.listeners(collected, OPENED, KNOWN))


def test_who_was_asked_to_listen_is_no_stranger() -> None:
    assert listeners() == []
    assert len(strangers.read_sockets(SOCKETS)) == 10


@pytest.mark.parametrize(
    ("line", "what", "words"),
    [
        # A port that nobody opens, of a unit that Debian brought.
        (
            'tcp LISTEN 0 5 0.0.0.0:9100 0.0.0.0:* users:(("node",pid=93,fd=3))',
            "port 9100/tcp",
            "no role opens that port",
        ),
        (
            'udp UNCONN 0 5 0.0.0.0:161 0.0.0.0:* users:(("snmpd",pid=93,fd=3))',
            "port 161/udp",
            "no role opens that port",
        ),
        # An open port, of somebody's session.
        (
            'tcp LISTEN 0 5 0.0.0.0:80 0.0.0.0:* users:(("python3",pid=812,fd=3))',
            "port 80/tcp",
            "of no unit that is known",
        ),
        # A name of a known unit, of a person's own manager.
        (
            'tcp LISTEN 0 5 127.0.0.1:9 0.0.0.0:* users:(("nginx",pid=813,fd=3))',
            "port 9/tcp",
            "from the host itself alone",
        ),
        ('tcp LISTEN 0 5 [::1]:9 [::]:* users:(("nc",pid=814,fd=3))', "port 9/tcp", "nc (run-u7.service)"),
        # Some say whose they are falsely: all have to be known.
        (
            'tcp LISTEN 0 5 *:443 *:* users:(("x",pid=90,fd=3),(",pid=812,fd=3))',
            "port 443/tcp",
            "of no unit that is known",
        ),
        ('tcp LISTEN 0 5 *:443 *:* users:(("a\nb",pid=812,fd=3))', "port 443/tcp", "by ab ("),
        # The kernel's own, as WireGuard's.
        ("udp UNCONN 0 0 0.0.0.0:51820 0.0.0.0:*", "port 51820/udp", "nobody that is seen (the kernel)"),
        # Of one that ended meanwhile.
        ('tcp LISTEN 0 5 [::]:7 [::]:* users:(("nc",pid=999,fd=3))', "port 7/tcp", "a process that has ended"),
    ],
)
def test_who_listens_and_was_not_asked_to_is_told(line: str, what: str, words: str) -> None:
    (found,) = listeners(line)
    assert (found.kind, found.what) == (Kind.LISTENER, what)
    assert words in found.words


def test_one_port_is_told_once_and_a_question_to_a_name_server_is_none() -> None:
    twice = [f'tcp LISTEN 0 5 {where}:4444 *:* users:(("nc",pid=812,fd=3))' for where in ("*", "[::]")]
    assert len(listeners(*twice)) == 1
    assert listeners('udp UNCONN 0 0 0.0.0.0:40123 0.0.0.0:* users:(("timesyncd",pid=82,fd=3))') == []
    assert len(listeners('udp UNCONN 0 0 0.0.0.0:40123 0.0.0.0:* users:(("x",pid=812,fd=3))')) == 1
    assert len(listeners('udp UNCONN 0 0 0.0.0.0:1023 0.0.0.0:* users:(("x",pid=82,fd=3))')) == 1


UNITS = """\
Id=nginx.service
FragmentPath=/usr/lib/systemd/system/nginx.service
SourcePath=
UnitFileState=enabled
ActiveState=active
ActiveEnterTimestampMonotonic=5000000

Id=stray.service
FragmentPath=/etc/systemd/system/stray.service
UnitFileState=enabled
ActiveState=active
ActiveEnterTimestampMonotonic=5000000

Id=run-u1.service
FragmentPath=/run/systemd/transient/run-u1.service
UnitFileState=transient
ActiveState=active
ActiveEnterTimestampMonotonic=100000000

Id=run-u2.service
FragmentPath=/run/systemd/transient/run-u2.service
UnitFileState=transient
ActiveState=active
ActiveEnterTimestampMonotonic=3900000000

Id=session-3.scope
FragmentPath=/run/systemd/transient/session-3.scope
ActiveState=active
ActiveEnterTimestampMonotonic=100000000

Id=old.service
FragmentPath=/run/systemd/generator.late/old.service
SourcePath=/etc/init.d/old
ActiveState=active

Id=sshd-unix-local.socket
ActiveState=active
FragmentPath=/run/systemd/generator/sshd-unix-local.socket
SourcePath=
UnitFileState=generated
ActiveEnterTimestampMonotonic=2557882584

Id=cron.service
FragmentPath=/run/systemd/generator.late/cron.service
SourcePath=/etc/init.d/cron
ActiveState=active
"""
LIB = "/usr/lib/systemd/system"
OWNERS = {f"{LIB}/nginx.service": "nginx-common", "/etc/init.d/cron": "cron", f"{LIB}/ssh.service": "openssh-server"}


def units(files: dict[str, str], loaded: str = "", made: frozenset[str] | None = None) -> dict[str, str]:
    collected = {"units": loaded, "unit_files": files, "uptime": 4000.0}
    brought = strangers.Brought(OWNERS, made)
    known = strangers.known_units(collected, brought)
    return {found.what: found.words for found in strangers.units(collected, known, brought)}


def test_units_of_packages_and_roles_are_no_strangers() -> None:
    same = [f"{LIB}/nginx.service", OF_ROLES, f"{ETC}/molam-check.timer", f"{ETC}/nginx.service.d/molam.conf"]
    same += [f"{ETC}/postgresql@17-main.service.d/molam.conf", f"{ETC}/molam-say-.service.d/50-reach.conf"]
    # A slot's own.
    same += [f"{ETC}/molam-webhook@a.service", f"{ETC}/molam-webhook-worker@b.service.d/50-reach.conf"]
    links = {f"{ETC}/sshd.service": f"{LIB}/ssh.service", f"{ETC}/a.target.wants/molam-webhook@a.service": OF_ROLES}
    assert units({path: path for path in same} | links) == {}
    # A whole check run knows what a variable in a path is.
    made = frozenset([*same, f"{ETC}/molam-webhook-worker@.service.d/50-reach.conf"])
    assert units({path: path for path in same} | links, made=made) == {}
    assert list(units({path: path for path in same}, made=made - {same[4]})) == [same[4]]


@pytest.mark.parametrize(
    ("path", "leads_to", "what", "words"),
    [
        (f"{ETC}/stray.service", "", "stray.service", "is a unit (active, enabled) that no package and no role made"),
        (f"{LIB}/late.timer", "", "late.timer", "is a unit (not loaded)"),
        (f"{ETC}/molam-webhook@c.service", "", "molam-webhook@c.service", "is a unit (not loaded)"),
        (
            f"{ETC}/molam-webhook@a.service.d/x.conf",
            "",
            f"{ETC}/molam-webhook@a.service.d/x.conf",
            "changes molam-webhook@a.service, and no package",
        ),
        (f"{ETC}/nginx.service.d/x.conf", "", f"{ETC}/nginx.service.d/x.conf", "changes nginx.service, and no package"),
        (
            f"{ETC}/a.target.wants/b.service",
            "/opt/b.service",
            f"{ETC}/a.target.wants/b.service",
            "leads to /opt/b.service",
        ),
        (f"{ETC}/apt-daily.timer", "/dev/null", "apt-daily.timer", "is masked"),
        (f"{ETC}/\x1b[2Jé\n.service", "", "\x1b[2Jé\n.service", "is a unit (not loaded)"),
    ],
)
def test_a_unit_that_nobody_brought_is_told(path: str, leads_to: str, what: str, words: str) -> None:
    (found,) = units({path: leads_to or path}, UNITS.partition("Id=run-u1")[0]).items()
    assert found[0] == what
    assert words in found[1]


def test_a_stray_unit_is_told_once_where_it_is_enabled_too() -> None:
    stray = f"{ETC}/stray.service"
    assert list(units({stray: stray, f"{ETC}/multi-user.target.wants/stray.service": stray})) == ["stray.service"]


def test_what_was_started_by_hand_long_ago_is_told_and_a_script_that_no_package_has() -> None:
    told = units({}, UNITS)
    assert set(told) == {"run-u1.service", "old.service"}
    assert "65 minutes ago" in told["run-u1.service"]
    assert "/etc/init.d/old" in told["old.service"]


def test_a_slots_copy_is_compared_with_what_it_is_a_copy_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template, copies = (
        tmp_path / "molam-webhook@.service",
        [tmp_path / f"molam-webhook@{slot}.service" for slot in "ab"],
    )
    monkeypatch.setattr(
        collect, "SLOT_COPY", re.compile(collect.SLOT_COPY.pattern.replace("/etc/systemd/system", str(tmp_path)))
    )
    for file, text in ((template, "new"), (copies[0], "new"), (copies[1], "changed by hand")):
        file.write_text(text)
    found = collect.slot_copies(str(path) for path in tmp_path.iterdir())
    assert found == dict.fromkeys(map(str, copies), str(template))
    assert collect.tried(found) == {str(copies[1]): ["changed by hand", "new"]}


def test_what_roles_write_is_read_from_them() -> None:
    patterns = [pattern.pattern for pattern in strangers.written_paths().values()]
    brought = strangers.Brought({})
    for path in (f"{ETC}/nginx.service.d/molam.conf", "/etc/nginx/molam.conf", f"{ETC}/molam-backup.timer.d/when.conf"):
        assert brought.has(path)
    assert OF_ROLES in strangers.brought_files()
    # None is so wide that it knows anything.
    assert [pattern for pattern in patterns if re.match(r"(/\[\^/\]\+)+$", pattern)] == []
    for path in ("/etc/passwd", f"{ETC}/x.service", f"{ETC}/nginx.service.d/override.conf", "/usr/local/sbin/x"):
        assert not brought.has(path)


def test_changed_files_of_packages_are_told() -> None:
    brought = strangers.Brought({"/usr/bin/curl": "curl", "/etc/nginx/nginx.conf": "nginx-common"})
    found = {entry.what: entry for entry in strangers.package_files({"verify": VERIFY}, brought)}
    assert {what: entry.words for what, entry in found.items()} == {
        "/etc/nginx/nginx.conf": "has other content; it is a settings file of nginx-common",
        "/usr/bin/curl": "has other content; it is a file of curl",
        "/etc/fail2ban/jail.conf": "is missing; it is a settings file of a package that is not known",
        "/usr/share/doc/odd name/copyright": "is missing; it is a file of a package that is not known",
    }
    assert "--reinstall curl" in found["/usr/bin/curl"].mend


def test_a_file_that_roles_bring_is_told_by_its_name() -> None:
    text = strangers.brought_files()[OF_ROLES].read_text()
    assert [*strangers.own_files({}, hide)] == []
    changed, missing = strangers.own_files(
        {OF_ROLES: f"{text}# {HIDDEN}\n", "/usr/local/bin/molam-webhook": None}, hide
    )
    assert (changed.what, changed.diff) == (OF_ROLES, ("-# ***",))
    assert missing.words == "is not there and would be made"
    # In place of all of them together.
    assert [*strangers.tried_files({}, hide)] == []
    together = only(event({"changed": True, "action": "ansible.builtin.unarchive", "dest": "/"}))
    assert drift.merged([together], [changed]) == [changed]
    assert drift.merged([together], []) == [together]


def test_a_file_that_was_changed_after_it_was_tried_is_told_by_its_name() -> None:
    sshd = "/etc/ssh/sshd_config.d/00-molam.conf"
    assert strangers.tried_places() == {
        "/etc/nftables.d/molam.nft": "/var/lib/molam-try/nftables",
        sshd: "/var/lib/molam-try/sshd",
    }
    (changed,) = strangers.tried_files({sshd: ["PasswordAuthentication yes\n", "PasswordAuthentication no\n"]}, hide)
    assert (changed.what, changed.diff) == (sshd, ("-PasswordAuthentication yes", "+PasswordAuthentication no"))
    (gone,) = strangers.tried_files({sshd: [None, "PasswordAuthentication no\n"]}, hide)
    assert gone.words == "is not there any more"
    command = {"action": "ansible.builtin.command", "cmd": ["molam-try", "sshd", "--seconds=60", "--dry-run"]}
    checked = only(event({"changed": True} | command))
    assert "would be run" in checked.words
    assert drift.merged([checked], [changed]) == [changed]
    assert drift.merged([checked], []) == [checked]


def test_a_file_of_a_package_has_two_names_where_lib_is_usr_lib(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on Debian 12, whose packages call it the old one, and systemd as well."""
    (tmp_path / "cron.list").write_text("/.\n/lib/systemd/system/cron.service\n")
    (tmp_path / "dbus:amd64.list").write_text("/usr/lib/systemd/system/dbus.service\n")
    monkeypatch.setattr(collect, "Path", lambda _: tmp_path)
    cron, dbus = "/lib/systemd/system/cron.service", "/usr/lib/systemd/system/dbus.service"
    asked = {cron, f"/usr{cron}", dbus, "/usr/lib/systemd/system/stray.service"}
    assert collect.owners(asked) == {cron: "cron", f"/usr{cron}": "cron", dbus: "dbus"}
