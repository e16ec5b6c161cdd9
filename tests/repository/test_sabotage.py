"""What is broken on purpose is mended again, whatever goes wrong; shown on this machine in place of a host."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.verify import sabotage
from tests.verify.sabotage import Place, Sabotage, SabotageError

ADDRESS = """#!/bin/sh
echo '{"ansible_host": "192.0.2.1"}'
"""
HERE = """#!/bin/sh
exec bash
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return a place whose host is this machine, with a file to change."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"ansible-inventory": ADDRESS, "ssh": HERE}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    # Found before those that are beside Python.
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sabotage, "ON_HOST", sabotage.ON_HOST.replace("/run/molam-sabotage", f"{tmp_path}/kept"))
    file = tmp_path / "file"
    file.write_text("closed\n")
    file.chmod(0o640)
    return Place(tmp_path, "none", "none")


def state(place: Place) -> tuple[str, int]:
    """Return what the file holds, and its mode."""
    file = place.clone / "file"
    return file.read_text(), file.stat().st_mode & 0o777


def test_what_was_changed_is_put_back(place: Place) -> None:
    file = place.clone / "file"
    batch = [
        Sabotage("open it", {"A-1": "open"}, host=f"change {file} 's/closed/open/'"),
        Sabotage("let all read it", {"A-2": "read"}, host=f"keep {file}; chmod 644 {file}"),
        Sabotage("leave a file", {"A-3": "left"}, clone="touch left", undo_clone="rm -f left"),
    ]
    with sabotage.sabotaged(place, batch):
        assert state(place) == ("open\n", 0o644)
        assert (place.clone / "left").exists()
    assert state(place) == ("closed\n", 0o640)
    assert not (place.clone / "left").exists()
    assert not (place.clone / "kept").exists()
    # Once more, it finds nothing to do.
    sabotage.undo(place, batch)
    assert state(place) == ("closed\n", 0o640)


def test_what_was_made_is_taken_back_when_something_fails(place: Place) -> None:
    batch = [
        Sabotage("open it", {"A-1": "open"}, host=f"change {place.clone}/file 's/closed/open/'"),
        Sabotage("fail", {"A-2": "no"}, host="echo no such thing; false"),
    ]
    with pytest.raises(SabotageError, match="fail: no such thing"), sabotage.sabotaged(place, batch):
        pytest.fail("it is as if it had been made")
    assert state(place) == ("closed\n", 0o640)


def test_one_that_cannot_be_taken_back_keeps_no_other_from_it(place: Place) -> None:
    batch = [
        Sabotage("stay", {"A-1": "x"}, clone="true", undo_clone="echo still here; false", undo="echo there too; false"),
        Sabotage("go", {"A-2": "x"}, host=f"touch {place.clone}/left", undo=f"rm {place.clone}/left"),
    ]
    with pytest.raises(SabotageError, match=r"(?s)still here.*stay: there too"), sabotage.sabotaged(place, batch):
        assert (place.clone / "left").exists()
    assert not (place.clone / "left").exists()


def test_a_change_that_changes_nothing_is_told(place: Place) -> None:
    one = Sabotage("open it", {"A-1": "open"}, host=f"change {place.clone}/file 's/locked/open/'")
    with pytest.raises(SabotageError, match="open it"):
        sabotage.make(place, [one])


def test_no_two_of_a_batch_break_the_same_line_and_none_is_full() -> None:
    names = ["a", "b", "c", "d"]
    breaks = [{"A-1": "", "A-2": ""}, {"A-2": ""}, {"A-3": ""}, {"A-1": ""}]
    made = sabotage.batches(Sabotage(name, ids) for name, ids in zip(names, breaks, strict=True))
    assert [[one.name for one in batch] for batch in made] == [["a"], ["b", "c", "d"]]
