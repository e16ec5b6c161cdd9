"""The demo page in a real browser: the SDK is loaded by its hash and under the policy, anything else is refused.

A picture of each page is kept below .state/screenshots.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]  # it ships no types
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from testinfra.host import Host

from .conftest import Site

pytestmark = pytest.mark.intrusive

SERVED = "/srv/molam-sdk"
SCREENSHOTS = Path(__file__).resolve().parents[2] / ".state" / "screenshots"
# Debian's, which gets its security updates with the rest of the system.
CHROMIUM = "/usr/bin/chromium"
NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
});
"""


@dataclass
class Visit:
    """A page that was opened: what it is, and the errors in its console."""

    page: Page
    errors: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        """Keep a line of the console if it is an error's."""
        if message.type == "error":
            self.errors.append(message.text)

    def violations(self) -> list[str]:
        """Return what the page's policy refused: directive and address."""
        found: list[str] = self.page.evaluate("window.violations")
        return found


def pin(site: Site) -> str:
    """Return the hash of the site's public key, after its certificate was verified against the inventory's CA."""
    with (
        socket.create_connection((site.address, 443), timeout=10) as plain,
        site.trust().wrap_socket(plain, server_hostname=site.domain) as connection,
    ):
        certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


@pytest.fixture(scope="module")
def browser(inventory: dict[str, Any], site: Site) -> Iterator[Browser]:
    """Run Chromium, which finds the site at the host's address and knows its key. Skips where there is no demo page."""
    if not (inventory["sdk_hosting_enabled"] and inventory["sdk_hosting_demo"]):
        pytest.skip("sdk_hosting_demo is false")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                f"--host-resolver-rules=MAP {site.domain} {site.address}",
                f"--ignore-certificate-errors-spki-list={pin(site)}",
            ],
        )
        yield browser
        browser.close()


def visit(browser: Browser, site: Site, path: str) -> Visit:
    """Open a page with nothing kept from another one."""
    visited = Visit(browser.new_context(viewport={"width": 900, "height": 800}).new_page())
    visited.page.on("console", visited.note)
    visited.page.on("pageerror", lambda error: visited.errors.append(str(error)))
    visited.page.add_init_script(NOTE_VIOLATIONS)
    visited.page.goto(f"https://{site.domain}{path}", wait_until="load")
    return visited


def keep_picture(host: Host, visited: Visit, name: str) -> None:
    """Save what the page looks like."""
    visited.page.screenshot(path=SCREENSHOTS / f"{host.backend.get_hostname()}-{name}.png", full_page=True)


def put(host: Host, path: str, data: bytes) -> None:
    """Write a file on the host, in its place and with its mode."""
    host.check_output(f"base64 --decode >{path} <<'END'\n{base64.encodebytes(data).decode()}END")


def test_page_loads_the_sdk_by_its_hash(host: Host, site: Site, browser: Browser) -> None:
    visited = visit(browser, site, "/demo/")
    page = visited.page
    status = page.get_by_role("status")
    expect(status).to_have_attribute("data-state", "loaded")
    expect(status).to_contain_text("is loaded")
    expect(page.locator(".molam-checkout")).to_contain_text("Stand-in")
    assert page.evaluate("typeof MolamCheckout") == "function"
    script = page.locator("script[integrity]")
    assert (script.get_attribute("integrity") or "").startswith("sha384-")
    assert (visited.errors, visited.violations()) == ([], [])
    # What the page offers to others is what it does itself.
    line = page.locator("code").inner_text()
    assert f'integrity="{script.get_attribute("integrity")}" crossorigin="anonymous"' in line
    keep_picture(host, visited, "demo")


def test_secret_key_is_not_taken(site: Site, browser: Browser) -> None:
    page = visit(browser, site, "/demo/").page
    told = page.evaluate(
        "(() => { try { new MolamCheckout({publicKey: 'sk_test_x'}); } catch (e) { return e.message; } })()"
    )
    assert "secret key" in told


@pytest.fixture
def tampered(host: Host, site: Site) -> Iterator[bytes]:
    """Put another script in the SDK's place, compressed as well, and the right one back afterwards."""
    script = site.request("GET", "/demo/").text.partition('src="/sdk/')[2].partition('"')[0]
    path = f"{SERVED}/sdk/{script}"
    evil = site.request("GET", f"/sdk/{script}").content + b"\nglobalThis.stolen = true;\n"
    host.check_output(f"cp --archive {Path(path).parent} /root/sdk-kept")
    try:
        for suffix, data in (("", evil), (".br", brotli.compress(evil)), (".gz", gzip.compress(evil))):
            put(host, path + suffix, data)
        assert site.request("GET", f"/sdk/{script}", headers={"Accept-Encoding": "br"}).content == evil
        yield evil
    finally:
        host.check_output(f"rm -r {Path(path).parent} && mv /root/sdk-kept {Path(path).parent}")


@pytest.mark.usefixtures("tampered")
def test_tampered_sdk_is_refused(host: Host, site: Site, browser: Browser) -> None:
    visited = visit(browser, site, "/demo/")
    status = visited.page.get_by_role("status")
    expect(status).to_have_attribute("data-state", "failed")
    expect(status).to_contain_text("was not loaded")
    assert visited.page.evaluate("[typeof MolamCheckout, typeof stolen]") == ["undefined", "undefined"]
    assert any("integrity" in error for error in visited.errors), visited.errors
    keep_picture(host, visited, "tampered")


@pytest.fixture
def inline(host: Host) -> Iterator[str]:
    """Put a page with scripts of its own beside the demo page; return its path."""
    page = (
        "<!doctype html><html lang=en><title>Inline</title><link rel=stylesheet href=demo.css><main><h1>Inline</h1>"
        '<p id=line>The inline script did not run.</p><p id=event><img src="none.png" alt="No image" onerror="'
        "document.getElementById('event').textContent = 'The inline handler ran.'\"></p></main>"
        "<script>document.getElementById('line').textContent = 'The inline script ran.'</script>"
        '<script src="https://evil.example/x.js"></script></html>'
    )
    put(host, f"{SERVED}/demo/inline.html", page.encode())
    yield "/demo/inline.html"
    host.check_output(f"rm {SERVED}/demo/inline.html")


def test_inline_script_is_refused(host: Host, site: Site, browser: Browser, inline: str) -> None:
    visited = visit(browser, site, inline)
    expect(visited.page.locator("#line")).to_have_text("The inline script did not run.")
    assert visited.page.locator("#event").inner_text() != "The inline handler ran."
    assert {"script-src-elem inline", "script-src-attr inline"} <= set(visited.violations())
    assert "script-src-elem https://evil.example/x.js" in visited.violations()
    keep_picture(host, visited, "inline")
