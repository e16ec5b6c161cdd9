"""Lynis: an audit of the whole host, with an index of its hardening."""

from __future__ import annotations

import re

from tests.verify.opinions.opinion import Finding, NoOpinionError, Opinion

NAME = "lynis"
# Of the report, which Lynis otherwise keeps below /var/log, as it does a log.
COMMAND = (
    "lynis audit system --quick --quiet --no-colors --no-log --report-file $RUNTIME_DIRECTORY/report >/dev/null; "
    "cat $RUNTIME_DIRECTORY/report"
)
# The one test for all of sshd's settings names the setting in its details.
BY_SETTING = "SSH-7408"


def read(report: str) -> Opinion:
    """Return what a report says."""
    values = dict(re.findall(r"^(\w+)=(.*)$", report, re.MULTILINE))
    if "hardening_index" not in values:
        raise NoOpinionError("it did not come to its end: run `lynis audit system` on the host to see why")
    findings = [_finding(*line) for line in re.findall(r"^(warning|suggestion)\[\]=(.*)$", report, re.MULTILINE)]
    done = int(values.get("lynis_tests_done", 0))
    return Opinion(
        NAME,
        version=values["lynis_version"],
        figure=f"hardening index {values['hardening_index']} of 100",
        followed=done - len({finding.id.removeprefix("warning ").partition(" ")[0] for finding in findings}),
        unanswered=findings,
    )


def _finding(kind: str, line: str) -> Finding:
    test, text, details, *_ = [*line.split("|"), "", ""]
    name = f"{test} {details.partition(' ')[0]}" if test == BY_SETTING else test
    details = "" if details == "-" else f" ({details})"
    # A warning is never answered by what was said to a suggestion of the same test.
    return Finding(f"warning {name}" if kind == "warning" else name, f"{text.rstrip('.')}{details}")
