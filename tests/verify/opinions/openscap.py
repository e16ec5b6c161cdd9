"""OpenSCAP: the rules of the French ANSSI's BP-028 for Debian, as the SCAP Security Guide has them."""

from __future__ import annotations

import re

from tests.verify.opinions.opinion import Finding, NoOpinionError, Opinion

NAME = "openscap"
PROFILE = "anssi_bp28_enhanced"
CONTENT = "/usr/share/xml/scap/ssg/content/ssg-debian{debian}-ds.xml"
PREFIX = "xccdf_org.ssgproject.content_"
# What says that a rule is followed, and that it is not. A rule that does not apply, or was not chosen, says neither.
PASSED, NOT_PASSED = ("pass", "fixed"), ("fail", "error", "unknown")


def command(content: str) -> str:
    """Return what evaluates the profile on a host."""
    return f"oscap --version | head -n 1; oscap xccdf eval --profile {PREFIX}profile_{PROFILE} {content} 2>&1"


def read(said: str) -> Opinion:
    """Return what it printed: of each rule its title, its id and its result."""
    rules = re.findall(r"^Title\s+(.*)\n(?:.*\n)*?Rule\s+(\S+)\n(?:.*\n)*?Result\s+(\S+)$", said, re.MULTILINE)
    findings = [
        Finding(rule.removeprefix(f"{PREFIX}rule_"), title if result == "fail" else f"{title} ({result})")
        for title, rule, result in rules
        if result in NOT_PASSED
    ]
    passed = sum(result in PASSED for _, _, result in rules)
    if not passed:
        raise NoOpinionError(f"it did not evaluate the rules: {said.strip()[-300:]}")
    of = passed + len(findings)
    version = re.search(r"(\d+\.\d+\S*)$", said.partition("\n")[0])
    return Opinion(
        NAME,
        version=version[1] if version else "",
        figure=f"{100 * passed / of:.0f} % of the rules of {PROFILE} ({passed} of {of})",
        followed=passed,
        unanswered=findings,
    )
