"""A mistake in what could lock everybody out: it undoes itself, and the play says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from .conftest import RULES, Target, make_mistake, ssh


@dataclass(frozen=True)
class Mistake:
    """A role, what shows its settings in use, variables that lock everybody out, and a file that it would refuse."""

    role: str
    in_use: str
    variables: dict[str, Any]
    refused: str
    word: str


MISTAKES = [
    Mistake(
        role="nftables",
        in_use=RULES,
        variables={"molam_administrator_networks": ["198.18.0.0/15"]},
        refused="table inet molam { nonsense }",
        word="nonsense",
    ),
    Mistake(
        role="sshd",
        in_use="cat /etc/ssh/sshd_config.d/00-molam.conf",
        variables={"sshd_groups": ["nogroup"]},
        refused="PermitRootLogin perhaps",
        word="perhaps",
    ),
]
each = pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.role)


@each
def test_what_locks_out_is_undone_and_the_play_says_so(host: Host, target: Target, mistake: Mistake) -> None:
    before = host.check_output(mistake.in_use)
    answer = make_mistake(host, mistake.role, **mistake.variables)
    assert answer.returncode == 2
    assert "has undone them by itself" in answer.stdout
    assert f"{mistake.role}_" in answer.stdout
    assert host.check_output(mistake.in_use) == before
    assert ssh(target.ipv4, "true").returncode == 0


@each
def test_what_is_refused_is_not_put_in_use(host: Host, mistake: Mistake) -> None:
    before = host.check_output(mistake.in_use)
    host.check_output(f"echo '{mistake.refused}' > /var/lib/molam-try/{mistake.role}")
    answer = host.run(f"molam-try {mistake.role}")
    assert answer.rc == 1
    assert mistake.word in answer.stderr
    assert host.check_output(mistake.in_use) == before
    assert host.check_output(f"molam-try {mistake.role}") == f"{mistake.role}: unchanged"
