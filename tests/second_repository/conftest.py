"""Fixtures of the checks of a second repository."""

from __future__ import annotations

from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from tests.host.conftest import site  # noqa: F401  a fixture, by the name it has here

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "10.89.77.82"
SSH_CONFIG = ROOT / ".state" / "ssh" / "config"


def reached(address: str) -> Host:
    """Return a host by its address."""
    return testinfra.get_host(f"ssh://root@{address}", ssh_config=str(SSH_CONFIG))


@pytest.fixture(scope="module")
def repository() -> Host:
    """Return the host of the second repository."""
    return reached(REPOSITORY)
