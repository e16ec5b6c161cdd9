"""Lynis has no warning, and no suggestion that tests/verify/opinions/answers.yml does not answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.verify.opinions import lynis
from tests.verify.opinions.ask import ask
from tests.verify.opinions.opinion import Opinion

pytestmark = pytest.mark.intrusive

# What Lynis leaves behind by itself, and what it is given for its report.
TRACES = "ls -d /var/log/lynis* /run/lynis* /run/molam-opinion* /tmp/lynis*"


@pytest.fixture(scope="module")
def opinion(host: Host) -> Iterator[Opinion]:
    """Return what Lynis says."""
    # A fix that Debian published since the host was made is no fault of it: what brings it each night brings it now.
    host.check_output("apt-get update --quiet && unattended-upgrade")
    host.check_output("apt-get install --yes --quiet --no-install-recommends lynis 2>&1")
    (opinion,) = ask(host, [lynis.NAME])
    yield opinion
    host.check_output("apt-get purge --yes --quiet lynis 2>&1")


def test_it_looked_at_the_host(opinion: Opinion) -> None:
    assert opinion.note == ""
    # Some are never followed.
    assert {"LOGG-2154", "SSH-7408 MaxSessions"} <= {finding.id for finding in opinion.unfollowed}
    assert opinion.figure.startswith("hardening index ")


def test_nothing_is_warned_of_and_each_suggestion_is_followed_or_answered(opinion: Opinion) -> None:
    """No answer fits a warning."""
    assert opinion.unanswered == []
    assert [finding for finding in opinion.unfollowed if finding.id.startswith("warning ")] == []


def test_nothing_is_left(host: Host, opinion: Opinion) -> None:
    assert opinion.version
    assert host.run(TRACES).stdout == ""
