"""Every line of the security checklist is shown by a test, broken by a sabotage that the test has to find, and mended
by what the advice names.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.verify import advice, checklist, sabotage
from tests.verify.checklist import ROOT
from tests.verify.sabotage import Sabotage

LINES = checklist.read()
SHOWN = checklist.tests_below(ROOT / "tests", ROOT / "app" / "tests")
# What a verification runs: tests/verify/run.py.
SAFE = {name for test in SHOWN for name in test.ids if not test.intrusive and test.path.parent.name == "host"}
SABOTAGES = sabotage.read()
ADVICE = yaml.safe_load(advice.FILE.read_text())


def test_the_tests_name_lines_of_the_checklist() -> None:
    """Of the app's tests too, which are collected apart."""
    assert len(SHOWN) > 50
    assert {name for test in SHOWN for name in test.ids} - LINES.keys() == set()


@pytest.mark.parametrize("name", LINES)
def test_a_test_shows_it(name: str) -> None:
    assert [test.name for test in SHOWN if name in test.ids] != []


@pytest.mark.parametrize("name", [name for name, line in LINES.items() if line.of_a_host])
def test_it_is_seen_on_a_host_that_serves_without_a_change(name: str) -> None:
    assert name in SAFE


@pytest.mark.parametrize("name", LINES)
def test_a_sabotage_breaks_it(name: str) -> None:
    """Whether it turns red then is seen on a host: tests/demo/test_sabotage.py."""
    assert [one.name for one in SABOTAGES if name in one.breaks] != []


@pytest.mark.parametrize("one", SABOTAGES, ids=lambda one: one.name)
def test_a_sabotage_is_whole(one: Sabotage) -> None:
    """It names lines, what is seen of them, and what it does, which a shell can read."""
    assert one.breaks
    assert one.breaks.keys() <= LINES.keys()
    assert all(one.breaks.values())
    assert one.host or one.clone or one.inventory
    assert set(one.then) <= sabotage.THEN.keys()
    assert bool(one.undo_clone) == bool(one.clone)
    for script in (one.host, one.undo, one.clone, one.undo_clone):
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_no_line_is_broken_by_two_sabotages_at_once() -> None:
    made = sabotage.batches(SABOTAGES)
    assert sorted(one.name for batch in made for one in batch) == sorted(one.name for one in SABOTAGES)
    for batch in made:
        broken = [name for one in batch for name in one.breaks]
        assert len(broken) == len(set(broken))


@pytest.mark.slow
@pytest.mark.parametrize("mark", ['"NET-99"', ""])
def test_a_mark_that_names_no_line_stops_the_tests(tmp_path: Path, mark: str) -> None:
    """The collection fails with the file's name and the id."""
    file = tmp_path / "test_x.py"
    file.write_text(f"import pytest\n@pytest.mark.checklist({mark})\ndef test_x():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", "pyproject.toml", str(file)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 4, answer.stdout
    assert "which is no line of" in answer.stderr + answer.stdout
    assert (mark.strip('"') or "nothing") in answer.stderr + answer.stdout


def test_marks_are_read_wherever_they_stand(tmp_path: Path) -> None:
    text = (
        'pytestmark = [pytest.mark.intrusive, pytest.mark.checklist("A-1")]\n'
        '@pytest.mark.checklist("A-2", "A-3")\ndef test_a(): ...\n'
        "def test_b(): ...\ndef helper(): ...\n"
    )
    (tmp_path / "test_some.py").write_text(text)
    (tmp_path / "test_none.py").write_text("def test_c(): ...\n")
    found = [(test.name, set(test.ids), test.intrusive) for test in checklist.tests_below(tmp_path)]
    assert found == [("test_a", {"A-1", "A-2", "A-3"}, True), ("test_b", {"A-1"}, True)]


def test_there_is_advice_for_each_line() -> None:
    assert list(ADVICE) == list(LINES)
    assert {type(text) for text in ADVICE.values()} == {str}


@pytest.mark.parametrize("name", LINES)
def test_what_the_advice_names_is_there(name: str) -> None:
    variables = set()
    for defaults in ROOT.glob("roles/*/meta/argument_specs.yml"):
        variables |= set(yaml.safe_load(defaults.read_text())["argument_specs"]["main"]["options"])
    named = set(
        re.findall(
            r"\b(?:molam|webhook_app|nginx|nftables|sshd|base|backup|log_rotation|monitoring|certbot|"
            r"fail2ban|sdk_hosting)_[a-z_]+\b",
            ADVICE[name],
        )
    )
    assert named - variables == set()
    files = re.findall(r"\b(?:docs|playbooks|scripts)/[\w/.-]+\w|\bsite\.yml", ADVICE[name])
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


@pytest.mark.checklist("APP-2")
def test_no_statement_is_made_of_what_somebody_sent() -> None:
    """Ruff knows statements that are put together; each one that is allowed says what it is made of."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=S608", "--output-format=concise"]
    answer = subprocess.run([*command, "app/src"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
    reasons = re.findall(r"noqa: S608 *(.*)", "".join(path.read_text() for path in (ROOT / "app/src").rglob("*.py")))
    assert reasons
    assert {reason for reason in reasons if not re.search(r"constants|ours", reason)} == set()
