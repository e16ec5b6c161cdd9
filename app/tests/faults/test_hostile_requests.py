"""Whatever strangers send gets one of the contract's answers, and leaves nothing behind.

The requests go to the application in this process. None of them is valid, by construction: the signature is wrong, or
what it signs is no event.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from molam_webhook import signature
from molam_webhook.clock import Clock
from molam_webhook.config import ReceiverSettings
from molam_webhook.http import Message, Receiver
from structlog.testing import capture_logs
from support import PATH, SECRET, Postgres, count, event_body, now_ms, signed_headers

REQUESTS = 10_000
MAX_BODY_BYTES = 262_144

# The contract's table, as far as these requests can get.
STATUS = {
    "not_found": 404,
    "method_not_allowed": 405,
    "unsupported_encoding": 415,
    "unsupported_media_type": 415,
    "too_large": 413,
    "missing_signature": 401,
    "malformed_signature": 401,
    "timestamp_out_of_window": 401,
    "signature_mismatch": 401,
    "unknown_key": 503,
    "invalid_json": 400,
    "invalid_event": 400,
}

Headers = list[tuple[bytes, bytes]]
Request = tuple[str, str, Headers, list[bytes]]

EVENT = event_body("evt_1")

# What goes wrong at the edges of parsers: signs, spaces, separators, digits that are none, NUL, what is not UTF-8.
junk = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"",
            b"0",
            b"-1",
            b"+5",
            b"1_2",
            "\uff11\uff12".encode(),
            b"\0",
            b"\r\n",
            b",,=",
            b"t=",
            b"\xff" * 9,
            b"9" * 4000,
        ]
    ),
)
no_names = st.one_of(st.none(), st.integers(-9, 9), st.booleans(), st.just(""), st.just("a\0"), st.just("x" * 256))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=9), st.integers(-(2**63), 2**64 - 1)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=3,
)
no_events = st.one_of(
    st.binary(max_size=60),
    st.integers(0, len(EVENT) - 1).map(lambda size: EVENT[:size]),
    values.map(lambda value: orjson.dumps([value])),
    values.map(lambda value: orjson.dumps({"id": "evt_1", "data": value})),
    no_names.map(lambda name: orjson.dumps({"id": name, "type": "payment.succeeded"})),
    no_names.map(lambda name: orjson.dumps({"id": "evt_1", "type": name})),
    st.sampled_from([b'{"id":"evt_0",' + EVENT[1:], b"\xef\xbb\xbf" + EVENT, EVENT + b"\0", EVENT[:-1] + b',"n":NaN}']),
    st.integers(1, 5000).map(lambda depth: b"[" * depth),
    st.just(b'{"id":"\\ud800","type":"a"}'),
)
bodies = st.one_of(st.just(EVENT), no_events, st.just(b" " * (MAX_BODY_BYTES + 1)))


# Much is decided by one draw: each costs more than what the application does with the request.
signers = list(product([None, "v1", "v9", "selftest", "x" * 64], [0, 0, -300_001, 400_000, 10**12]))
forms = st.sampled_from(["whole", "damaged", "damaged", "too long", "junk"])


@st.composite
def wrong_signatures(draw: st.DrawFn, body: bytes) -> bytes:
    """A header that no key of ours made: of another key, perhaps old or damaged, or junk."""
    kid, late_ms = draw(st.sampled_from(signers))
    header = signature.sign(body, SECRET[::-1].encode(), now_ms() + late_ms, kid).encode()
    match draw(forms):
        case "damaged":
            start = draw(st.integers(0, len(header)))
            return header[:start] + draw(junk) + header[start + 2 :]
        case "too long":
            return header * 9
        case "junk":
            return draw(junk)
    return header


PLAIN = ("POST", PATH, b"application/json", 1)
heads = st.sampled_from(
    [PLAIN] * 30
    + [("POST", path, b"application/json", 1) for path in (PATH + "/", "/", "", "/\0", "/../etc/passwd")]
    + [(method, PATH, b"application/json", 1) for method in ("GET", "PUT", "OPTIONS", "", "post", "\0")]
    + [("POST", PATH, kind, 1) for kind in (b"APPLICATION/JSON; charset=utf-8", b"application/jsonp", b"\xff", b"")]
    + [("POST", PATH, b"application/json", number) for number in (0, 2, 9)]
)
names = st.sampled_from([b"content-length", b"content-encoding", b"x-request-id", b"x-real-ip", b"host", b"cookie"])
extras: st.SearchStrategy[Headers] = st.one_of(
    st.just([]), st.just([]), st.lists(st.tuples(names, junk), min_size=1, max_size=1)
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A method, a path, header fields and the parts of a body."""
    method, path, kind, repeats = draw(heads)
    genuine = draw(st.booleans())
    body = draw(no_events if genuine else bodies)
    header = signed_headers(body)["molam-signature"].encode() if genuine else draw(wrong_signatures(body))
    headers = [(b"content-type", kind), *draw(extras), *[(b"molam-signature", header)] * repeats]
    cut = draw(st.integers(0, len(body)))
    return method, path, headers, [body[:cut], body[cut:]]


async def ask(receiver: Receiver, request: Request) -> list[Message]:
    """What the application answers to a request."""
    method, path, headers, parts = request
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": ("192.0.2.1", 9)}
    chunks: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    chunks.append({"type": "http.request", "body": b""})
    left = iter(chunks)
    sent: list[Message] = []

    async def receive() -> Message:
        return next(left)

    async def send(message: Message) -> None:
        sent.append(message)

    await receiver(scope, receive, send)
    return sent


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def receiver(
    postgres: Postgres, database: str, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Receiver]:
    """The application at work, with a database, so that what must not be stored could be."""
    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("DATABASE_URL", postgres.url(database, "molam_webhook"))
    receiver = Receiver(ReceiverSettings.load(), Clock())
    told: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()

    async def live() -> asyncio.Task[None]:
        life = asyncio.create_task(receiver({"type": "lifespan"}, told.get, said.put))
        await told.put({"type": "lifespan.startup"})
        await said.get()
        return life

    async def end(life: asyncio.Task[None]) -> None:
        await told.put({"type": "lifespan.shutdown"})
        await life

    life = runner.run(live())
    yield receiver
    runner.run(end(life))


@pytest.mark.database
def test_strangers_get_the_contracts_answers_and_leave_nothing(
    receiver: Receiver, runner: asyncio.Runner, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers: Counter[str] = Counter()
    loop = runner.get_loop()

    # The same requests every time, so that a failure can be seen again.
    @settings(
        max_examples=REQUESTS, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(requests())
    def check(request: Request) -> None:
        start, body = loop.run_until_complete(ask(receiver, request))
        content = orjson.loads(body["body"])
        assert list(content) == ["error"]
        error = content["error"]
        assert start["status"] == STATUS[error]
        fields = {name: value for name, value in start["headers"] if name not in (b"content-length", b"server")}
        expected = {b"content-type": b"application/json"}
        if start["status"] == 503:
            expected[b"retry-after"] = b"5"
        if start["status"] == 405:
            expected[b"allow"] = b"POST"
        assert fields == expected
        answers[error] += 1

    with capture_logs() as lines:
        check()
    # Every answer that a stranger can get has been given.
    assert answers.keys() == STATUS.keys()
    assert {line["event"] for line in lines} == {"webhook"}
    assert not caplog.records
    for table in ("event_ids", "webhook_deliveries", "event_conflicts", "selftest_events"):
        assert count(url, table) == 0


def test_the_hosts_clock_is_to_blame_only_when_it_is_known_to_be_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class FastClock(Clock):
        def now_ms(self) -> int:
            return super().now_ms() + 10**7

    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", SECRET)
    receiver = Receiver(ReceiverSettings.load(), FastClock(timesync=tmp_path / "timesync"))

    def status() -> int:
        headers = [(name.encode(), value.encode()) for name, value in signed_headers(EVENT).items()]
        return int(asyncio.run(ask(receiver, ("POST", PATH, headers, [EVENT])))[0]["status"])

    assert status() == 401
    (tmp_path / "timesync").mkdir()
    assert status() == 503
    (tmp_path / "timesync" / "synchronized").touch()
    assert status() == 401
