"""The receiver over HTTP, as a real process against a real database (contract, "What is answered")."""

import asyncio
import json
import re
import socket
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import httpx
import pytest
from molam_webhook import signature
from support import PATH, SECRET, Service, count, event_body, now_ms, query, signed_headers, wait_until
from vectors import VECTORS, Vector

pytestmark = pytest.mark.database

Serve = Callable[..., Service]


def credentials(directory: Path, keyring: dict[str, dict[str, str]]) -> dict[str, str]:
    """Settings for keys that come as the service manager's credential."""
    directory.mkdir()
    (directory / "keyring").write_text(json.dumps(keyring))
    return {"CREDENTIALS_DIRECTORY": str(directory), "MOLAM_ENVIRONMENT": "demo"}


@pytest.mark.checklist("HOOK-4")
@pytest.mark.parametrize("server", ["own", "granian"])
def test_an_event_is_accepted_once_and_then_known(serve: Serve, url: str, server: str) -> None:
    service = serve(server)
    body = event_body("evt_1")
    first, second = service.deliver(body), service.deliver(body)
    assert (first.status_code, first.json()) == (200, {"status": "accepted", "id": "evt_1"})
    assert (second.status_code, second.json()) == (200, {"status": "duplicate", "id": "evt_1"})
    (row,) = query(url, "SELECT * FROM webhook_deliveries")
    stored = (row["event_id"], row["event_type"], row["kid"], row["state"], row["payload"])
    assert stored == ("evt_1", "payment.succeeded", "v1", "pending", body)
    assert row["created"].timestamp() == 1_763_800_000
    assert signature.parse(row["signature"].encode())


def test_every_vector(serve: Serve, url: str, directory: Path) -> None:
    services: dict[frozenset[str], Service] = {}

    def answer(vector: Vector) -> httpx.Response:
        if vector.revoked not in services:
            keyring = {
                kid: {"secret": secret, "state": "revoked" if kid in vector.revoked else "active"}
                for kid, secret in vector.keys.items()
            }
            settings = credentials(directory / f"credentials{len(services)}", keyring)
            services[vector.revoked] = serve(without="MOLAM_WEBHOOK_SECRET", **settings)
        headers = {"content-type": "application/json"}
        if (header := vector.header_at(now_ms())) is not None:
            headers["molam-signature"] = header
        with services[vector.revoked].client() as client:
            return client.post(PATH, content=vector.body, headers=headers)

    for vector in VECTORS:
        response = answer(vector)
        assert response.status_code == vector.status, vector.name
        said = response.json()
        if vector.outcome == "accepted":
            # All of them bear the same id: one is the first.
            assert said["status"] in ("accepted", "duplicate"), vector.name
        else:
            assert said == {"error": vector.outcome}, vector.name
    assert count(url, "webhook_deliveries") == count(url, "event_ids") == 1


@pytest.fixture
def client(serve: Serve) -> Iterator[httpx.Client]:
    with serve().client() as client:
        yield client


@pytest.mark.checklist("HOOK-5", "APP-4")
def test_the_order_of_checks_and_their_answers(client: httpx.Client) -> None:
    body = event_body("evt_1")
    good = signed_headers(body)
    plain = {"content-type": "text/plain"}
    zipped = {"content-encoding": "gzip"}
    big = b" " * 262_145

    def check(response: httpx.Response, status: int, error: str) -> None:
        assert (response.status_code, response.json()) == (status, {"error": error})
        assert response.headers["content-type"] == "application/json"
        assert response.headers.get("server", "molam-webhook") == "molam-webhook"
        assert ("retry-after" in response.headers) == (status == 503)

    # Each request has every later fault as well.
    check(client.get("/other", headers=zipped | plain), 404, "not_found")
    check(client.post(PATH + "/", content=big), 404, "not_found")
    refused = client.put(PATH, content=big, headers=zipped | plain)
    check(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"
    check(client.post(PATH, content=big, headers=zipped | plain), 415, "unsupported_encoding")
    check(client.post(PATH, content=big, headers=plain), 415, "unsupported_media_type")
    check(client.post(PATH, content=big), 415, "unsupported_media_type")
    check(client.post(PATH, content=big, headers={"content-type": "application/json"}), 413, "too_large")
    check(client.post(PATH, content=b"x", headers={"content-type": "application/json"}), 401, "missing_signature")
    check(client.post(PATH, content=b"x", headers=good | {"molam-signature": "t=1"}), 401, "malformed_signature")
    check(client.post(PATH, content=b"x", headers=good), 401, "signature_mismatch")
    check(client.post(PATH, content=b"x", headers=signed_headers(b"x", kid="v9")), 503, "unknown_key")
    check(client.post(PATH, content=b"x", headers=signed_headers(b"x")), 400, "invalid_json")
    check(client.post(PATH, content=b"{}", headers=signed_headers(b"{}")), 400, "invalid_event")
    assert client.post(PATH, content=body, headers=good).json()["status"] == "accepted"


def test_what_is_accepted_all_the_same(client: httpx.Client) -> None:
    body = event_body("evt_1")
    headers = signed_headers(body, kid=None) | {"content-type": "Application/JSON ; charset=utf-8"}
    assert client.post(PATH + "?a=b", content=body, headers=headers).json()["status"] == "accepted"
    # A signature in two fields is one list: the repeated time makes it malformed.
    twice = [*headers.items(), ("molam-signature", headers["molam-signature"])]
    assert client.post(PATH, content=body, headers=twice).json() == {"error": "malformed_signature"}


def test_a_body_at_the_limit_is_taken_and_one_beyond_is_not(client: httpx.Client) -> None:
    body = event_body("evt_1").ljust(262_144)

    def chunks(content: bytes) -> Iterator[bytes]:
        for start in range(0, len(content), 10_000):
            yield content[start : start + 10_000]

    assert client.post(PATH, content=chunks(body), headers=signed_headers(body)).json()["status"] == "accepted"
    assert client.post(PATH, content=body, headers=signed_headers(body)).json()["status"] == "duplicate"
    body += b" "
    for content in (body, chunks(body)):
        response = client.post(PATH, content=content, headers=signed_headers(body))
        assert (response.status_code, response.json()) == (413, {"error": "too_large"})


def test_what_waits_for_its_commit_is_not_held_as_it_was_parsed(serve: Serve, url: str, directory: Path) -> None:
    admin = directory / "admin.sock"
    service = serve(MOLAM_ADMIN_UDS=str(admin))
    # Parsed, such a body takes twenty-five times its size.
    data = b'"data":{"a":[' + b",".join([b"[[]]"] * 52_000) + b"]}}"
    bodies = [b'{"id":"evt_%d","type":"x",' % number + data for number in range(24)]

    def held() -> float:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(admin)), base_url="http://admin") as client:
            text = client.get("/metrics").text
        names = ("molam_webhook_queue_depth", "molam_webhook_batch_size_sum")
        return sum(float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0]) for name in names)

    def memory() -> int:
        """The most that it has ever had, in bytes."""
        status = Path(f"/proc/{service._process.pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    before = memory()
    with asyncio.Runner() as runner, ThreadPoolExecutor(len(bodies)) as pool:
        keeper = runner.run(asyncpg.connect(url))
        # Nothing is stored while this holds the table.
        runner.run(keeper.execute("BEGIN; LOCK TABLE event_ids IN EXCLUSIVE MODE"))
        answers = [pool.submit(service.deliver, body) for body in bodies]
        wait_until(lambda: held() == len(bodies))
        runner.run(keeper.close())
        assert {answer.result().status_code for answer in answers} == {200}
    assert memory() - before < 16 * sum(map(len, bodies))


def test_a_client_that_goes_away_or_lies_about_the_length(serve: Serve, url: str) -> None:
    service = serve()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    for length in ("100", "-1", "1e3", "99999999999999999999", "5\r\nContent-Length: 6"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(service.socket))
            connection.sendall(f"{head}{length}\r\n\r\n{{}}".encode())
    assert service.deliver(event_body("evt_1")).status_code == 200
    assert count(url, "event_ids") == 1


@pytest.mark.later_schema
def test_another_body_under_a_known_id_is_kept_aside(serve: Serve, url: str) -> None:
    service = serve()
    first, second = event_body("evt_1"), event_body("evt_1", amount=1)
    assert service.deliver(first).json()["status"] == "accepted"
    for _ in range(2):
        answer = service.deliver(second)
        assert (answer.status_code, answer.json()["status"]) == (200, "duplicate")
    assert query(url, "SELECT payload FROM webhook_deliveries")[0][0] == first
    assert [row[0] for row in query(url, "SELECT payload FROM event_conflicts")] == [second]
    wait_until(lambda: sum(line["event"] == "event_conflict" for line in service.lines()) == 2)
    assert {line["level"] for line in service.lines() if line["event"] == "event_conflict"} == {"error"}


@pytest.mark.parametrize(
    ("event_id", "header"),
    [
        ("evt_1.a-B:2", "evt_1.a-B:2"),
        ("a b/c", "a%20b%2Fc"),
        ("x\r\nX-Evil: 1", "x%0D%0AX-Evil:%201"),
        ("%\u202e\xe9", "%25%E2%80%AE%C3%A9"),
    ],
)
def test_the_proxy_is_told_which_event_it_was(client: httpx.Client, event_id: str, header: str) -> None:
    body = event_body(event_id)
    for status in ("accepted", "duplicate"):
        answer = client.post(PATH, content=body, headers=signed_headers(body))
        assert (answer.json()["status"], answer.headers["x-molam-event-id"]) == (status, header)
        assert answer.headers["x-molam-kid"] == "v1"
        assert "x-evil" not in answer.headers
    # Nobody is told of what was not verified.
    forged = client.post(PATH, content=body, headers=signed_headers(b"x"))
    assert not {"x-molam-event-id", "x-molam-kid"} & forged.headers.keys()


def test_an_event_that_cannot_be_stored_is_named_too(serve: Serve) -> None:
    service = serve(DATABASE_URL="postgresql:///nowhere?host=/nonexistent")
    answer = service.deliver(event_body("evt_1"))
    assert (answer.status_code, answer.json()) == (503, {"error": "unavailable"})
    assert (answer.headers["retry-after"], answer.headers["x-molam-event-id"]) == ("5", "evt_1")


def test_what_is_no_http_is_refused_in_the_same_form(serve: Serve) -> None:
    service = serve()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(service.socket))
        connection.sendall(b"POST / HTTP/1.1\r\nA: \x01\r\n\r\n")
        with connection.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")
    assert head.splitlines()[0].split()[1] == b"400"
    assert b"content-type: application/json" in head.splitlines()
    assert b"server: molam-webhook" in head.splitlines()
    assert json.loads(body) == {"error": "bad_request"}


def test_forgeries_leave_nothing_behind(serve: Serve, url: str) -> None:
    service = serve()
    body = event_body("evt_1")
    for headers in (signed_headers(b"other"), signed_headers(body, secret=SECRET[::-1])):
        with service.client() as client:
            assert client.post(PATH, content=body, headers=headers).status_code == 401
    assert count(url, "webhook_deliveries") == count(url, "event_ids") == count(url, "event_conflicts") == 0


@pytest.mark.later_schema
def test_the_self_test_never_reaches_the_inbox(serve: Serve, url: str, directory: Path) -> None:
    keyring = {kid: {"secret": SECRET + kid, "state": "active"} for kid in ("v1", "selftest")}
    service = serve(without="MOLAM_WEBHOOK_SECRET", **credentials(directory / "credentials", keyring))
    body = event_body("evt_1")
    words = []
    for kid in ("selftest", "selftest", "v1"):
        with service.client() as client:
            headers = signed_headers(body, kid=kid, secret=SECRET + kid)
            answer = client.post(PATH, content=body, headers=headers)
            words.append((answer.json()["status"], answer.headers["x-molam-kid"]))
    assert words == [("accepted", "selftest"), ("duplicate", "selftest"), ("accepted", "v1")]
    assert [row[0] for row in query(url, "SELECT kid FROM webhook_deliveries")] == ["v1"]
    assert count(url, "selftest_events") == 1


def test_the_self_test_is_unknown_to_strangers(serve: Serve, url: str) -> None:
    service = serve(SELFTEST_SECRET=SECRET + "self", MOLAM_SELFTEST_NETWORKS="10.1.0.0/16, 2001:db8::/32")
    body = event_body("evt_1")
    headers = signed_headers(body, kid="selftest", secret=SECRET + "self")

    def ask(*addresses: str) -> tuple[int, str | None]:
        with service.client() as client:
            named = [(name.encode(), value.encode()) for name, value in headers.items()]
            named += [(b"X-Real-IP", address.encode("latin-1")) for address in addresses]
            answer = client.post(PATH, content=body, headers=named)
            return answer.status_code, answer.json().get("error")

    for stranger in ("10.2.0.1", "2001:db9::1", "127.0.0.1", "", "unix:", "10.1.0.1, 10.1.0.1", "10.1.0.1/32", "é"):
        assert ask(stranger) == (503, "unknown_key"), stranger
    assert ask("10.1.0.1", "10.1.0.1") == (503, "unknown_key")
    assert count(url, "selftest_events") == 0
    for near in ((), ("10.1.255.254",), ("2001:db8::1",)):
        assert ask(*near) == (200, None)
    # The limit is on this one key alone.
    with service.client() as client:
        real = client.post(PATH, content=body, headers=signed_headers(body) | {"x-real-ip": "10.2.0.1"})
        assert real.json()["status"] == "accepted"
    assert count(url, "selftest_events") == count(url, "webhook_deliveries") == 1


def test_health(client: httpx.Client) -> None:
    healthy = {"status": "healthy", "database": "healthy", "cache": "disabled"}
    wait_until(lambda: client.get("/health").status_code == 200)
    assert client.get("/health?x").json() == healthy
    assert client.head("/health").content == b""
    refused = client.post("/health")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_the_log_says_what_came_and_no_secret(serve: Serve) -> None:
    service = serve()
    body = event_body("evt\n\u202e1", "payment.succeeded", id={"a": ["b"] * 100}, amount=7)
    headers = {"x-request-id": "0123456789abcdef"}
    assert service.deliver(body, **headers).status_code == 200
    wait_until(lambda: any(line["event"] == "webhook" for line in service.lines()))
    (line,) = [line for line in service.lines() if line["event"] == "webhook"]
    expected = {
        "event_id": "evt\n\u202e1",
        "event_type": "payment.succeeded",
        "payment_id": "dict",
        "amount": 7,
        "outcome": "accepted",
        "request_id": "0123456789abcdef",
        "level": "info",
    }
    assert line | expected == line
    text = service.log.read_text()
    assert SECRET not in text
    assert "v1=" not in text


def test_the_socket_is_for_the_group_and_a_stale_one_is_replaced(serve: Serve) -> None:
    service = serve()
    assert stat.S_IMODE(service.socket.stat().st_mode) == 0o660
    service.kill()
    assert service.socket.exists()
    service.restart()
    assert service.deliver(event_body("evt_1")).status_code == 200
    assert service.stop() == 0
    assert not service.socket.exists()
