"""What a verification found: whether each line of the checklist holds, by what that was seen, and what mends it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

from tests.verify.checklist import Line
from tests.verify.difference import Drift
from tests.verify.opinions.opinion import Opinion

# Beside so many characters nobody reads on; the whole of it is in pytest's own output.
WORDS = 300


class State(StrEnum):
    """How a line stands, and how a test ended."""

    PASSED = "passed"
    FAILED = "failed"
    WAIVED = "waived"
    NOT_APPLICABLE = "not applicable"
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Look:
    """One test: which lines it shows, what was looked at, how it ended, and what was seen (or why it was not)."""

    test: str
    ids: tuple[str, ...]
    what: str
    state: State
    seen: str


@dataclass(frozen=True)
class Waiver:
    """A line that may fail until a day, that day included, and why."""

    id: str
    reason: str
    until: date

    def holds(self, today: date) -> bool:
        """Say whether it still does."""
        return today <= self.until


@dataclass(frozen=True)
class Verdict:
    """A line as it stands: `note` says why it may fail, or no longer may; `mend` what to do where it fails."""

    id: str
    text: str
    state: State
    looks: list[Look] = field(default_factory=list)
    mend: str = ""
    note: str = ""


@dataclass(frozen=True)
class Head:
    """Whom a report is of. `at` is UTC, ISO 8601; `seconds` is how long it took."""

    host: str
    domain: str
    environment: str
    release: str
    commit: str
    at: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """One host's report: `changes` is what is not as in the one before, None where there is none before it.

    `drift` is None where nobody looked at it, and `opinions` has those that were asked for.
    """

    head: Head
    verdicts: list[Verdict]
    changes: list[str] | None = None
    drift: Drift | None = None
    opinions: list[Opinion] = field(default_factory=list)

    def count(self, state: State) -> int:
        """Return how many lines stand so."""
        return sum(verdict.state == state for verdict in self.verdicts)

    @property
    def score(self) -> str:
        """How many lines hold of those that could be judged. A waiver is no pass."""
        judged = [verdict for verdict in self.verdicts if verdict.state in (State.PASSED, State.FAILED, State.WAIVED)]
        return f"{self.count(State.PASSED)} of {len(judged)}"

    @property
    def failed(self) -> bool:
        """Whether a line fails that has no waiver."""
        return self.count(State.FAILED) > 0

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it; `states_of` reads it back for the next one."""
        verdicts = [asdict(verdict) for verdict in self.verdicts]
        head = asdict(self.head) | {"score": self.score}
        return {
            "head": head,
            "changes": self.changes,
            "lines": verdicts,
            "drift": asdict(self.drift) if self.drift else None,
            "opinions": [asdict(opinion) for opinion in self.opinions],
        }


def read_waivers(value: object, known: Iterable[str]) -> list[Waiver]:
    """Read the variable `verify_waivers`, a list of id, reason and until; raise ValueError with every fault."""
    if not isinstance(value, list):
        raise ValueError("verify_waivers: wants a list of id, reason and until")
    ids = set(known)
    faults: list[str] = []
    waivers: list[Waiver] = []
    for number, entry in enumerate(value, 1):
        given = entry if isinstance(entry, dict) else {}
        name, reason, until = (str(given.get(key) or "").strip() for key in ("id", "reason", "until"))
        where = f"verify_waivers, entry {number}{f' ({name})' if name else ''}"
        if set(given) != {"id", "reason", "until"}:
            faults.append(f"{where}: wants id, reason and until, and nothing else")
        elif name not in ids:
            faults.append(f"{where}: is no line of the checklist")
        elif not reason:
            faults.append(f"{where}: its reason is empty")
        elif name in [waiver.id for waiver in waivers]:
            faults.append(f"{where}: stands there twice")
        else:
            try:
                waivers.append(Waiver(name, reason, date.fromisoformat(until)))
            except ValueError:
                faults.append(f"{where}: until wants a date such as 2027-01-31, and is {until!r}")
    if faults:
        raise ValueError("\n".join(faults))
    return waivers


def judge(
    lines: Mapping[str, Line],
    looks: Iterable[Look],
    waivers: Iterable[Waiver],
    advice: Mapping[str, str],
    today: date,
) -> list[Verdict]:
    """Return how each line stands.

    It fails where one test of it failed, and holds where one passed and none failed. Where none did either, it does not
    apply if all say so, and could not be tested otherwise; nor could a line that no test looked at.
    """
    all_looks, allowed = list(looks), {waiver.id: waiver for waiver in waivers}
    verdicts = []
    for name, line in lines.items():
        own = _merged(look for look in all_looks if name in look.ids)
        state = _of_all([look.state for look in own])
        note = ""
        if waiver := allowed.get(name):
            if state is not State.FAILED:
                note = f"It has a waiver that it does not need (until {waiver.until})."
            elif waiver.holds(today):
                state, note = State.WAIVED, f"Waived until {waiver.until}: {waiver.reason}"
            else:
                note = f"Its waiver ended on {waiver.until}: {waiver.reason}"
        mend = advice[name] if state in (State.FAILED, State.WAIVED) else ""
        verdicts.append(Verdict(name, line.text, state, own, mend, note))
    return verdicts


def changes(verdicts: Iterable[Verdict], before: Mapping[str, str]) -> list[str]:
    """Say which lines stand otherwise than in the report before, whose states are given by id."""
    return [
        f"{verdict.id}: {before.get(verdict.id, 'unknown')}, now {verdict.state.value}"
        for verdict in verdicts
        if before.get(verdict.id) != verdict.state.value
    ]


def states_of(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the states, by id, of a report that was read from its JSON."""
    return {line["id"]: line["state"] for line in report["lines"]}


def in_words(test: str) -> str:
    """Return a test's name as a person says it."""
    name = re.sub(r"\[.*", "", test).rpartition("::")[2]
    return name.removeprefix("test_").replace("_", " ")


def shortened(text: str, limit: int = WORDS) -> str:
    """Return a text on one line, and no more of it than somebody reads."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _of_all(states: list[State]) -> State:
    for state in (State.FAILED, State.PASSED):
        if state in states:
            return state
    return State.NOT_APPLICABLE if states and set(states) == {State.NOT_APPLICABLE} else State.NOT_TESTABLE


def _merged(looks: Iterable[Look]) -> list[Look]:
    """Make one of the cases of a test: how they stand together, and what was seen in those that stand so."""
    tests: dict[str, list[Look]] = {}
    for look in looks:
        tests.setdefault(look.test.partition("[")[0], []).append(look)
    merged = []
    for test, cases in tests.items():
        state = _of_all([look.state for look in cases])
        seen = dict.fromkeys(look.seen for look in cases if look.state == state and look.seen)
        words = "; ".join(seen) or (f"{len(cases)} cases hold" if len(cases) > 1 else "it holds")
        merged.append(Look(test, cases[0].ids, cases[0].what, state, shortened(words)))
    return merged
