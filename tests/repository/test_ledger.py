"""What a host's ledger says: where a rollback goes, what is bad, what was cut off, and which releases stay on disk."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest


def tell(host: SimpleNamespace, story: str) -> None:
    """Write a ledger: "deploy A, rollback, deploy B failed"; a rollback that names none goes where it would."""
    for number, words in enumerate(story.split(", ")):
        action, *rest = words.split()
        done = rest[-1:] != ["failed"]
        entries = host.ledger.read()
        now = (host.ledger.path(entries) or [None])[-1]
        name = rest[0] if rest else host.ledger.before(entries)
        entry = host.ledger.Entry(f"2026-01-01T00:00:{number:02}Z", "alice", action, now, name)
        entry.result = host.ledger.DONE if done else host.ledger.FAILED
        host.ledger.append(entry)


@pytest.mark.parametrize(
    ("story", "serving", "goes_back_to"),
    [
        ("deploy A", "A", None),
        ("deploy A, deploy B", "B", "A"),
        ("deploy A, deploy B failed", "A", None),
        ("deploy A, deploy B, rollback", "A", None),
        ("deploy A, deploy B, deploy C, rollback", "B", "A"),
        ("deploy A, deploy B, deploy C, rollback, rollback", "A", None),
        # Not to what was left in a hurry.
        ("deploy A, deploy B, deploy C, rollback, deploy D", "D", "B"),
        ("deploy A, deploy B, rollback, deploy B", "B", "A"),
        ("deploy A, deploy B, bad A", "B", None),
        ("deploy A, deploy B, bad A, good A", "B", "A"),
        ("deploy A, deploy B, deploy C, bad B", "C", "A"),
        ("deploy A, deploy B, deploy C, rollback A", "A", None),
        ("deploy A, deploy B, deploy C, rollback A, deploy D", "D", "A"),
        # One that was not on the way: nothing that served is before it.
        ("deploy A, deploy B, rollback Z", "Z", None),
        # New settings are no other release.
        ("deploy A, deploy B, apply B, apply B", "B", "A"),
        ("deploy A, deploy B, deploy B", "B", "A"),
        ("deploy A, deploy B, deploy A", "A", "B"),
        # Where a host of several was there already, it only takes new settings.
        ("deploy A, deploy B, rollback B, deploy C", "C", "B"),
    ],
)
def test_where_a_rollback_goes(host: SimpleNamespace, story: str, serving: str, goes_back_to: str | None) -> None:
    tell(host, story)
    entries = host.ledger.read()
    assert host.ledger.path(entries)[-1] == serving
    assert host.ledger.before(entries) == goes_back_to


def test_a_release_that_a_rollback_left_is_bad_until_it_is_named(host: SimpleNamespace) -> None:
    tell(host, "deploy A, deploy B, rollback")
    assert host.ledger.bad(host.ledger.read()) == {"B": "left by the rollback of 2026-01-01T00:00:02Z"}
    tell(host, "deploy B failed")
    assert "B" in host.ledger.bad(host.ledger.read())
    tell(host, "deploy B")
    assert host.ledger.bad(host.ledger.read()) == {}


def test_a_line_that_was_cut_off_costs_no_other(host: SimpleNamespace) -> None:
    tell(host, "deploy A")
    with host.ledger.LEDGER.open("a") as file:
        file.write('{"at": "2026-01-01T00:0')
    tell(host, "deploy B")
    assert [entry.to_release for entry in host.ledger.read()] == ["A", "B"]


def begin(host: SimpleNamespace, before: str | None, now: str, action: str = "deploy") -> None:
    """Leave what an attempt leaves that is killed: begun when one slot served, while another serves now."""
    entry = host.ledger.Entry("2026-01-01T00:00:00Z", "alice", action, "A", "B", before=before)
    host.ledger.BEGUN.write_text(json.dumps(vars(entry)))
    host.slots.ACTIVE.symlink_to(f"slots/{now}")
    (host.root / "slots" / now).symlink_to("../releases/B")


def plan(host: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> str:
    """Return where a rollback says that it would go."""
    host.cli.rollback(host.cli.parse(["rollback", "--plan"]))
    target: str = json.loads(capsys.readouterr().out)["to"]
    return target


def test_a_deploy_that_was_cut_off_once_it_served_is_what_is_gone_back_from(
    host: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(host, "deploy Z, deploy A")
    begin(host, "a", "b")
    assert plan(host, capsys) == "A"
    host.cli.show(host.cli.parse(["ledger", "--json"]))
    assert json.loads(capsys.readouterr().out)["rollback"] == "A"


def test_a_rollback_that_was_cut_off_is_finished_by_the_same_again(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(host, "deploy Z, deploy B, deploy A")
    begin(host, "a", "b", "rollback")
    assert plan(host, capsys) == "B"
    monkeypatch.setattr(host.cli, "switch", lambda entry: f"to {entry.to_release}")
    for target in ("B", "Z"):
        host.cli.rollback(host.cli.parse(["rollback"]))
        assert capsys.readouterr().out == f"to {target}\n"


@pytest.mark.parametrize(("before", "now", "result"), [("a", "a", "cut off"), ("a", "b", "done"), (None, "a", "done")])
def test_what_was_cut_off_is_written_down(host: SimpleNamespace, before: str | None, now: str, result: str) -> None:
    begin(host, before, now)
    assert host.ledger.begun().to_release == "B"
    host.ledger.settle()
    host.ledger.settle()
    assert [(entry.to_release, entry.result) for entry in host.ledger.read()] == [("B", result)]
    assert host.ledger.begun() is None


def test_what_was_cut_off_before_it_was_written_had_not_begun(host: SimpleNamespace) -> None:
    host.ledger.BEGUN.write_text('{"at": "2026')
    host.ledger.settle()
    assert host.ledger.read() == []
    assert not host.ledger.BEGUN.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_an_attempt_is_written_down_however_it_ends(host: SimpleNamespace, *, fails: bool) -> None:
    host.slots.ACTIVE.symlink_to("slots/a")
    entry = host.ledger.Entry("2026-01-01T00:00:00Z", "alice", "deploy", "A", "B", before="a")

    def attempt() -> None:
        with host.ledger.recorded(entry) as step:
            assert host.ledger.begun() == entry
            step("fill", "slot b: fill")
            step("start", "slot b: start")
            if fails:
                raise OSError("no space left")

    if fails:
        with pytest.raises(OSError, match="no space left"):
            attempt()
    else:
        attempt()
    (written,) = host.ledger.read()
    assert (written.result, written.why) == (("failed", "no space left") if fails else ("done", ""))
    assert [*written.steps] == ["fill", "start"]
    assert host.ledger.begun() is None


def install(host: SimpleNamespace, *names: str) -> None:
    for name in names:
        folder = host.root / "releases" / name
        folder.mkdir(parents=True)
        (folder / "complete").touch()


def test_what_is_needed_stays_on_disk(host: SimpleNamespace) -> None:
    install(host, "A", "B", "C", "D", "never")
    tell(host, "deploy A, deploy B, deploy C, bad B, deploy D, bad C")
    (host.root / "slots" / "a").symlink_to("../releases/D")
    (host.root / "slots" / "b").symlink_to("../releases/C")
    assert host.ledger.before(host.ledger.read()) == "A"
    assert sorted(host.installed.prune(1)) == ["B", "never"]
    assert host.installed.names() == ["A", "C", "D"]
    assert host.installed.prune(1) == []


def test_what_served_last_stays_and_so_does_what_is_being_unpacked(host: SimpleNamespace) -> None:
    install(host, "A", "B", "C", "D")
    (host.root / "releases" / "E").mkdir()
    tell(host, "deploy A, deploy B, deploy C, deploy D")
    (host.root / "slots" / "a").symlink_to("../releases/D")
    assert host.installed.prune(3) == ["A"]
    assert (host.root / "releases" / "E").exists()
