"""What load_test.yml refuses before it sends anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .test_preflight import preflight

# Most of them run a playbook or a build.
pytestmark = pytest.mark.slow

STAGING = {"molam_environment": "staging"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ["host is production", "2000 payments that nobody made", "playbooks/smoke.yml"]),
        (STAGING | {"load_test_events": 50001}, ["load_test_events wants a number from 1 to 50000", "'50001'"]),
        (STAGING | {"load_test_concurrency": 257}, ["load_test_concurrency one from 1 to 256", "'257'"]),
        (STAGING | {"load_test_seconds": "soon"}, ["load_test_seconds one from 1 to 9999", "'soon'"]),
    ],
    ids=["production", "events", "concurrency", "seconds"],
)
def test_it_is_refused(tmp_path: Path, variables: dict[str, Any], words: list[str]) -> None:
    answer = preflight(tmp_path, variables, playbook="load_test.yml")
    assert answer.returncode == 2, answer.stdout
    message = " ".join(answer.stdout.split())
    assert "Nothing was sent." in message
    assert [word for word in words if word not in message] == []
    assert "events are called" not in message
