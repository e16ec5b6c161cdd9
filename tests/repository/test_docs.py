"""The pages of the documentation find each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .test_repository import ROOT, tracked

PAGES = [path for path in tracked() if path.suffix == ".md"]
RUNBOOKS = ROOT / "docs" / "runbooks"


def prose(page: Path) -> str:
    """Return a page's text without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return what a link may name of a page: its headings, as GitHub and GitLab make anchors of them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link, file, anchor in re.findall(r"\]\(((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?)\)", prose(page)):
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_every_runbook_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([a-z-]+\.md)", (RUNBOOKS / "README.md").read_text()))
    assert linked == {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
