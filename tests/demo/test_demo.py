"""`make up` and `make down`, as somebody runs them who has just cloned the repository."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# In this order, in one process: each goes on from where the one before was stopped.
pytestmark = pytest.mark.xdist_group("demo")

ROOT = Path(__file__).resolve().parents[2]
PODMAN = ROOT / "scripts" / "podman"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a copy of all that a clone of this tree would have; its demo host is gone at the end in any case."""
    folder = tmp_path_factory.mktemp("demo") / "clone"
    files: list[str | Path] = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(files, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    yield folder
    containers: list[str | Path] = [PODMAN, "ps", "--all", "--quiet", f"--filter=label=molam.checkout={folder}"]
    for container in subprocess.run(containers, capture_output=True, text=True, check=True).stdout.split():
        subprocess.run([PODMAN, "rm", "--force", container], check=True)


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
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def test_a_port_that_is_taken_is_told(clone: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        answer = make(clone, "up", DEMO_HTTPS_PORT=str(port))
    assert answer.returncode == 2
    assert re.search(rf"port {port} is taken: .*{os.getpid()}", answer.stdout)
    assert "take another port: make up DEMO_HTTPS_PORT=" in answer.stdout


def test_podman_that_does_not_work_is_told(clone: Path, tmp_path: Path) -> None:
    stub = tmp_path / "bin" / "podman"
    stub.parent.mkdir()
    stub.write_text("#!/bin/sh\necho 'Error: no space for me' >&2\nexit 125\n")
    stub.chmod(0o755)
    answer = make(clone, "up", PATH=f"{stub.parent}:{os.environ['PATH']}")
    assert answer.returncode == 2
    assert "podman does not work here: Error: no space for me" in answer.stdout
    assert "run this again" in answer.stdout
    assert "Traceback" not in answer.stdout


def test_an_image_that_cannot_be_had_is_told(clone: Path) -> None:
    answer = make(clone, "up", MOLAM_TEST_IMAGE_13="localhost/molam-no-such-image:1")
    assert answer.returncode == 2
    assert "molam-no-such-image" in answer.stdout
    assert "Traceback" not in answer.stdout


def test_up_up_and_down(clone: Path) -> None:
    ports = {"DEMO_HTTPS_PORT": free_port(), "DEMO_HTTP_PORT": free_port()}
    first = make(clone, "up", **ports)
    assert first.returncode == 0, first.stdout[-3000:]
    assert re.search(r"answer +200\n", first.stdout)
    assert re.search(r"status +paid\n", first.stdout)
    assert f"https://webhook.localhost:{ports['DEMO_HTTPS_PORT']}/molam/webhook" in first.stdout
    assert re.search(r"all of it +\d+ s\n", first.stdout)
    # The ports are those that it has.
    second = make(clone, "up")
    assert second.returncode == 0, second.stdout[-3000:]
    assert re.search(r"^demo .* changed=0 .* failed=0 ", second.stdout, re.MULTILINE)
    assert re.search(r"status +paid\n", second.stdout)
    down = make(clone, "down")
    assert down.returncode == 0, down.stdout
    assert "Removed the host molam-demo." in down.stdout
    assert not [name for name in (".state", ".venv") if (clone / name).exists()]
    # Run again, it finds nothing to do.
    assert make(clone, "down").returncode == 0
