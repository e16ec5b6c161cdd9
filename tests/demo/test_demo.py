"""`make up` and `make down`, as somebody runs them who has just cloned the repository."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from .conftest import Demo, make


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


def test_up(demo: Demo) -> None:
    assert re.search(r"answer +200\n", demo.said)
    assert re.search(r"status +paid\n", demo.said)
    assert f"https://webhook.localhost:{demo.port}/molam/webhook" in demo.said
    assert re.search(r"all of it +\d+ s\n", demo.said)


def test_up_again(demo: Demo) -> None:
    """The ports are those that it has."""
    again = make(demo.clone, "up")
    assert again.returncode == 0, again.stdout[-3000:]
    assert re.search(r"^demo .* changed=0 .* failed=0 ", again.stdout, re.MULTILINE)
    assert re.search(r"status +paid\n", again.stdout)


def test_down(demo: Demo) -> None:
    down = make(demo.clone, "down")
    assert down.returncode == 0, down.stdout
    assert "Removed the host molam-demo." in down.stdout
    assert not [name for name in (".state", ".venv") if (demo.clone / name).exists()]
    # Run again, it finds nothing to do.
    assert make(demo.clone, "down").returncode == 0
