"""The report of the demo host, as somebody reads it: good or bad, on a desk, on a phone and on paper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.tree import ROOT

from .conftest import Demo, make
from .runs import Runs

SCREENSHOTS = ROOT / ".state" / "screenshots"
# Debian's, as for the demo page.
CHROMIUM = "/usr/bin/chromium"
WIDTHS = {"desk": 1280, "phone": 390}


@pytest.fixture(scope="module")
def good(demo: Demo) -> Path:
    """Return the page of the host as `make up` made it."""
    before = make(demo.clone, "verify")
    assert "Run make setup" in before.stdout
    assert make(demo.clone, "setup").returncode == 0
    answer = make(demo.clone, "verify")
    assert answer.returncode == 0, answer.stdout
    return max((demo.clone / ".state" / "reports" / demo.place.host).glob("*.html"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run Chromium."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_every_line_holds_and_nothing_differs(good: Path) -> None:
    report: dict[str, Any] = json.loads(good.with_suffix(".json").read_text())
    others = {line["id"]: line["state"] for line in report["lines"] if line["state"] != "passed"}
    # There are live keys in production alone.
    assert others == dict.fromkeys(["PRE-3", "KEY-1"], "not applicable")
    assert report["drift"] == {"differences": [], "expiring": [], "not_seen": []}


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
@pytest.mark.parametrize("which", ["good", "broken"])
def test_the_page_is_as_wide_as_the_screen(
    request: pytest.FixtureRequest, good: Path, runs: Runs, browser: Browser, which: str, width: int
) -> None:
    """It asks for nothing else, its result is seen first, and a picture of it is kept."""
    path = good if which == "good" else runs.of_batches[0].page
    page = browser.new_page(viewport={"width": width, "height": 844}, offline=True)
    asked: list[str] = []
    page.on("request", lambda asking: asked.append(asking.url))
    page.goto(path.as_uri(), wait_until="load")
    page.screenshot(path=SCREENSHOTS / f"report-{request.node.callspec.id}.png", full_page=True)
    assert asked == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    result = page.locator(".result")
    assert result.is_visible()
    colour = {"good": "passed", "broken": "failed"}[which]
    assert colour in (result.get_attribute("class") or "")
    box = result.bounding_box()
    assert box is not None
    assert box["y"] < 200
    page.close()


def test_it_goes_on_paper(good: Path, browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(good.as_uri())
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    page.close()
