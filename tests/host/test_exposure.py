"""How open each unit is: systemd's own score, where 0 is closed and 10 is open."""

from __future__ import annotations

from testinfra.host import Host

from tests.verify.opinions import systemd_analyze
from tests.verify.opinions.answers import answered

from .conftest import exposures

# Debian's units that can be closed altogether. Those that can't have an answer, up to a score.
THEIRS_AT_MOST = {"postgresql": 0.4, "valkey-server": 0.2, "redis-server": 0.2}


def test_every_unit_of_ours_is_closed(host: Host) -> None:
    # Of a template, the score of an instance.
    units = "systemctl list-unit-files --no-legend --plain 'molam*.service' undo-changes.service | cut -d ' ' -f 1"
    scores = exposures(host, f"{units} | sed s/@/@a/")
    assert {"molam", "molam-check", "molam-webhook@a", "molam-webhook-worker@a"} <= set(scores)
    assert {unit: score for unit, score in scores.items() if score > systemd_analyze.CLOSED} == {}


def test_the_units_of_others_are_closed_as_far_as_they_work(host: Host) -> None:
    units = " ".join(f"'{name}.service' '{name}@*.service'" for name in THEIRS_AT_MOST)
    running = f"systemctl list-units --no-legend --plain --state running {units} | cut -d ' ' -f 1"
    scores = exposures(host, running)
    assert "postgresql" in {unit.partition("@")[0] for unit in scores}
    limits = {unit: THEIRS_AT_MOST[unit.partition("@")[0]] for unit in scores}
    assert {unit: score for unit, score in scores.items() if score > limits[unit]} == {}


def test_what_is_more_open_has_an_answer(host: Host) -> None:
    opinion = answered(systemd_analyze.read(host.check_output(systemd_analyze.COMMAND)), kinds=())
    assert opinion.unanswered == []
    # certbot's is there in tests/acme.
    assert "nginx" in {finding.id for finding in opinion.unfollowed}
