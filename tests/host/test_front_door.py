"""The front door under a stranger's hands: malformed requests, floods, slow attackers, false names, and its log."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
from molam_webhook import signature
from testinfra.host import Host

from .conftest import NGINX_ALONE, WEBHOOK_PATH, Site, new_event, slot_in_use

ROOT = Path(__file__).resolve().parents[2]
LOG = "/var/log/nginx/molam-webhook.log"
EVENTS = 2000


def connect(site: Site, port: int = 443, *, source: str | None = None) -> socket.socket:
    """Return a connection to the site, with TLS on every port but 80; the caller closes it."""
    plain = socket.create_connection((site.address, port), 10, (source, 0) if source else None)
    return plain if port == 80 else site.trust().wrap_socket(plain, server_hostname=site.domain)


def converse(connection: socket.socket, request: str) -> tuple[int, dict[str, str], str]:
    """Send bytes (as Latin-1) and return status, header fields in lower case and body; the status is 0 where the
    connection was closed without an answer.
    """
    with connection:
        connection.sendall(request.encode("latin-1"))
        answer = HTTPResponse(connection)
        try:
            answer.begin()
        except ConnectionResetError:
            return 0, {}, ""
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()


def request_line(site: Site, line: str, *fields: str) -> str:
    """Return a request's text, with the right Host."""
    return "\r\n".join([line, f"Host: {site.domain}", "Connection: close", *fields, "", ""])


@pytest.mark.checklist("APP-6")
@pytest.mark.parametrize(
    ("line", "fields", "status", "word"),
    [
        ("\x16\0nonsense", [], 400, "bad_request"),
        ("GET / HTTP/1.1", ["Na me: x"], 400, "bad_request"),
        ("GET / HTTP/1.1", [f"Long: {'x' * 9000}"], 400, "bad_request"),
        ("GET /../etc/passwd HTTP/1.1", [], 400, "bad_request"),
        ("GET /\xff HTTP/1.1", [], 404, "not_found"),
        ("GET /.molam-error HTTP/1.1", [], 404, "not_found"),
        ("TRACE / HTTP/1.1", [], 405, "method_not_allowed"),
        (f"POST {WEBHOOK_PATH} HTTP/1.1", ["Content-Length: 999999"], 413, "too_large"),
        (f"GET /{'x' * 9000} HTTP/1.1", [], 414, "uri_too_long"),
        (f"POST {WEBHOOK_PATH} HTTP/1.1", ["Transfer-Encoding: gzip"], 501, "not_implemented"),
        ("GET / HTTP/3.7", [], 505, "http_version_not_supported"),
    ],
)
def test_what_nginx_refuses_is_told_in_the_contracts_words(
    site: Site, line: str, fields: list[str], status: int, word: str
) -> None:
    told, headers, body = converse(connect(site), request_line(site, line, *fields))
    assert (told, json.loads(body)) == (status, {"error": word})
    assert headers["content-type"] == "application/json"
    assert headers["server"] == "nginx"
    assert "content-security-policy" in headers
    assert headers.get("allow") == ("POST" if status == 405 else None)


@pytest.mark.checklist("HOOK-3")
def test_plain_http_on_the_port_for_https_is_refused(site: Site) -> None:
    with socket.create_connection((site.address, 443), 10) as connection:
        status, _, body = converse(connection, request_line(site, f"POST {WEBHOOK_PATH} HTTP/1.1"))
    assert (status, json.loads(body)) == (400, {"error": "bad_request"})


@pytest.mark.parametrize("port", [80, 443])
@pytest.mark.parametrize("name", ["stranger.example", ""])
def test_request_for_another_name_gets_nothing(site: Site, port: int, name: str) -> None:
    assert converse(connect(site, port), f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n")[0] in (0, 400)
    assert converse(connect(site, port), "GET / HTTP/1.0\r\n\r\n")[0] == 0


@pytest.mark.parametrize(
    "path",
    [
        WEBHOOK_PATH.replace("/", "%2F").replace("%2F", "/", 1),
        WEBHOOK_PATH.replace("k", "%6B"),
        f"/{WEBHOOK_PATH}",
        f"/x/..{WEBHOOK_PATH}",
        f"/.{WEBHOOK_PATH}",
        f"{WEBHOOK_PATH}#x",
        f"{WEBHOOK_PATH}?\xff",
    ],
)
def test_other_spellings_are_not_the_webhooks_path(site: Site, path: str) -> None:
    status, _, body = converse(connect(site), request_line(site, f"POST {path} HTTP/1.1", "Content-Length: 0"))
    assert (status, json.loads(body)) == (404, {"error": "not_found"})


def test_key_exchange_withstands_quantum_computers(host: Host, site: Site) -> None:
    if host.system_info.release.startswith("12"):
        pytest.skip("Debian 12's OpenSSL has no such key exchange")
    answer = host.run(f"openssl s_client -connect 127.0.0.1:443 -servername {site.domain} </dev/null")
    assert "Negotiated TLS1.3 group: X25519MLKEM768" in answer.stdout


def lines_of(host: Host, word: str) -> list[dict[str, Any]]:
    """Return the lines of the access log that hold a word, once there are some."""
    deadline = time.monotonic() + 10
    found = ""
    while not found and time.monotonic() < deadline:
        found = host.run(f"grep --fixed-strings '{word}' {LOG}").stdout
    return [json.loads(line) for line in found.splitlines()]


def test_log_tells_the_event_and_no_secret(host: Host, site: Site, event: dict[str, Any]) -> None:
    body = json.dumps(event).encode()
    secret = uuid.uuid4().hex
    signed = signature.sign(body, site.secret.encode(), int(time.time() * 1000), site.kid)
    headers = {"Content-Type": "application/json", "Molam-Signature": signed}
    answer = site.request("POST", f"{WEBHOOK_PATH}?token={secret}", content=body, headers=headers)
    assert answer.status_code == 200
    assert "X-Molam-Event-Id" not in answer.headers
    (line,) = lines_of(host, event["id"])
    assert (line["method"], line["path"], line["status"]) == ("POST", WEBHOOK_PATH, 200)
    assert (line["event_id"], line["upstream_status"]) == (event["id"], "200")
    assert line["tls"] == "TLSv1.3"
    # A word of the signature's, and of the query's, is nowhere in the log.
    mac = re.search(r"v1=(\w{16})", signed)
    assert mac is not None
    assert host.run(f"grep --recursive --count -e {mac[1]} -e {secret} -e {event['data']['id']} {LOG}").stdout == "0\n"
    assert host.file(LOG).mode == 0o640


@pytest.mark.checklist("APP-3")
def test_log_cannot_be_forged(host: Host, site: Site) -> None:
    mark = uuid.uuid4().hex
    for path in (f'/{mark}","status":200,"x":"', f"/{mark}%0a{{}}", f"/{mark}\\u0022", f"/{mark}\\"):
        assert converse(connect(site), request_line(site, f"DELETE {path} HTTP/1.1"))[0] == 404
    assert converse(connect(site), request_line(site, f"{mark[:8]}\xff /{mark} HTTP/1.1"))[0] == 400
    time.sleep(2)
    lines = lines_of(host, mark)
    assert [(line["method"], line["status"]) for line in lines] == [("DELETE", 404)] * 4
    # What is not ASCII would make the log unreadable for all that read it as UTF-8.
    assert host.run(f"grep --perl-regexp --count '[^\\x20-\\x7e]' {LOG}").stdout == "0\n"


def own_address(site: Site) -> str:
    """Return the address that this machine has for the host."""
    with socket.create_connection((site.address, 443), 10) as connection:
        return str(connection.getsockname()[0])


def test_false_address_is_ignored(host: Host, site: Site) -> None:
    mark = uuid.uuid4().hex
    fields = ["X-Forwarded-For: 198.18.0.9", "X-Real-IP: 198.18.0.9", "Forwarded: for=198.18.0.9"]
    assert converse(connect(site), request_line(site, f"GET /{mark} HTTP/1.1", *fields))[0] == 404
    assert lines_of(host, mark)[0]["address"] == own_address(site)


@pytest.fixture
def stranger(host: Host, site: Site) -> Iterator[str]:
    """An address of this machine that is no administrator's: the one it goes out to the world with.

    Not banned, since nginx's own limits are what is looked at.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.18.0.1", 9))
        address = str(probe.getsockname()[0])
    assert address != own_address(site), "this machine has no second address to come from"
    host.check_output(f"fail2ban-client set molam-scanner addignoreip {address}")
    host.check_output(f"fail2ban-client unban {address}")
    yield address
    host.check_output(f"fail2ban-client set molam-scanner delignoreip {address}")


async def flood(
    site: Site, requests: int, path: str = WEBHOOK_PATH, *, source: str | None = None, signed: bool = False
) -> Counter[int]:
    """Send requests as fast as 32 connections can; return how often each status came, 0 for none."""
    told: Counter[int] = Counter()
    left = iter(range(requests))
    transport = httpx.AsyncHTTPTransport(verify=site.trust(), local_address=source)
    url, extensions = f"https://{site.address}{path}", {"sni_hostname": site.domain}

    async def send() -> None:
        for _ in left:
            body = json.dumps(new_event()).encode()
            headers = {"Host": site.domain, "Content-Type": "application/json"}
            if signed:
                now_ms = int(time.time() * 1000)
                headers["Molam-Signature"] = signature.sign(body, site.secret.encode(), now_ms, site.kid)
            try:
                answer = await client.post(url, content=body, headers=headers, extensions=extensions)
                told[answer.status_code] += 1
            except httpx.HTTPError:
                told[0] += 1

    # The sender waits 10 s.
    async with httpx.AsyncClient(transport=transport, timeout=10) as client:
        await asyncio.gather(*(send() for _ in range(32)))
    return told


def crawl(site: Site, source: str, connections: int, over: asyncio.Event) -> list[asyncio.Task[None]]:
    """Open connections that never come to an end: half of them in the header, half in the body, a byte a second; one
    that is closed comes again.
    """
    beginnings = [
        f"POST {WEBHOOK_PATH} HTTP/1.1\r\nHost: {site.domain}\r\nX: ".encode(),
        f"POST {WEBHOOK_PATH} HTTP/1.1\r\nHost: {site.domain}\r\nContent-Length: 200000\r\n\r\n".encode(),
    ]

    async def hold(beginning: bytes) -> None:
        while not over.is_set():
            try:
                reader, writer = await asyncio.open_connection(
                    site.address, 443, ssl=trust, server_hostname=site.domain, local_addr=(source, 0)
                )
                writer.write(beginning)
                while not over.is_set() and not reader.at_eof():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(1)
                writer.close()
            except OSError:
                await asyncio.sleep(0.1)

    trust = site.trust()
    return [asyncio.create_task(hold(beginnings[i % 2])) for i in range(connections)]


@pytest.mark.intrusive
@pytest.mark.debian("13")
def test_unknown_sender_is_not_limited_where_it_must_not_be(site: Site, stranger: str) -> None:
    """Where the sender's networks are not known it may be any stranger; elsewhere than on its path it is one."""

    async def run() -> tuple[Counter[int], Counter[int], Counter[int]]:
        return await asyncio.gather(
            flood(site, EVENTS, source=stranger, signed=True),
            flood(site, 1000, "/x", source=stranger),
            # Forgeries, from the address that the sender comes from, and on its path.
            flood(site, 1000, source=stranger),
        )

    events, others, forgeries = asyncio.run(run())
    assert events == {200: EVENTS}
    assert others[429] > 0
    assert forgeries[429] > 0
    assert set(forgeries) == {401, 429}


@pytest.mark.checklist("APP-6")
@pytest.mark.intrusive
@pytest.mark.debian("13")
@pytest.mark.parametrize("signal", ["TERM", "STOP"])
def test_a_receiver_that_is_down_or_stands_still_is_a_503_in_time(host: Host, site: Site, signal: str) -> None:
    """The contract: within 8 s, with when to come again. nginx would say 502 and 504."""
    unit = f"molam-webhook@{slot_in_use(host)}"
    host.check_output(f"systemctl stop {unit}" if signal == "TERM" else f"systemctl kill --signal=STOP {unit}")
    try:
        answer = site.request("POST", WEBHOOK_PATH, json=new_event(), timeout=8)
    finally:
        host.check_output(f"systemctl kill --signal=CONT {unit}; systemctl start {unit}")
    assert (answer.status_code, answer.json()) == (503, {"error": "unavailable"})
    assert int(answer.headers["Retry-After"]) > 0
    # Back again, it has first to reach the database.
    deadline = time.monotonic() + 10
    while site.send(new_event()).status_code != 200:
        assert time.monotonic() < deadline, "waited in vain"


@pytest.mark.intrusive
def test_slow_attacker_does_not_keep_the_sender_out(host: Host, site: Site, stranger: str) -> None:
    async def run() -> tuple[int, Counter[int]]:
        over = asyncio.Event()
        slow = crawl(site, stranger, 500, over)
        try:
            await asyncio.sleep(6)
            held = int(await asyncio.to_thread(host.check_output, f"ss -Hnt dst {stranger} | wc -l"))
            return held, await flood(site, 400, signed=True)
        finally:
            over.set()
            await asyncio.gather(*slow)

    held, events = asyncio.run(run())
    assert held > 300
    assert events == {200: 400}


@pytest.fixture(scope="module")
def known_sender(
    request: pytest.FixtureRequest, host: Host, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Make this machine the sender, and a proxy that is believed, and nobody an administrator; at the end, all is as
    the inventory has it.
    """
    play = tmp_path_factory.mktemp("front_door") / "play.yml"
    play.write_text(NGINX_ALONE)
    me = f"{own_address(site)}/32"
    try:
        configure(request, host, play, administrator=[], sender=[me], proxies=[me])
        yield
    finally:
        configure(request, host, play)


def configure(request: pytest.FixtureRequest, host: Host, play: Path, **networks: list[str]) -> None:
    """Configure nginx alone, with networks in place of the inventory's."""
    names = {
        "administrator": "molam_administrator_networks",
        "sender": "molam_sender_networks",
        "proxies": "nginx_trusted_proxies",
    }
    answer = subprocess.run(
        [
            "ansible-playbook",
            f"--inventory={ROOT / request.config.getoption('--ansible-inventory')}",
            f"--limit={host.backend.host}",
            f"--extra-vars={json.dumps({names[name]: value for name, value in networks.items()})}",
            play,
        ],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(ROOT / "roles")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr


@pytest.mark.checklist("PRE-8", "NET-5")
@pytest.mark.intrusive
@pytest.mark.debian("13")
@pytest.mark.usefixtures("known_sender")
def test_flood_is_limited_and_the_sender_is_not(site: Site, stranger: str) -> None:
    async def run() -> tuple[Counter[int], Counter[int], Counter[int]]:
        return await asyncio.gather(
            flood(site, EVENTS, signed=True),
            flood(site, 1000, source=stranger),
            flood(site, 1000, "/x", source=stranger),
        )

    events, flooded, scanned = asyncio.run(run())
    assert events == {200: EVENTS}
    assert flooded[429] > 0
    assert scanned[429] > 0
    assert set(flooded) == {401, 429}


@pytest.mark.intrusive
@pytest.mark.debian("13")
@pytest.mark.usefixtures("known_sender")
def test_refusal_says_when_to_come_again(site: Site) -> None:
    network = f"2001:db8:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}:"
    told = {}
    with site.client() as client:
        # Each request from another address of one IPv6 network, which is one stranger. A slow machine takes longer to
        # meet the limit.
        for number in range(1, 3000):
            headers = {"X-Forwarded-For": f"{network}:{number:x}"}
            answer = client.get("/x", headers=headers, extensions={"sni_hostname": site.domain})
            told[answer.status_code] = answer
            if answer.status_code == 429:
                break
    assert set(told) == {404, 429}
    assert told[429].json() == {"error": "rate_limited"}
    assert int(told[429].headers["Retry-After"]) > 0
    assert "Retry-After" not in told[404].headers


@pytest.mark.checklist("NET-5")
@pytest.mark.intrusive
@pytest.mark.debian("13")
@pytest.mark.usefixtures("known_sender")
def test_proxy_is_believed_and_nobody_else(host: Host, site: Site, stranger: str) -> None:
    claim = "X-Forwarded-For: 203.0.113.5, 198.18.0.9"
    seen = []
    for source, field in [(None, claim), (stranger, claim), (None, "X-Real-IP: 198.18.0.9")]:
        mark = uuid.uuid4().hex
        text = request_line(site, f"GET /{mark} HTTP/1.1", field)
        assert converse(connect(site, source=source), text)[0] == 404
        seen.append(lines_of(host, mark)[0]["address"])
    assert seen == ["198.18.0.9", stranger, own_address(site)]
