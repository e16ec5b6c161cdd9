"""Who comes in over SSH, and how."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.verify.opinions import ssh_audit
from tests.verify.opinions.ask import ask

from .conftest import SSH, Target


def come_in(target: Target, user: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Try to come in as a user, over a connection of its own and without a question."""
    command: list[str | Path] = [
        *SSH,
        "-o",
        "ControlPath=none",
        "-o",
        "BatchMode=yes",
        *options,
        f"{user}@{target.ipv4}",
        "true",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.checklist("NET-2")
def test_passwords_are_not_taken(target: Target) -> None:
    answer = come_in(target, "root", "-o", "PubkeyAuthentication=no")
    assert answer.returncode == 255
    # What is in brackets is all that the server takes.
    assert "Permission denied (publickey)" in answer.stderr
    assert come_in(target, "root").returncode == 0


def test_who_is_in_no_group_of_administrators_stays_out(host: Host, target: Target) -> None:
    host.check_output("useradd --create-home visitor && install -d -o visitor -m 700 /home/visitor/.ssh")
    try:
        host.check_output("install -o visitor -m 600 /root/.ssh/authorized_keys /home/visitor/.ssh/")
        assert come_in(target, "visitor").returncode == 255
        host.check_output("usermod --append --groups sudo visitor")
        assert come_in(target, "visitor").returncode == 0
    finally:
        # A session takes a moment to end, and who still has a process is not removed. A kill would leave a
        # unit that has failed.
        host.run("loginctl terminate-user visitor")
        host.check_output("timeout 20 sh -c 'while pgrep -u visitor; do sleep 0.1; done'; userdel --remove visitor")


def test_ssh_audit_has_nothing_to_say(host: Host) -> None:
    (opinion,) = ask(host, [ssh_audit.NAME])
    assert opinion.figure.startswith("passes the policy Hardened Debian "), opinion.note
    assert (opinion.unanswered, opinion.unfollowed) == ([], [])
