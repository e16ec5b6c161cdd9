"""A clone of this repository, and the demo host that `make up` makes there, once for all tests of this folder.

They run in one process, in their order: each goes on from where the one before was stopped.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tree import ROOT, commit, copy_tree
from tests.verify.sabotage import Place

from .runs import Runs, break_and_mend

PODMAN = ROOT / "scripts" / "podman"
# Of inventories/demo.
INVENTORY = HOST = "demo"
DRILLS = "/var/lib/molam-backup/drill/results.jsonl"


@dataclass(frozen=True)
class Demo:
    """The demo host that is up: its clone, the port for HTTPS on this machine, and what `make up` said."""

    clone: Path
    port: str
    said: str

    @property
    def place(self) -> Place:
        """Return where a verification finds it."""
        return Place(self.clone, INVENTORY, HOST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take the demo host down when all others are done with it, in whichever file they stand."""
    items.sort(key=lambda item: item.name == "test_down")


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a clone of this tree as it is; its demo host is gone at the end in any case."""
    folder = tmp_path_factory.mktemp("demo") / "clone"
    folder.mkdir()
    copy_tree(folder)
    commit(folder, "As it is")
    yield folder
    containers: list[str | Path] = [PODMAN, "ps", "--all", "--quiet", f"--filter=label=molam.checkout={folder}"]
    for container in subprocess.run(containers, capture_output=True, text=True, check=True).stdout.split():
        subprocess.run([PODMAN, "rm", "--force", container], check=True)


@pytest.fixture(scope="session")
def demo(clone: Path) -> Demo:
    """Return the demo host, up, a backup of it made and restored in a drill."""
    port = free_port()
    answer = make(clone, "up", DEMO_HTTPS_PORT=port, DEMO_HTTP_PORT=free_port())
    assert answer.returncode == 0, answer.stdout[-3000:]
    up = Demo(clone, port, answer.stdout)
    ssh = ["ssh", "-F", ".state/ssh/config", up.place.address]
    # A drill that runs already is waited for.
    drill = f"grep -q '\"passed\": true' {DRILLS} || systemctl start molam-backup-drill"
    subprocess.run([*ssh, drill], cwd=clone, check=True)
    return up


@pytest.fixture(scope="session")
def runs(demo: Demo) -> Runs:
    """Return verifications of the demo host, broken and mended."""
    return break_and_mend(demo.place)


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in a clone; its output has what went wrong as well."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env=os.environ | {"ANSIBLE_FORCE_COLOR": "0"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def free_port() -> str:
    """Return a port of this machine that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])
