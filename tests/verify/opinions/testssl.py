"""testssl.sh: TLS as another host sees it, with a grade."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from tests.verify.opinions.opinion import Finding, NoOpinionError, Opinion

NAME = "testssl.sh"
# All that the grade takes. Without the simulation of clients, which takes a quarter of the time and grades nothing, and
# without the DNS, which is not the host's.
CHECKS = "--protocols --std --fs --server-preference --server-defaults --headers --vulnerable --nodns none"
# What says nothing against a host. The grade is the figure.
FINE = ("OK", "INFO")
GRADE = "overall_grade"


def command(program: str, address: str, domain: str, result: str, ca: str | Path | None) -> list[str]:
    """Return what leaves in a file, as JSON, what is found at an address under a name; a CA may be trusted besides."""
    trust = ["--add-ca", str(ca)] if ca else []
    return [
        *(program, "--quiet", "--color", "0", "--warnings", "off"),
        *shlex.split(CHECKS),
        *trust,
        *("--ip", address, "--jsonfile", result, domain),
    ]


def read(found: str, banner: str) -> Opinion:
    """Return what its JSON says; the banner has its version."""
    try:
        entries = json.loads(found)
    except ValueError:
        entries = []
    findings = [entry for entry in entries if entry["severity"] not in FINE and entry["id"] != GRADE]
    if not entries or any(entry["severity"] == "FATAL" for entry in findings):
        words = "; ".join(entry["finding"] for entry in findings) or "it found nothing at all"
        raise NoOpinionError(f"the host was not tested: {words}")
    # It writes in colours.
    version = re.search(r"testssl\S*\s+(?:version )?(\d\S*)", re.sub(r"\x1b\[[\d;]*m", "", banner))
    grades = [entry["finding"] for entry in entries if entry["id"] == GRADE]
    return Opinion(
        NAME,
        version=version[1] if version else "",
        figure=f"grade {grades[0]}" if grades else "no grade: testssl.sh gives one from 3.2 on, which Debian 13 has",
        followed=sum(entry["severity"] == "OK" and entry["id"] != GRADE for entry in entries),
        unanswered=[Finding(entry["id"], f"{entry['severity']}: {entry['finding']}") for entry in findings],
    )
