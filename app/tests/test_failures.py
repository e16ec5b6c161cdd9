"""The limit on callers that fail verification: by caller and minute, in one sum for all receivers, and never in the way
of a right signature.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from molam_webhook.cache import Cache
from molam_webhook.failures import CALLERS_MAX, UNKNOWN, WINDOW_SECONDS, Failures, Standing, caller_at
from prometheus_client.parser import text_string_to_metric_families
from support import PATH, Postgres, Process, Service, Valkey, environment, event_body, signed_headers, wait_until

WITHIN, FIRST, BEYOND = Standing.WITHIN, Standing.BEYOND_FIRST, Standing.BEYOND

MINUTE_MS = WINDOW_SECONDS * 1000
NOW_MS = 1_763_800_000_123

LIMIT = 5
BODY = event_body("evt_1")
FORGED = (401, "signature_mismatch")
LIMITED = (429, "rate_limited")

database = pytest.mark.database

Serve = Callable[..., Service]


def test_a_caller_has_so_many_in_a_minute_and_is_told_of_once() -> None:
    counted = Failures(2, None)

    def fail(caller: str, now_ms: int) -> Standing:
        return counted.count(caller, now_ms)

    assert [fail("a", NOW_MS) for _ in range(5)] == [WITHIN, WITHIN, FIRST, BEYOND, BEYOND]
    assert [fail("b", NOW_MS) for _ in range(3)] == [WITHIN, WITHIN, FIRST]
    assert fail("a", NOW_MS - NOW_MS % MINUTE_MS + MINUTE_MS - 1) is BEYOND
    # The next minute, and the last one again where the clock was put back.
    for later in (NOW_MS + MINUTE_MS, NOW_MS):
        assert [fail("a", later) for _ in range(4)] == [WITHIN, WITHIN, FIRST, BEYOND]


def test_the_clock_may_be_put_back_while_the_cache_is_told() -> None:
    class Slow(Cache):
        """Answers when it may."""

        def __init__(self) -> None:
            self.open = asyncio.Event()

        async def add(self, _key: str, _amount: int, _seconds: int) -> int:
            await self.open.wait()
            return LIMIT

    async def scenario() -> list[Standing]:
        cache = Slow()
        counted = Failures(LIMIT, cache)
        counted.count("a", NOW_MS)
        await asyncio.sleep(0)
        counted.count("b", NOW_MS + MINUTE_MS)
        counted.count("c", NOW_MS)
        cache.open.set()
        assert counted._sharing is not None
        await counted._sharing
        # The sum is of the minute that was asked about, and of its caller.
        return [counted.count(caller, NOW_MS) for caller in ("a", "b", "c")]

    assert asyncio.run(scenario()) == [WITHIN, WITHIN, FIRST]


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:DB8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        # An IPv4 address as a socket for both families names it is no network of all of them.
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", UNKNOWN),
        ("unix:", UNKNOWN),
        ("192.0.2.7, 192.0.2.8", UNKNOWN),
        ("192.0.2.07", UNKNOWN),
        ("192.0.2.0/24", UNKNOWN),
        ("\xe9\r\n", UNKNOWN),
        ("3221225991", UNKNOWN),
        ("9" * 8000, UNKNOWN),
    ],
)
def test_whom_an_address_counts_for(address: str, caller: str) -> None:
    assert caller_at(address) == caller


def test_memory_has_a_bound_whoever_comes() -> None:
    counted = Failures(LIMIT, None)

    def fill(first: int) -> list[Standing]:
        addresses = (
            f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1" for number in range(first, first + CALLERS_MAX)
        )
        return [counted.count(caller_at(address), NOW_MS) for address in addresses]

    assert set(fill(0)) == {WITHIN}
    others = [standing for block in range(1, 10) for standing in fill(block * CALLERS_MAX)]
    assert len(counted._records) == CALLERS_MAX + 1
    # They share one count, and are told of together; who was there before keeps a count of its own.
    assert others[: LIMIT + 2] == [WITHIN] * LIMIT + [FIRST, BEYOND]
    assert set(others[LIMIT + 1 :]) == {BEYOND}
    assert set(fill(0)) == {WITHIN}
    assert counted.count("192.0.2.7", NOW_MS + MINUTE_MS) is WITHIN
    assert len(counted._records) == 1


def fresh_minute() -> None:
    """Wait until a test of seconds lies within one minute, by which failures are counted."""
    left = WINDOW_SECONDS - time.time() % WINDOW_SECONDS
    if left < WINDOW_SECONDS / 5:
        time.sleep(left)


def ask(service: Service, address: str | None, headers: dict[str, str], body: bytes = BODY) -> tuple[int, str]:
    """Status and outcome of a request that the proxy says is from `address`."""
    named = {} if address is None else {"x-real-ip": address}
    with service.client() as client:
        fields = [(name.encode(), value.encode("latin-1")) for name, value in (headers | named).items()]
        answer = client.post(PATH, content=body, headers=fields)
    said = answer.json()
    assert answer.headers.get("retry-after") == ("5" if answer.status_code in (429, 503) else None)
    return answer.status_code, said.get("error") or said["status"]


def forge(service: Service, address: str | None) -> tuple[int, str]:
    return ask(service, address, signed_headers(b"something else"))


@pytest.fixture
def admin(directory: Path) -> Path:
    return directory / "admin.sock"


@pytest.fixture
def service(serve: Serve, admin: Path) -> Service:
    service = serve(MOLAM_FAILURE_LIMIT=str(LIMIT), MOLAM_ADMIN_UDS=str(admin))
    fresh_minute()
    return service


def limited(admin: Path) -> float:
    """How many answers were so, as the metrics say."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(admin)), base_url="http://admin") as client:
        text = client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "molam_webhooks_total" and sample.labels["status"] == "rate_limited"
    )


@database
def test_beyond_the_limit_failures_are_refused_and_nothing_else(service: Service, admin: Path) -> None:
    caller = "192.0.2.7"
    assert [forge(service, caller) for _ in range(LIMIT + 2)] == [FORGED] * LIMIT + [LIMITED] * 2
    plain = {"content-type": "application/json"}
    assert ask(service, caller, plain) == LIMITED
    assert ask(service, caller, plain | {"molam-signature": "t=1"}) == LIMITED
    # What may be our fault stays so.
    assert ask(service, caller, signed_headers(BODY, kid="v9")) == (503, "unknown_key")
    for outcome in ("accepted", "duplicate"):
        assert ask(service, caller, signed_headers(BODY)) == (200, outcome)
    assert ask(service, caller, signed_headers(b"{}"), b"{}") == (400, "invalid_event")
    assert forge(service, "192.0.2.8") == FORGED
    # The host itself, which no proxy names.
    assert {forge(service, None) for _ in range(3 * LIMIT)} == {FORGED}
    # One network of IPv6, whichever of its addresses is used; the next one is somebody else.
    for host in range(LIMIT):
        assert forge(service, f"2001:db8:0:1::{host:x}") == FORGED
    assert forge(service, "2001:db8:0:1:ffff::1") == LIMITED
    assert forge(service, "2001:db8:0:2::1") == FORGED
    assert limited(admin) == 5
    told = [(line["caller"], line["level"]) for line in service.lines() if line["outcome"] == "rate_limited"]
    assert told == [(caller, "warning"), ("2001:db8:0:1::/64", "warning")]


@database
def test_unknown_keys_fill_no_log(service: Service) -> None:
    unknown = (503, "unknown_key")
    found = {ask(service, "192.0.2.7", signed_headers(BODY, kid="v9")) for _ in range(3 * LIMIT)}
    assert found == {unknown}
    assert sum(line["outcome"] == "unknown_key" for line in service.lines()) == LIMIT + 1


@database
def test_who_has_no_address_that_can_be_read_is_one_caller(service: Service) -> None:
    hostile = ["", "unix:", "127.0.0.1, 127.0.0.1", "\xe9\xff", "::1%", "0x7f.1", "9" * 4000, "None", "192.0.2.7:80"]
    assert [forge(service, name) for name in hostile] == [FORGED] * LIMIT + [LIMITED] * (len(hostile) - LIMIT)
    for name in hostile:
        assert ask(service, name, signed_headers(BODY))[0] == 200


@database
def test_without_a_proxy_the_connection_tells_the_caller(postgres: Postgres, database: str, directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = environment(postgres.url(database, "molam_webhook"), MOLAM_FAILURE_LIMIT=str(LIMIT))
    process = Process(["molam_webhook", "serve", "--port", str(port)], env, directory)
    try:
        fresh_minute()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15) as client:
            answers = [client.post(PATH, content=BODY, headers=signed_headers(b"x")) for _ in range(LIMIT + 1)]
            assert [answer.status_code for answer in answers] == [401] * LIMIT + [429]
            assert client.post(PATH, content=BODY, headers=signed_headers(BODY)).status_code == 200
    finally:
        process.close()


def shared_count(valkey: Valkey, caller: str) -> int:
    return int(valkey.cli("GET", f"molam:failures:{int(time.time() // WINDOW_SECONDS)}:{caller}") or 0)


@database
def test_receivers_count_together(serve: Serve, valkey: Valkey) -> None:
    # No more than what a host's cache lets them do.
    valkey.cli("ACL", "SETUSER", "default", "resetkeys", "~molam:*", "-@all", "+get", "+set", "+incrby", "+ping")
    first, second = (serve(MOLAM_FAILURE_LIMIT=str(LIMIT), VALKEY_URL=valkey.url) for _ in range(2))
    fresh_minute()
    caller = "2001:db8:0:1::1"
    assert {forge(first, caller) for _ in range(LIMIT)} == {FORGED}
    wait_until(lambda: shared_count(valkey, "2001:db8:0:1::/64") == LIMIT)
    # It hears of the first one's count behind its own first answers.
    answers = [forge(second, caller)]
    while answers[-1] == FORGED:
        answers.append(forge(second, caller))
    assert answers[-1] == LIMITED
    assert len(answers) <= LIMIT
    assert ask(second, caller, signed_headers(BODY))[0] == 200
    assert forge(second, "2001:db8:0:2::1") == FORGED


@database
@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_without_the_cache_each_counts_alone(serve: Serve, valkey: Valkey, fault: str) -> None:
    service = serve(MOLAM_FAILURE_LIMIT=str(LIMIT), VALKEY_URL=valkey.url)
    fresh_minute()
    caller = "192.0.2.7"
    assert forge(service, caller) == FORGED
    wait_until(lambda: shared_count(valkey, caller) == 1)
    getattr(valkey, fault)()
    for number in range(LIMIT - 1):
        assert forge(service, caller) == FORGED
        body = event_body(f"evt_{number}")
        assert ask(service, caller, signed_headers(body), body) == (200, "accepted")
    assert forge(service, caller) == LIMITED
    valkey.resume()
    assert forge(service, caller) == LIMITED
    # It is told again once it is back, of whoever is not beyond the limit yet.
    strangers = (f"198.51.{number // 256}.{number % 256}" for number in range(65536))

    def told() -> bool:
        stranger = next(strangers)
        assert forge(service, stranger) == FORGED
        return shared_count(valkey, stranger) > 0

    wait_until(told)
