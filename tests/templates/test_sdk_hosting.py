"""Where nginx serves the SDK, and the demo page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from .render import render

BUILT = {
    "version": "1.2.3",
    "alias": "v1",
    "path": "/sdk/v1.2.3/molam-checkout.js",
    "integrity": "sha384-x+/=",
    "script": '<script src="https://webhooks.shop.test/sdk/v1.2.3/molam-checkout.js" integrity="sha384-x+/="></script>',
}
PAGE: dict[str, Any] = {
    "sdk_hosting_demo": True,
    "sdk_hosting_public_key": "pk_test_x",
    "__sdk_hosting_build": {"stdout": json.dumps(BUILT)},
}


@pytest.mark.parametrize(
    ("path", "cache"),
    [
        ("/sdk/v1.0.0/molam-checkout.js", "immutable"),
        ("/sdk/v10.20.30-rc.1/integrity.json", "immutable"),
        ("/sdk/v1/molam-checkout.js", "max-age=3600"),
        ("/sdk/v1/integrity.json", "max-age=3600"),
        ("/sdk/v1.0.0/molam-checkout.js.br", None),
        ("/sdk/v1.0.0/molam-checkoutxjs", None),
        ("/sdk/v1.0/molam-checkout.js", None),
        ("/sdk/v1.0.0-../molam-checkout.js/x", None),
        ("/sdk/v1.0.0/../molam-checkout.js", None),
    ],
)
def test_only_a_version_is_kept_for_ever(path: str, cache: str | None) -> None:
    text = render("sdk_hosting", "locations.conf.j2")
    found = re.findall(r'location ~ "(\S+)" \{\n(.*?)\n    \}', text, re.DOTALL)
    assert len(found) == 2
    bodies = [body for pattern, body in found if re.search(pattern, path)]
    assert len(bodies) == (1 if cache else 0)
    assert cache is None or cache in bodies[0]


def test_no_place_has_header_fields_of_its_own() -> None:
    """They would take the server's away."""
    text = render("sdk_hosting", "locations.conf.j2", sdk_hosting_demo=True)
    assert re.findall(r"^\s*(add_header|expires|autoindex)\b", text, re.MULTILINE) == []


@pytest.mark.parametrize("demo", [True, False])
def test_demo_page_is_there_when_it_is_asked_for(demo: bool) -> None:
    text = render("sdk_hosting", "locations.conf.j2", sdk_hosting_demo=demo)
    assert ("location ^~ /demo/ {" in text) == demo
    assert text.count("set $molam_content_security_policy $molam_pages_content_security_policy;") == demo


class Elements(HTMLParser):
    """Collects a page's elements and their text."""

    def __init__(self, page: str) -> None:
        """Read a page."""
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        self.text += data


def test_demo_page_loads_the_sdk_by_its_hash() -> None:
    page = Elements(render("sdk_hosting", "demo.html.j2", **PAGE))
    scripts = [attributes for tag, attributes in page.found if tag == "script"]
    assert [script.get("src") for script in scripts] == [BUILT["path"], "demo.js"]
    assert (scripts[0]["integrity"], scripts[0]["crossorigin"]) == (BUILT["integrity"], "anonymous")
    # As text: this line is for other pages.
    assert BUILT["script"] in page.text
    assert ("section", "pk_test_x") in [(tag, attributes.get("data-public-key")) for tag, attributes in page.found]


def test_nothing_on_the_demo_page_is_inline() -> None:
    page = Elements(render("sdk_hosting", "demo.html.j2", **PAGE))
    assert [tag for tag, _ in page.found if tag == "style"] == []
    assert [
        name for _, attributes in page.found for name in attributes if name.startswith("on") or name == "style"
    ] == []
