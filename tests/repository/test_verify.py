"""What becomes of what tests saw: verdicts, waivers, changes, and the report in each form."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.verify import looking, plugin, render, run, target
from tests.verify.checklist import ROOT, Line
from tests.verify.difference import Difference, Drift, Expiring, Kind
from tests.verify.opinions.opinion import Finding, Opinion
from tests.verify.result import (
    Head,
    Look,
    Report,
    State,
    Verdict,
    Waiver,
    changes,
    in_words,
    judge,
    read_waivers,
    shortened,
    states_of,
)

PASSED, FAILED, WAIVED = State.PASSED, State.FAILED, State.WAIVED
NOT_APPLICABLE, NOT_TESTABLE = State.NOT_APPLICABLE, State.NOT_TESTABLE
TODAY = date(2027, 1, 31)
LINES = {"A-1": Line("The first", frozenset({"host"}))}
HOSTILE = '<script>alert(1)</script> | `x` \0 & "quoted" ]]> \\|'
DRIFT = Drift(
    [Difference(Kind.LISTENER, f"port 9/tcp {HOSTILE}", HOSTILE, "stop it", diff=(f"- {HOSTILE}", "+ what would be"))],
    [Expiring(f"the certificate {HOSTILE}", date(2027, 2, 3), 3, "renew it")],
    [f"Listeners: {HOSTILE}"],
)
HEAD = Head("web-1", "hooks.shop.test", "production", "v1.2.0", "0123456789abcdef", "2027-01-31T10:00:00Z", 41.6)


def look(state: State, test: str = "t.py::test_it", seen: str = "") -> Look:
    return Look(test, ("A-1",), in_words(test), state, seen)


def verdict(*looks: Look, waivers: tuple[Waiver, ...] = ()) -> Verdict:
    (found,) = judge(LINES, looks, waivers, {"A-1": "do this"}, TODAY)
    return found


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ([PASSED, PASSED], PASSED),
        ([PASSED, FAILED, NOT_APPLICABLE], FAILED),
        ([NOT_APPLICABLE, PASSED, NOT_TESTABLE], PASSED),
        ([NOT_APPLICABLE, NOT_APPLICABLE], NOT_APPLICABLE),
        ([NOT_APPLICABLE, NOT_TESTABLE], NOT_TESTABLE),
        ([], NOT_TESTABLE),
    ],
)
def test_how_a_line_stands(states: list[State], wanted: State) -> None:
    found = verdict(*(look(state, f"t.py::test_{number}") for number, state in enumerate(states)))
    assert found.state is wanted
    assert found.mend == ("do this" if wanted is FAILED else "")
    # The cases of one test stand together as tests do.
    if states:
        (merged,) = verdict(*(look(state, f"t.py::test_it[{i}]", state.name) for i, state in enumerate(states))).looks
        assert (merged.state, merged.seen) == (wanted, wanted.name)


def test_a_test_of_another_line_is_no_matter() -> None:
    assert verdict(replace(look(FAILED), ids=("A-2",))).state is NOT_TESTABLE


@pytest.mark.parametrize(
    ("until", "seen", "state", "words"),
    [
        (TODAY, FAILED, WAIVED, "Waived until 2027-01-31: no room"),
        (date(2027, 1, 30), FAILED, FAILED, "Its waiver ended on 2027-01-30: no room"),
        (TODAY, PASSED, PASSED, "a waiver that it does not need"),
    ],
)
def test_a_waiver_holds_until_its_day_is_over(until: date, seen: State, state: State, words: str) -> None:
    found = verdict(look(seen), waivers=(Waiver("A-1", "no room", until),))
    assert found.state is state
    assert words in found.note


GOOD = {"id": "A-1", "reason": "no room", "until": "2027-01-31"}


def test_good_waivers() -> None:
    assert read_waivers([GOOD], LINES) == [Waiver("A-1", "no room", TODAY)]
    # As YAML reads a date.
    assert read_waivers([GOOD | {"until": TODAY}], LINES) == read_waivers([GOOD], LINES)
    assert read_waivers([], LINES) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"A-1": "x"}, "wants a list"),
        (["A-1"], "entry 1: wants id, reason and until"),
        ([{"id": "A-1", "reason": "x"}], "entry 1 (A-1): wants id, reason and until"),
        ([GOOD | {"untill": 1}], "nothing else"),
        ([GOOD | {"id": "A-9"}], "(A-9): is no line of the checklist"),
        ([GOOD | {"reason": " "}], "its reason is empty"),
        ([GOOD | {"until": "31.1.2027"}], "until wants a date such as 2027-01-31, and is '31.1.2027'"),
        ([GOOD, GOOD], "entry 2 (A-1): stands there twice"),
    ],
)
def test_a_bad_waiver_is_told(value: object, words: str) -> None:
    with pytest.raises(ValueError, match="verify_waivers") as fault:
        read_waivers(value, LINES)
    assert words in str(fault.value)


def test_every_bad_waiver_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"entry 1 .*\n.*entry 2 "):
        read_waivers([GOOD | {"id": "A-8"}, GOOD | {"id": "A-9"}], LINES)


def report(*states: State, **others: Any) -> Report:  # noqa: ANN401  any field of a report
    looks = {state: [look(state, seen=HOSTILE)] for state in State}
    verdicts = [
        Verdict(f"A-{n}", HOSTILE, state, looks[state], "do <this>" if state in (FAILED, WAIVED) else "", f"note {n}")
        for n, state in enumerate(states, 1)
    ]
    return Report(HEAD, verdicts, **others)


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        (None, "1 of 1 lines hold"),
        (Drift(), "1 of 1 lines hold; nothing differs"),
        (DRIFT, "1 of 1 lines hold; 1 differ, 1 end soon, 1 could not be looked at"),
    ],
)
def test_what_differs_is_in_the_result(drift: Drift | None, words: str) -> None:
    made = report(PASSED, drift=drift)
    assert render.sentence(made) == words
    assert (made.as_json()["drift"] is None) == (drift is None)
    assert ("Compared with" in render.junit(made)) == (drift is not None)


def test_what_changed_is_what_stands_otherwise() -> None:
    now = report(PASSED, FAILED, PASSED)
    assert changes(now.verdicts, {"A-1": "passed", "A-2": "passed"}) == [
        "A-2: passed, now failed",
        "A-3: unknown, now passed",
    ]
    assert changes(now.verdicts, states_of(json.loads(render.as_json(now)))) == []


def test_a_waiver_is_no_pass_and_no_failure() -> None:
    assert report(PASSED, WAIVED, FAILED, NOT_APPLICABLE, NOT_TESTABLE).score == "1 of 3"
    assert not report(PASSED, WAIVED).failed
    assert report(PASSED, FAILED).failed
    assert render.sentence(report(PASSED)) == "1 of 1 lines hold"
    assert render.sentence(report(PASSED, FAILED, WAIVED)) == "1 of 3 lines hold; 1 failed, 1 waived"


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str | None] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "style", "onclick")]

    def handle_data(self, data: str) -> None:
        self.text += data


OPINIONS = [
    Opinion(
        "lynis",
        "3.1",
        "hardening index 80",
        40,
        [Finding("A-9", HOSTILE, "why not")],
        [Finding("A-8", HOSTILE)],
        "a note",
    ),
    Opinion("oscap", note="not installed on the host"),
]
ALL = report(*State, changes=[HOSTILE], drift=DRIFT, opinions=OPINIONS)


@pytest.mark.checklist("APP-3")
def test_the_page_is_one_file_and_runs_nothing() -> None:
    page = Page(render.html(ALL))
    assert {"script", "link", "img", "iframe"}.isdisjoint(page.tags)
    assert page.addresses == []
    # Of each line twice; of the changes once; of what differs, ends or was not seen five times; of findings twice.
    assert page.text.count("<script>alert(1)</script>") == 2 * len(State) + 1 + 5 + 2


def test_the_page_says_what_is_known() -> None:
    text = " ".join(Page(render.html(ALL)).text.split())
    for words in (
        "web-1",
        "v1.2.0, commit 0123456789ab",
        "2027-01-31 10:00:00 UTC, in 42 s",
        "hooks.shop.test (production)",
    ):
        assert words in text
    assert text.count("To do: do <this>") == 2
    # What fails is read first, then what differs on the host.
    sections = [f"{state.value.capitalize()}: 1" for state in render.ORDER]
    sections[len(render.FIRST) : len(render.FIRST)] = ["Differs from what the playbook would make: 1", "Ends soon: 1"]
    order = [text.index(section) for section in [*sections, "Outside opinions: 2"]]
    assert order == sorted(order)
    for words in ("To do: stop it", "3 days left", "To do: renew it", "Not looked at: Listeners", "Not answered: A-8"):
        assert words in text
    assert "lynis 3.1 hardening index 80" in text
    assert "oscap no opinion not installed on the host" in text
    assert "This is the first report." in Page(render.html(report(PASSED))).text
    assert "Nothing changed." in Page(render.html(report(PASSED, changes=[]))).text
    assert "No test looked at it." in Page(render.html(Report(HEAD, [verdict()]))).text


def test_markdown_has_a_row_for_each_line_and_nothing_breaks_it() -> None:
    text = render.markdown(ALL)
    rows = [line for line in text.splitlines() if line.startswith("| A-")]
    assert len(rows) == len(State)
    # What stands between unescaped bars.
    assert {len(row.replace("\\\\", "").replace("\\|", "").split("|")) for row in rows} == {6}
    tables = [line for line in text.splitlines() if line.startswith("| ") and line not in rows]
    widths = [len(row.replace("\\\\", "").replace("\\|", "").split("|")) for row in tables]
    # Heads and rows: lines, what differs, what ends, tools.
    assert widths == [6, 5, 5, 6, 6, 6, 6, 6]
    assert "<script>" not in text
    assert "this is the first one" in render.markdown(report(PASSED))


def test_junit_is_what_ci_counts() -> None:
    suite = ElementTree.fromstring(render.junit(ALL))  # noqa: S314  our own
    assert {name: suite.attrib[name] for name in ("tests", "failures", "skipped", "errors")} == {
        "tests": "5",
        "failures": "1",
        "skipped": "3",
        "errors": "0",
    }
    cases = {case.attrib["name"][:3]: [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == dict(
        zip(
            ["A-1", "A-2", "A-3", "A-4", "A-5"],
            [["system-out"], ["failure"], ["skipped"], ["skipped"], ["skipped"]],
            strict=True,
        )
    )
    (failure,) = suite.iter("failure")
    assert failure.attrib["message"] == "do <this>"
    assert "alert(1)" in (failure.text or "")


TESTS = """
import pytest
from tests.conftest import not_applicable, not_testable
mark = pytest.mark.checklist("NET-1", "NET-2")
@pytest.fixture
def broken(): raise RuntimeError("no setup")
@pytest.fixture
def left(): yield; raise RuntimeError("left behind")
@mark
def test_passes(saw): saw("one"); saw("two")
@mark
def test_fails(saw): saw("one"); assert 1 == 2
@mark
def test_cannot_begin(broken): ...
@mark
def test_leaves_something(left): ...
@mark
def test_does_not_apply(): not_applicable("x is false")
@mark
def test_is_not_for_here(): not_testable("a container")
@mark
@pytest.mark.skip(reason="some other reason")
def test_is_skipped(): ...
def test_of_something_else(): ...
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--numprocesses=2"]], ids=["alone", "side by side"])
def test_how_each_test_ended_is_kept(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_x.py").write_text(TESTS)
    file = tmp_path / "looks.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "tests.verify.plugin", *options]
    command += ["-c", "pyproject.toml", "-m", "checklist", f"--verify-looks={file}", str(tmp_path / "test_x.py")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    kept = {entry["what"]: entry for entry in json.loads(file.read_text())}
    assert {what: entry["state"] for what, entry in kept.items()} == {
        "passes": "passed",
        "fails": "failed",
        "cannot begin": "failed",
        "leaves something": "failed",
        "does not apply": "not applicable",
        "is not for here": "not testable here",
        "is skipped": "not testable here",
    }
    assert {tuple(entry["ids"]) for entry in kept.values()} == {("NET-1", "NET-2")}
    assert kept["passes"]["seen"] == "one; two"
    assert kept["fails"]["seen"] == "one; it is 1, and should be 2"
    assert "no setup" in kept["cannot begin"]["seen"]
    assert kept["does not apply"]["seen"] == "x is false"
    assert kept["is skipped"]["seen"] == "some other reason"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("assert 'on' == 'off'", "it is 'on', and should be 'off'"),
        ("assert 3 <= 2", "it is 3, and should be 2 at the most"),
        ("assert 'a' not in ['a']", "'a' is in ['a']"),
        ("assert not {'port 81'}", "there is {'port 81'}, and should be nothing"),
        ("assert False", "it does not hold"),
        ("assert []", "it does not hold"),
        ("assert <Response [200]>.ok", "<Response [200]>.ok"),
        ("assert (False or None)", "(False or None)"),
        ("the timer is off", "the timer is off"),
        ("ConnectionError: refused", "ConnectionError: refused"),
    ],
)
def test_what_did_not_hold_is_told_in_words(said: str, words: str) -> None:
    assert plugin.compared(said) == words


def test_no_secret_is_told_by_a_test_that_failed() -> None:
    secrets = sorted(["whsec_long_one", "whsec_long_one_and_more"], key=len, reverse=True)
    assert run.without(secrets, "it is whsec_long_one_and_more, not whsec_long_one") == "it is ***, not ***"


@pytest.mark.slow
def test_what_a_test_compared_is_not_cut_before_its_secrets_are_taken_out(tmp_path: Path) -> None:
    """As pytest would: in the middle, so that half of one would be left."""
    (tmp_path / "test_x.py").write_text(
        "import pytest\n@pytest.mark.checklist('NET-1')\n"
        "def test_x():\n    text = 'x' * 110 + 'whsec_long_one' + 'x' * 9000\n    assert 'long_one' not in text\n"
    )
    file = tmp_path / "looks.json"
    command = [sys.executable, "-m", "pytest", *looking.UNCUT, "-p", "tests.verify.plugin", "-c", "pyproject.toml"]
    command += [f"--verify-looks={file}", str(tmp_path / "test_x.py")]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert "whsec_long_one" in json.loads(file.read_text())[0]["seen"]


def test_a_long_text_is_cut() -> None:
    assert shortened("a  b\nc") == "a b c"
    assert shortened("x" * 500) == "x" * 299 + "…"


def test_reports_are_their_owners_and_the_newest_that_can_be_read_is_compared(tmp_path: Path) -> None:
    folder = tmp_path / "web-1"
    assert run.newest(folder) is None
    run.write(report(FAILED), folder, "2027-01-30")
    run.write(report(PASSED), folder, "2027-01-31")
    assert run.newest(folder) == {"A-1": "passed"}
    (folder / "2027-01-31.json").write_text("{")
    assert run.newest(folder) == {"A-1": "failed"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in folder.iterdir()} == {".html", ".md", ".xml", ".json"}


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([report(PASSED, WAIVED)], 0),
        ([report(PASSED), report(FAILED)], 1),
        ([report(FAILED), target.VerifyError("it is not reached")], 2),
    ],
)
def test_what_ci_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], outcomes: list[Any], status: int
) -> None:
    names = [f"web-{number}" for number in range(len(outcomes))]
    targets = [target.Target(name, ROOT, None, sudo=False) for name in names]
    monkeypatch.setattr(run, "hosts", lambda *_: targets)
    monkeypatch.setattr(run, "attempt", lambda _, of: outcomes[names.index(of.name)])
    assert run.main(["--json"]) == status
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == sum(isinstance(outcome, Report) for outcome in outcomes)
    assert ("web-1: not verified: it is not reached" in told.err) == (status == 2)


def test_production_is_not_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"domain": "hooks.shop.test", "environment": "production", "waivers": []}
    monkeypatch.setattr(run, "connect", lambda _: None)
    monkeypatch.setattr(run, "ask_inventory", lambda _: (said, [], {}))
    with pytest.raises(target.VerifyError, match="--intrusive"):
        run.verify(target.Target("web-1", ROOT, None, sudo=False), run.parse(["--intrusive"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "Usage: scripts/verify"),
        (["--all"], 2, "unknown argument '--all'"),
        (["--inventory=none"], 2, "there is no inventory 'none'. Below inventories/ there are: demo, production"),
        (["--inventory=demo", "--limit=stranger"], 2, "stranger"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], status: int, words: str) -> None:
    answer = subprocess.run([ROOT / "scripts" / "verify", *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == status, answer.stderr
    assert words in answer.stdout + answer.stderr


@pytest.mark.slow
def test_a_host_that_is_not_reached_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inventory = {
        "webhook": {"children": {"eu": {"hosts": {"web-1": {"ansible_host": "127.0.0.1", "ansible_port": 1}}}}}
    }
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory))
    assert run.main([f"--inventory={tmp_path}", f"--reports={tmp_path / 'reports'}"]) == 2
    assert "web-1: not verified: it is not reached by SSH" in capsys.readouterr().err
    assert not (tmp_path / "reports").exists()
