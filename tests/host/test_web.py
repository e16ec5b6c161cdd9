"""The front door as a stranger meets it: TLS, redirects, names, errors."""

from __future__ import annotations

import re
import socket
import ssl

import httpx
import pytest

from tests.conftest import Saw

from .conftest import WEBHOOK_PATH, Site


def handshake(site: Site, name: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return the TLS connection that the site agrees to for a server name; the caller closes it."""
    plain = socket.create_connection((site.address, 443), timeout=10)
    return context.wrap_socket(plain, server_hostname=name)


@pytest.mark.checklist("PRE-5")
def test_certificate_is_valid_for_the_name(site: Site) -> None:
    with handshake(site, site.domain, site.trust()) as connection:
        assert connection.version() == "TLSv1.3"


@pytest.mark.checklist("HOOK-3")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(site: Site, version: ssl.TLSVersion) -> None:
    context = site.trust()
    # Or a certificate that does not hold would be taken for a refusal.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError):
        handshake(site, site.domain, context)


def test_unknown_name_is_refused_at_the_handshake(site: Site) -> None:
    context = site.trust()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        handshake(site, "stranger.example", context)


@pytest.mark.checklist("PRE-6", "HOOK-3")
def test_http_is_redirected(site: Site) -> None:
    with site.client("http") as client:
        answer = client.get(f"{WEBHOOK_PATH}?a=b")
    assert answer.status_code == 301
    assert answer.content == b""
    location = httpx.URL(answer.headers["Location"])
    assert (location.scheme, location.host) == ("https", site.domain)
    assert location.raw_path == f"{WEBHOOK_PATH}?a=b".encode()


def test_unknown_name_gets_nothing_over_http(site: Site) -> None:
    with site.client("http") as client, pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.get("/", headers={"Host": "stranger.example"})


@pytest.mark.checklist("OPS-4", "APP-6")
def test_health_tells_the_public_no_more_than_it_must(site: Site) -> None:
    answer = site.request("GET", "/health")
    assert answer.status_code == 200
    assert set(answer.json()) == {"status", "database", "cache"}
    assert (answer.json()["status"], answer.json()["database"]) == ("healthy", "healthy")


@pytest.mark.checklist("KEY-2", "APP-6")
@pytest.mark.parametrize("path", ["/", "/metrics", "/molam", f"{WEBHOOK_PATH}/", "/.env", "/.git/config"])
def test_other_paths_are_not_found(site: Site, path: str) -> None:
    answer = site.request("GET", path)
    assert answer.status_code == 404
    assert answer.json() == {"error": "not_found"}


ANSWERS = pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("GET", "/"), ("POST", WEBHOOK_PATH)])


@pytest.mark.checklist("PRE-6")
@ANSWERS
def test_a_browser_stays_on_https(site: Site, method: str, path: str, saw: Saw) -> None:
    told = site.request(method, path).headers.get("Strict-Transport-Security", "")
    saw(f"Strict-Transport-Security: {told or 'none'}")
    seconds = re.match(r"max-age=(\d+)", told)
    assert seconds
    assert int(seconds[1]) > 0


@pytest.mark.checklist("PRE-7")
@ANSWERS
def test_a_page_may_load_nothing(site: Site, method: str, path: str, saw: Saw) -> None:
    policies = site.request(method, path).headers.get_list("Content-Security-Policy")
    saw(f"Content-Security-Policy: {' and '.join(policies) or 'none'}")
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]


@pytest.mark.checklist("APP-5")
@ANSWERS
def test_no_cookie_is_set(site: Site, method: str, path: str, saw: Saw) -> None:
    cookies = site.request(method, path).headers.get_list("Set-Cookie")
    saw(f"cookies: {', '.join(cookies) or 'none'}")
    assert cookies == []


@ANSWERS
def test_headers(site: Site, method: str, path: str) -> None:
    answer = site.request(method, path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers.get("Server") == "nginx"
    assert answer.http_version == "HTTP/1.1"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_http2_is_offered(site: Site) -> None:
    context = site.trust()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with handshake(site, site.domain, context) as connection:
        assert connection.selected_alpn_protocol() == "h2"
