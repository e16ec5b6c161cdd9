"""debsecan: the faults with a CVE that are open in the installed packages, by Debian's security tracker."""

from __future__ import annotations

import re
from collections import Counter

from tests.verify.opinions.opinion import Finding, NoOpinionError, Opinion

NAME = "debsecan"
# Of each fault a line: CVE, package, and in brackets what is known of it.
COMMAND = 'debsecan --suite "$(. /etc/os-release; echo "$VERSION_CODENAME")" 2>&1'
UNFIXED = "unfixed"


def read(said: str, version: str) -> Opinion:
    """Return what its summary says.

    A fault whose fix Debian has, and one of high urgency that has none, are findings of their own: the first is to be
    installed, the second to be thought about. The others are one, as nobody can do anything about them.
    """
    if "error:" in said:
        reason = said.strip().splitlines()[-1]
        raise NoOpinionError(
            f"its data was not reached ({reason}): let the host reach security-tracker.debian.org by HTTPS, or name a "
            "copy that it reaches as SOURCE in its /etc/default/debsecan"
        )
    faults = re.findall(r"^(\S+) (\S+)(?: \(([^)]*)\))?$", said, re.MULTILINE)
    fixed: dict[str, list[str]] = {}
    urgent: dict[str, list[str]] = {}
    others: list[tuple[str, str]] = []
    for cve, package, notes in faults:
        words = notes.split(", ")
        if "fixed" in words:
            fixed.setdefault(package, []).append(cve)
        elif "high urgency" in words:
            urgent.setdefault(cve, []).append(package)
        else:
            others.append((cve, package))
    findings = [Finding(package, f"the fix of {', '.join(cves)} is in Debian") for package, cves in fixed.items()]
    findings += [Finding(cve, f"of high urgency, with no fix yet: {', '.join(of)}") for cve, of in urgent.items()]
    findings += [_unfixed(others)] if others else []
    return Opinion(NAME, version=version, figure=_figure(faults, fixed, urgent), unanswered=findings)


def _unfixed(faults: list[tuple[str, str]]) -> Finding:
    of = Counter(package for _, package in faults)
    packages = ", ".join(f"{package} {count}" for package, count in of.most_common())
    return Finding(UNFIXED, f"{len({cve for cve, _ in faults})} CVEs with no fix in Debian yet: {packages}")


def _figure(faults: list[tuple[str, str, str]], fixed: dict[str, list[str]], urgent: dict[str, list[str]]) -> str:
    count = len({cve for cve, _, _ in faults})
    waiting = len({cve for cves in fixed.values() for cve in cves})
    return f"{count} open CVEs: {waiting} with a fix in Debian, {len(urgent)} of high urgency without one"
