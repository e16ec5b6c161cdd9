"""What is made of a check run, of what a host has besides, and of what ends soon."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pairs import make
from tests.verify import check_mode, collect, drift, expiry, strangers
from tests.verify.check_mode import Check
from tests.verify.checklist import ROOT
from tests.verify.difference import Difference, Drift, Kind
from tests.verify.target import Target

SECRET = "whsec_that_nobody_may_read"  # noqa: S105  of no key
NGINX = "/srv/clone/roles/nginx/tasks/configure.yml:32"


def hide(text: str) -> str:
    return text.replace(SECRET, "***")


def event(result: dict[str, Any], name: str = "nginx : configure | Settings", path: str = NGINX, **others: Any) -> str:  # noqa: ANN401
    """Return an event as ansible.posix.jsonl prints it."""
    task = {"name": name, "path": path, "id": "0", "duration": {}}
    return json.dumps({"_event": "v2_runner_on_ok", "hosts": {"web-1": result}, "task": task} | others)


END = json.dumps({"_event": "v2_playbook_on_stats", "stats": {"web-1": {"changed": 1}}})


def read(*lines: str, status: int = 0) -> Check:
    return check_mode.read("\n".join([*lines, END]), status, hide)


def only(*lines: str) -> Difference:
    (found,) = read(*lines).differences
    return found


# As Ansible 2.19 gives them, shortened to what is read.
TEMPLATE = {
    "action": "ansible.builtin.template",
    "changed": True,
    "diff": [
        {
            "before_header": "/etc/nginx/molam.conf",
            "before": "user www-data;\nserver_tokens on;\n",
            "after_header": "/root/.ansible/tmp/ansible-local-20266e8_tdc0l/tmpacrkf6rh/main.conf.j2",
            "after": "user www-data;\nserver_tokens off;\n",
        }
    ],
    "invocation": {"module_args": {"dest": "/etc/nginx/molam.conf", "mode": "0644"}},
}
LOOP = {
    "action": "ansible.builtin.blockinfile",
    "changed": True,
    "msg": "All items completed",
    "results": [
        {
            "ansible_loop_var": "item",
            "changed": True,
            "diff": [
                {"before": "One\n", "after": "one\n", "before_header": "/etc/b1 (content)"},
                {"before_header": "/etc/b1 (file attributes)", "after_header": "/etc/b1 (file attributes)"},
            ],
            "invocation": {"module_args": {"path": "/etc/b1"}},
        },
        {"ansible_loop_var": "item", "changed": False, "invocation": {"module_args": {"path": "/etc/b2"}}},
        {
            "ansible_loop_var": "item",
            "changed": True,
            "diff": {"before": "", "after": "two\n", "before_header": "/etc/b3 (content)"},
            "invocation": {"module_args": {"path": "/etc/b3"}},
        },
    ],
}


def test_a_changed_file_is_told_with_what_is_there_and_what_would_be() -> None:
    found = only(event(TEMPLATE))
    assert (found.kind, found.what) == (Kind.SETTING, "/etc/nginx/molam.conf")
    assert found.words == "has other content [role nginx, configure | Settings]"
    assert found.diff == ("-server_tokens on;", "+server_tokens off;")
    assert "site.yml" in found.mend
    assert "roles/nginx/README.md" in found.mend


def test_of_a_loop_each_item_that_would_change_is_told() -> None:
    assert read(event(LOOP)).paths == {"/etc/b1", "/etc/b2", "/etc/b3"}
    assert [(found.what, found.diff) for found in read(event(LOOP)).differences] == [
        ("/etc/b1", ("-One", "+one")),
        ("/etc/b3", ("+two",)),
    ]


@pytest.mark.parametrize(
    ("result", "what", "words"),
    [
        (
            {
                "action": "ansible.builtin.file",
                "diff": {
                    "before": {"owner": "x", "mode": "0777"},
                    "after": {"owner": "x", "mode": "0700", "path": "/a"},
                },
            },
            "/a",
            ": its mode is 0777 and would be 0700 [",
        ),
        (
            {
                "action": "ansible.builtin.file",
                "diff": {"before": {"path": "/a", "state": "file"}, "after": {"path": "/a", "state": "absent"}},
            },
            "/a",
            "is there (file) and would be removed",
        ),
        (
            {
                "action": "ansible.builtin.file",
                "diff": {"before": {"path": "/a", "state": "absent"}, "after": {"path": "/a", "state": "directory"}},
            },
            "/a",
            "is not there and would be made (directory)",
        ),
        (
            {
                "action": "ansible.builtin.systemd_service",
                "name": "molam-check.timer",
                "status": {"ActiveState": "inactive", "UnitFileState": "disabled"},
                "invocation": {"module_args": {"state": "started", "enabled": True}},
            },
            "molam-check.timer",
            "is inactive and disabled; would be started and enabled at boot",
        ),
        (
            {
                "action": "ansible.builtin.apt",
                "stdout": "Reading package lists...\nInst fail2ban (1.1.0-8 Debian:13.2/stable [all])\nConf x (1)",
            },
            "packages: fail2ban",
            "would be installed",
        ),
        (
            {"action": "ansible.builtin.apt", "invocation": {"module_args": {"name": ["rpcbind"], "state": "absent"}}},
            "packages: rpcbind",
            "would be removed",
        ),
        (
            {"action": "ansible.builtin.command", "invocation": {"module_args": {"creates": "/etc/molam-tls/a.pem"}}},
            "/etc/molam-tls/a.pem",
            "is not there: a command would be run",
        ),
        (
            {"action": "ansible.builtin.shell", "cmd": "ssh-keygen -q"},
            "ssh-keygen -q",
            "would be run, and change something",
        ),
        (
            {
                "action": "community.postgresql.postgresql_user",
                "queries": ['CREATE USER "molam_webhook"'],
                "invocation": {"module_args": {"name": "molam_webhook"}},
            },
            "PostgreSQL: molam_webhook",
            'would be changed: CREATE USER "molam_webhook"',
        ),
        ({"action": "ansible.builtin.unarchive", "dest": "/srv"}, "/srv", "holds other files"),
        (
            {"action": "ansible.builtin.command", "censored": "the output has been hidden"},
            "role nginx, configure | Settings",
            "a secret is in it",
        ),
        ({"action": "some.other.module", "msg": "it is\nso"}, "role nginx, configure | Settings", "it is so"),
        ({}, "role nginx, configure | Settings", "would be changed"),
    ],
)
def test_each_kind_of_change_is_told_in_words(result: dict[str, Any], what: str, words: str) -> None:
    found = only(event({"changed": True} | result))
    assert found.what == what
    assert words in f": {found.words}"


def test_what_is_no_drift_is_not_told() -> None:
    handler = event(TEMPLATE, path="/srv/clone/roles/nginx/handlers/main.yml:3")
    skipped = event(TEMPLATE | {"skipped": True}, _event="v2_runner_on_skipped")
    unchanged = event(TEMPLATE | {"changed": False})
    assert read(handler, skipped, unchanged).differences == []
    assert read(event({"msg": "no file"})).paths == frozenset()


def test_the_host_that_a_task_is_delegated_to_is_named() -> None:
    elsewhere = {"_ansible_delegated_vars": {"ansible_host": "10.0.0.9"}}
    assert "(on 10.0.0.9)" in only(event(TEMPLATE | elsewhere)).words


def test_no_secret_is_told_and_none_is_cut_in_half() -> None:
    long = "x" * (check_mode.DIFF_CHARACTERS - 10) + SECRET
    changed = TEMPLATE | {"diff": [{"before": f"{long}\n", "after": "none\n", "before_header": "/etc/x"}]}
    failed = event({"failed": True, "msg": f"can't: {SECRET}"}, _event="v2_runner_on_failed")
    told = read(event(changed), failed, status=2)
    assert "whsec" not in repr(told)
    assert "***" in told.differences[0].diff[0]
    assert "***" in told.fault


def test_a_long_difference_is_cut_and_prints_nothing_but_text() -> None:
    lines = ["\x1b[2J\x1b[31mred\t\u202e", "y" * 500, *map(str, range(10))]
    found = only(event(TEMPLATE | {"diff": [{"before": "", "after": "\n".join(lines)}]}))
    assert found.diff[0] == "+?[2J?[31mred ?"
    assert len(found.diff[1]) == check_mode.DIFF_CHARACTERS
    assert len(found.diff) == check_mode.DIFF_LINES + 1
    assert found.diff[-1] == "… and 6 more lines"


def test_a_check_run_that_failed_is_told_with_the_reason() -> None:
    failed = event({"failed": True, "msg": "it is\ndown"}, _event="v2_runner_on_failed")
    told = read(event(TEMPLATE), failed, status=2)
    assert told.fault == "role nginx, configure | Settings: it is down"
    assert len(told.differences) == 1
    item = {"failed": True, "msg": "one of its items", "ansible_loop_var": "item", "stderr": "nginx: [emerg] no"}
    loop = event({"failed": True, "results": [item], "msg": "One or more items failed"}, _event="v2_runner_on_failed")
    assert read(loop, status=2).fault.endswith("nginx: [emerg] no")


def test_what_failed_and_was_rescued_is_no_fault() -> None:
    assert read(event({"failed": True, "msg": "no"}, _event="v2_runner_on_failed")).fault == ""


@pytest.mark.parametrize(
    "output", ["", "ERROR! the playbook could not be found", '{"_event": "v2_playbook_on_start"}\n{"a']
)
@pytest.mark.parametrize("status", [0, 4, -9])
def test_a_run_that_says_nothing_of_its_end_is_a_fault(output: str, status: int) -> None:
    assert check_mode.read(output, status, hide).fault
    assert check_mode.read(output, status, hide, "no such vault password").fault == "no such vault password"


def test_of_a_check_run_that_hangs_what_it_said_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "ansible-playbook"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/said\nexec sleep 60\n")
    program.chmod(0o755)
    (tmp_path / "said").write_text(f"{event({'msg': {'known': []}}, check_mode.SAID)}\n{event(TEMPLATE)}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(check_mode, "SECONDS_AT_MOST", 1)
    told = check_mode.run(Target("web-1", tmp_path, None, sudo=False), hide)
    assert told.fault == "it did not end within 1 s"
    assert (len(told.differences), told.said) == (1, {"known": []})


def test_lines_that_are_no_events_are_left_out() -> None:
    hostile = ["[WARNING]: something", "[1, 2]", '"text"', "{", "null", json.dumps({"_event": "v2_runner_on_ok"})]
    assert (
        len(read(*hostile, event(TEMPLATE), event({"changed": True, "diff": "none", "results": ["x"]})).differences)
        == 2
    )


def test_what_the_inventory_says_is_kept() -> None:
    said: dict[str, Any] = {"openings": [], "known": []}
    assert read(event({"msg": said}, check_mode.SAID)).said == said
    assert check_mode.SAID in check_mode.PLAYBOOK.read_text()


def test_nothing_that_changes_something_in_check_mode_is_run() -> None:
    """Of the tasks that run there, this one is no look."""
    tasks = yaml.safe_load((ROOT / "roles" / "base" / "tasks" / "install.yml").read_text())
    tagged = [task for task in tasks if check_mode.LISTS in task.get("tags", [])]
    assert [task["check_mode"] for task in tagged] == [False]


def test_the_ports_that_roles_open_are_those_of_the_playbook() -> None:
    """They stand in both, since a play's variables are its own."""
    opened = re.compile(r"__\w+_openings\b")
    (wanted,) = re.findall(r"nftables_openings_of_roles: (.*)", (ROOT / "playbooks" / "receiver.yml").read_text())
    (told,) = re.findall(r"openings: (.*)", check_mode.PLAYBOOK.read_text())
    assert opened.findall(told) == opened.findall(wanted) != []


# --- What stands on the host besides. ---

SOCKETS = """\
udp   UNCONN 0      0                0.0.0.0:68         0.0.0.0:*    users:(("dhclient",pid=80,fd=7))
udp   UNCONN 0      0            127.0.0.1%lo:323       0.0.0.0:*    users:(("chronyd",pid=81,fd=5))
udp   UNCONN 0      0         [fe80::1%eth0]:546          [::]:*    users:(("systemd-network",pid=82,fd=5))
tcp   LISTEN 0      511              0.0.0.0:443        0.0.0.0:*    users:(("nginx",pid=91,fd=6),("nginx",pid=90,fd=6))
tcp   LISTEN 0      511                 [::]:443           [::]:*    users:(("nginx",pid=91,fd=7),("nginx",pid=90,fd=7))
tcp LISTEN 0      511    0.0.0.0:80  0.0.0.0:* users:(("nginx",pid=5644,fd=6),("nginx",pid=5643,fd=6))
tcp LISTEN 0      128       [::]:22     [::]:* users:(("sshd",pid=92,fd=7))
tcp   LISTEN 0      128                    *:22               *:*    users:(("sshd",pid=92,fd=3))
tcp   LISTEN 0      200            127.0.0.1:5432       0.0.0.0:*    users:(("postgres",pid=93,fd=6))
tcp   LISTEN 0      200   [::ffff:127.0.0.1]:8005             *:*    users:(("postgres",pid=93,fd=8))
"""
GROUPS = {
    "80": "/system.slice/networking.service",
    "81": "/system.slice/chrony.service",
    "82": "/system.slice/systemd-networkd.service",
    "90": "/system.slice/nginx.service",
    "91": "/system.slice/nginx.service",
    "92": "/system.slice/ssh.service",
    # In a container, as its kernel has it.
    "5643": "/libpod_parent/libpod-b77dad30958df538/system.slice/nginx.service",
    "5644": "/libpod_parent/libpod-b77dad30958df538/system.slice/nginx.service",
    "93": "/system.slice/system-postgresql.slice/postgresql@17-main.service",
    "812": "/user.slice/user-0.slice/session-3.scope",
    "813": "/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service",
    "814": "/system.slice/run-u7.service",
}
NAMES = [
    group.rpartition("/")[2] for pid, group in GROUPS.items() if "user.slice" not in group and "run-u" not in group
]
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
ETC = "/etc/systemd/system"
LIB = "/usr/lib/systemd/system"
OWNERS = {f"{LIB}/nginx.service": "nginx-common", "/etc/init.d/cron": "cron", f"{LIB}/ssh.service": "openssh-server"}
OF_ROLES = f"{ETC}/molam-webhook@.service"


def units(files: dict[str, str], loaded: str = "", made: frozenset[str] | None = None) -> dict[str, str]:
    collected = {"units": loaded, "unit_files": files, "uptime": 4000.0}
    brought = strangers.Brought(OWNERS, made)
    known = strangers.known_units(collected, brought)
    return {found.what: found.words for found in strangers.units(collected, known, brought)}


def test_units_of_packages_and_roles_are_no_strangers() -> None:
    same = [f"{LIB}/nginx.service", OF_ROLES, f"{ETC}/molam-check.timer", f"{ETC}/nginx.service.d/molam.conf"]
    same += [f"{ETC}/postgresql@17-main.service.d/molam.conf", f"{ETC}/molam-say-.service.d/50-reach.conf"]
    links = {f"{ETC}/sshd.service": f"{LIB}/ssh.service", f"{ETC}/a.target.wants/molam-webhook@a.service": OF_ROLES}
    assert units({path: path for path in same} | links) == {}
    # A whole check run knows what a variable in a path is.
    made = frozenset(same)
    assert units({path: path for path in same} | links, made=made) == {}
    assert list(units({path: path for path in same}, made=made - {same[4]})) == [same[4]]


@pytest.mark.parametrize(
    ("path", "leads_to", "what", "words"),
    [
        (f"{ETC}/stray.service", "", "stray.service", "is a unit (active, enabled) that no package and no role made"),
        (f"{LIB}/late.timer", "", "late.timer", "is a unit (not loaded)"),
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


VERIFY = """\
??5?????? c /etc/nginx/nginx.conf
??5??????   /usr/bin/curl
missing   c /etc/fail2ban/jail.conf
missing     /usr/share/doc/odd name/copyright (Permission denied)
??5?????? c /etc/nginx/molam.conf
dpkg: warning: something
"""


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
        {OF_ROLES: f"{text}# {SECRET}\n", "/usr/local/bin/molam-webhook": None}, hide
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


# --- What ends. ---

TODAY = datetime.now(UTC).date()


def ending(days: tuple[int, int], *, renewed: bool = False) -> list[int]:
    served = make("shop.test", days=days).certificate
    return [entry.days_left for entry in expiry.certificates(served, [], renewed=renewed, now=datetime.now(UTC))]


def test_a_certificate_that_ends_soon_is_told() -> None:
    assert ending((-60, 31)) == []
    assert ending((-60, 29)) == [28]
    assert ending((-60, -2)) == [-3]
    # One that renews itself does that when a third is left.
    assert ending((-60, 29), renewed=True) == []
    assert ending((-80, 10), renewed=True) == [9]
    assert ending((-4, 2), renewed=True) == []


def test_certificates_of_the_inventory_are_told_by_their_variables() -> None:
    served, root, leaf = make("shop.test"), make("A root", days=(-1, 5)), make("shop.test", days=(-1, 300))
    given = [
        expiry.Given("nginx_tls_certificate", served.pem),
        expiry.Given("nginx_tls_ca_bundle", leaf.pem + root.pem),
    ]
    told = list(expiry.certificates(served.certificate, given, renewed=False, now=datetime.now(UTC)))
    assert [entry.what for entry in told] == ["the certificate that is served", "A root in nginx_tls_ca_bundle"]
    assert list(expiry.another(served.certificate, given)) == []
    (other,) = expiry.another(leaf.certificate, given)
    assert "another one than the inventory gives" in other.words
    assert list(expiry.another(None, given)) == list(expiry.another(leaf.certificate, [])) == []


def test_secrets_and_waivers_that_are_due_are_told() -> None:
    since = {"keyring/v1": (TODAY - timedelta(days=70)).isoformat(), "keyring/v2": TODAY.isoformat()}
    (due,) = expiry.secrets(since, 92, TODAY)
    assert (due.days_left, due.until) == (22, TODAY + timedelta(days=22))
    assert "keyring/v1" in due.what
    entries = [{"id": "A-1", "until": (TODAY + timedelta(days=days)).isoformat()} for days in (31, 30, -1)]
    assert [entry.days_left for entry in expiry.waivers(entries, TODAY)] == [30, -1]


# --- All of it. ---

LEAF = make("shop.test", days=(-1, 300))
SAID: dict[str, Any] = {
    "openings": [{"ports": [22]}, {"ports": [80, 443]}],
    "known": [],
    "waivers": [],
    "release": "",
    "address": "192.0.2.1",
    "domain": "shop.test",
    "renewed": False,
    "secret_age_days": 92,
    "certificates": {"nginx_tls_certificate": LEAF.pem, "nginx_tls_ca_bundle": ""},
}
COLLECTED: dict[str, Any] = {
    "sockets": SOCKETS,
    "groups": GROUPS,
    "units": "\n\n".join(f"Id={name}\nFragmentPath={OF_ROLES}" for name in NAMES),
    "unit_files": {},
    "uptime": 4000.0,
    "owners": {},
    "verify": "",
    "own": {},
    "tried": {},
    "secrets": {"keyring/v1": TODAY.isoformat()},
}


@pytest.fixture
def _serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host serve the certificate that is given."""
    monkeypatch.setattr(expiry, "fetch", lambda *_: LEAF.certificate)


def judge(said: dict[str, Any] | None = None, collected: dict[str, Any] | None = None, **check: Any) -> Drift:  # noqa: ANN401
    return drift.judge(Check(said=SAID | (said or {}), **check), COLLECTED | (collected or {}), "v1.2.0", hide)


@pytest.mark.usefixtures("_serves")
def test_of_a_host_that_is_as_it_would_be_made_nothing_is_told() -> None:
    assert judge() == Drift()
    assert judge().none
    assert judge({"release": "v1.2.0"}).none
    assert judge({"release": "latest"}).none


@pytest.mark.usefixtures("_serves")
def test_another_release_is_told_by_its_name() -> None:
    (found,) = judge({"release": "v1.3.0"}).differences
    assert (found.kind, found.words) == (Kind.RELEASE, "serves v1.2.0, and webhook_app_release names v1.3.0")


@pytest.mark.usefixtures("_serves")
def test_what_the_inventory_knows_is_not_told_and_what_the_playbook_changes_is_all_the_same() -> None:
    stray = {"unit_files": {f"{ETC}/agent.service": f"{ETC}/agent.service"}, "verify": VERIFY.splitlines()[1]}
    known = [{"what": "agent.service", "reason": "ours"}, {"what": "/usr/bin/curl", "reason": "a build of our own"}]
    assert len(judge(collected=stray).differences) == 2
    assert judge({"known": known}, stray).none
    setting = Difference(Kind.SETTING, "agent.service", "", "")
    assert judge({"known": known}, stray, differences=[setting]).differences == [setting]


@pytest.mark.usefixtures("_serves")
@pytest.mark.parametrize(
    "known",
    [
        {},
        ["agent.service"],
        [{"what": "a"}],
        [{"what": "a", "reason": ""}],
        [{"what": "a", "reason": None}],
        "agent.service",
    ],
)
def test_what_the_inventory_knows_without_a_reason_is_told(known: object) -> None:
    (words,) = judge({"known": known}).not_seen
    assert "verify_known wants a list of what and reason" in words


@pytest.mark.usefixtures("_serves")
def test_what_could_not_be_looked_at_is_never_called_equal() -> None:
    assert "did not come to its end, so more may differ. role nginx: no" in judge(fault="role nginx: no").not_seen[0]
    nothing = drift.judge(Check(fault="unreachable"), "bash: python3: command not found", "", hide)
    assert len(nothing.not_seen) == 3
    assert "python3: command not found" in nothing.not_seen[2]
    assert "ss is not there" in judge(collected={"sockets": None}).not_seen[0]
    assert "verify_waivers can't be read" in judge({"waivers": [{"id": "A-1"}]}).not_seen[0]
    unread = judge({"certificates": {"certbot_ca_bundle": "no PEM"}}).not_seen[0]
    assert unread.startswith("certbot_ca_bundle holds no certificates that can be read")
    # The other parts are told all the same.
    assert len(drift.judge(Check(fault="x"), COLLECTED | {"verify": VERIFY}, "", hide).differences) == 4


def test_a_front_door_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(expiry, "fetch", refuse)
    assert "192.0.2.1 port 443: [Errno 111] Connection refused" in judge().not_seen[0]


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
