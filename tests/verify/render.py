"""The report as others read it: HTML for people and paper, Markdown, JUnit XML for CI, JSON for the next report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import jinja2

from tests.verify.difference import Drift
from tests.verify.opinions.opinion import Opinion
from tests.verify.result import Report, State, Verdict

# In the order in which somebody wants to read them; what differs on the host stands between the two.
FIRST = (State.FAILED, State.WAIVED)
LAST = (State.PASSED, State.NOT_TESTABLE, State.NOT_APPLICABLE)
ORDER = (*FIRST, *LAST)

_PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def sentence(report: Report) -> str:
    """Return the result in one sentence."""
    others = [f"{report.count(state)} {state.value}" for state in ORDER if state is not State.PASSED]
    told = ", ".join(words for words in others if not words.startswith("0 "))
    return "; ".join(words for words in (f"{report.score} lines hold", told, differing(report.drift)) if words)


def differing(drift: Drift | None) -> str:
    """Return in a few words how a host differs from what the playbook would make of it, "" where nobody looked."""
    if drift is None:
        return ""
    counts = {
        "differ": len(drift.differences),
        "end soon": len(drift.expiring),
        "could not be looked at": len(drift.not_seen),
    }
    return ", ".join(f"{count} {words}" for words, count in counts.items() if count) or "nothing differs"


def html(report: Report) -> str:
    """Return a page that needs no other file."""
    page = _PAGES.get_template("report.html.j2")
    return page.render(report=report, sentence=sentence(report), first=FIRST, last=LAST) + "\n"


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    head = report.head
    out = [
        f"# Security checklist: {_md(head.host)}",
        "",
        f"{sentence(report)}.",
        "",
        f"{_md(head.domain)}, {head.environment}; release {_md(head.release)}, commit {_md(head.commit[:12])}; "
        f"{head.at}, {head.seconds:.0f} s.",
        "",
        f"Since the last report: {_md(_since(report))}.",
        "",
        "| line | state | what has to hold | what was seen |",
        "|---|---|---|---|",
    ]
    for verdict in report.verdicts:
        words = [f"{look.what}: {look.seen}" for look in verdict.looks] or ["no test looked at it"]
        words += [verdict.note] if verdict.note else []
        words += [f"To do: {verdict.mend}"] if verdict.mend else []
        seen = "<br>".join(_md(word) for word in words)
        out.append(f"| {verdict.id} | {verdict.state.value} | {_md(verdict.text)} | {seen} |")
    out += _drift_md(report.drift) if report.drift else []
    out += _opinions_md(report.opinions) if report.opinions else []
    return "\n".join(out) + "\n"


def _drift_md(drift: Drift) -> list[str]:
    out = ["", "## What differs from what the playbook would make", ""]
    if drift.none:
        return [*out, "Nothing."]
    out += [f"Not looked at: {_md(words)}" for words in drift.not_seen]
    if drift.differences:
        out += ["", "| what | how it differs | to do |", "|---|---|---|"]
    for entry in drift.differences:
        words = "<br>".join(map(_md, [entry.words, *entry.diff]))
        out.append(f"| {_md(entry.kind.value)} {_md(entry.what)} | {words} | {_md(entry.mend)} |")
    if drift.expiring:
        out += ["", "| ends soon | on | days left | to do |", "|---|---|---:|---|"]
    out += [f"| {_md(end.what)} | {end.until} | {end.days_left} | {_md(end.mend)} |" for end in drift.expiring]
    return out


def _opinions_md(opinions: list[Opinion]) -> list[str]:
    out = [
        "",
        "## Outside opinions",
        "",
        "| tool | figure | not answered | not followed, and why |",
        "|---|---|---|---|",
    ]
    for opinion in opinions:
        open_ = "<br>".join(_md(f"{finding.id}: {finding.text}") for finding in opinion.unanswered) or "none"
        kept = "<br>".join(_md(f"{finding.id}: {finding.text}: {finding.why}") for finding in opinion.unfollowed)
        figure = "; ".join(words for words in (opinion.figure, opinion.note) if words)
        out.append(f"| {_md(f'{opinion.tool} {opinion.version}')} | {_md(figure)} | {open_} | {kept or 'none'} |")
    return out


def junit(report: Report) -> str:
    """Return the report as CI reads it: a test case a line."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"checklist.{report.head.host}",
        timestamp=report.head.at.removesuffix("Z"),
        time=f"{report.head.seconds:.1f}",
        tests=str(len(report.verdicts)),
        failures=str(report.count(State.FAILED)),
        errors="0",
        skipped=str(len(report.verdicts) - report.count(State.FAILED) - report.count(State.PASSED)),
    )
    for verdict in report.verdicts:
        case = ElementTree.SubElement(suite, "testcase", classname=suite.attrib["name"], name=_named(verdict))
        told = "\n".join(f"{look.what}: {look.state.value}: {look.seen}" for look in verdict.looks)
        if verdict.state is State.FAILED:
            ElementTree.SubElement(case, "failure", message=_xml(verdict.mend)).text = _xml(told)
        elif verdict.state is not State.PASSED:
            ElementTree.SubElement(case, "skipped", message=_xml(verdict.note or f"{verdict.state.value}: {told}"))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(told)
    if told := differing(report.drift):
        ElementTree.SubElement(suite, "system-out").text = _xml(f"Compared with what the playbook would make: {told}")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def as_json(report: Report) -> str:
    """Return the report as JSON."""
    return json.dumps(report.as_json(), indent=2, ensure_ascii=False, default=str) + "\n"


# By the end of the file's name.
FORMS: dict[str, Callable[[Report], str]] = {"html": html, "md": markdown, "xml": junit, "json": as_json}


def _since(report: Report) -> str:
    if report.changes is None:
        return "this is the first one"
    return "; ".join(report.changes) or "nothing changed"


def _named(verdict: Verdict) -> str:
    return _xml(f"{verdict.id} {verdict.text}")


def _md(text: str) -> str:
    """Take away what a table of Markdown, or HTML in it, would read as its own."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for character in "|`*_[]":
        escaped = escaped.replace(character, f"\\{character}")
    return " ".join(escaped.split())


def _xml(text: str) -> str:
    """Take away what XML cannot hold, however it is written."""
    return "".join(character if character in "\t\n" or " " <= character < "\ufffe" else "?" for character in text)
