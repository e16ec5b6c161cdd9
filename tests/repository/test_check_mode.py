"""What is made of a check run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.check_runs import HIDDEN, TEMPLATE, event, hide, only, read
from tests.verify import check_mode
from tests.verify.checklist import ROOT
from tests.verify.difference import Kind
from tests.verify.target import Target

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
    long = "x" * (check_mode.DIFF_CHARACTERS - 10) + HIDDEN
    changed = TEMPLATE | {"diff": [{"before": f"{long}\n", "after": "none\n", "before_header": "/etc/x"}]}
    failed = event({"failed": True, "msg": f"can't: {HIDDEN}"}, _event="v2_runner_on_failed")
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
