"""Runs the tests of the checklist on one host, and reads what they saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.verify.checklist import ROOT, tests_below
from tests.verify.result import Look, State
from tests.verify.target import Target, VerifyError

# Tests that a verification runs: of the host, and of the repository that it is made from.
FOLDERS = (ROOT / "tests" / "host", ROOT / "tests" / "repository")
# Each reads all the tests before it runs some, and then waits most of the time.
PROCESSES = 3
# One that hangs is a failure of the run, not of a line.
SECONDS_AT_MOST = 600
# pytest cuts nothing short then: half a secret would not be found in what a test says.
UNCUT = ["-vv"]


def run_tests(of: Target, answers: Mapping[str, Any], *, intrusive: bool = False) -> list[Look]:
    """Run the tests that name lines, those that change the host only where that is wanted; raise VerifyError.

    The answers are the inventory's, by expression, so that the tests need not ask for them (`tests.host.inventory`).
    """
    # The others would be read for nothing, which takes each process seconds.
    files = sorted({str(test.path) for test in tests_below(*FOLDERS) if intrusive or not test.intrusive})
    with tempfile.TemporaryDirectory() as folder:
        # For this user alone, as the folder is: there are secrets in it.
        known, file = Path(folder) / "answers.json", Path(folder) / "looks.json"
        known.write_text(json.dumps(answers))
        command = [sys.executable, "-m", "pytest", *files, "-p", "tests.verify.plugin"]
        command += ["--intrusive"] if intrusive else []
        command += ["-m", "checklist", f"--verify-looks={file}", f"--verify-answers={known}", "-p", "no:cacheprovider"]
        command += [f"--ansible-inventory={of.inventory}", f"--hosts=ansible://{of.name}"]
        command += [*UNCUT, "--tb=short", "--color=no", f"--numprocesses={PROCESSES}", "--dist=loadfile"]
        command += [f"--ssh-config={of.ssh_config}"] if of.ssh_config else []
        command += ["--sudo"] if of.sudo else []
        environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
        try:
            answer = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS_AT_MOST,
            )
        except subprocess.TimeoutExpired:
            raise VerifyError(f"the tests did not end within {SECONDS_AT_MOST} s") from None
        # 1 is that tests failed; beyond it pytest did not run them all.
        if answer.returncode not in (0, 1) or not file.exists():
            raise VerifyError(f"pytest ended with {answer.returncode}:\n{(answer.stdout + answer.stderr)[-2000:]}")
        kept: list[dict[str, Any]] = json.loads(file.read_text())
    return [Look(**look | {"ids": tuple(look["ids"]), "state": State(look["state"])}) for look in kept]
