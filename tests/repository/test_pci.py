"""docs/security.md says of PCI DSS what there is evidence for, by lines of the checklist, and claims no more."""

from __future__ import annotations

import re

import pytest

from tests.verify import checklist
from tests.verify.checklist import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text().partition("## PCI DSS 4.0.1\n")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| ([\d., ]+) \| (.+) \| ([^|]*) ?\|$", TEXT, re.MULTILINE)


def named(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(",") if name.strip()]


def test_every_row_is_read() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("|")]
    assert len(ROWS) == len(lines) - 2 > 20


@pytest.mark.parametrize(("requirements", "evidence", "lines"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_lines_of_the_checklist(requirements: str, evidence: str, lines: str) -> None:
    assert all(re.fullmatch(r"(?:[1-9]|1[0-2])(?:\.\d+){0,3}", name) for name in named(requirements))
    assert set(named(lines)) - checklist.read().keys() == set()
    # A line shows each, unless it does not apply.
    assert bool(named(lines)) != evidence.startswith("not applicable")


def test_no_requirement_stands_there_twice() -> None:
    requirements = [name for row in ROWS for name in named(row[0])]
    assert len(requirements) == len(set(requirements))


def test_nobody_is_called_compliant() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("roles/*/README.md")]
    found = {
        f"{page.relative_to(ROOT)}: {line}"
        for page in pages
        for line in page.read_text().splitlines()
        if re.search(r"\bPCI\b.*\b(complian|certified)|\bcomplian(t|ce)\b.*\bPCI\b", line, re.IGNORECASE)
    }
    assert found == set()
    assert re.search(r"complian", TEXT, re.IGNORECASE) is None
