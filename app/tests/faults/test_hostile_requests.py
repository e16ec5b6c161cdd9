"""Whatever strangers send gets one of the contract's answers and leaves nothing: to the application in this process."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from faults.hostile import EVENT, STATUS, Request, requests, ten_thousand
from hypothesis import given
from molam_webhook.clock import Clock
from molam_webhook.config import ReceiverSettings
from molam_webhook.http import Message, Receiver
from structlog.testing import capture_logs
from support import PATH, SECRET, Postgres, count, signed_headers


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
    # They all come from one address, and each is to be told what is wrong with it.
    monkeypatch.setenv("MOLAM_FAILURE_LIMIT", "1000000")
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
@pytest.mark.hostile
def test_strangers_get_the_contracts_answers_and_leave_nothing(
    receiver: Receiver, runner: asyncio.Runner, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers: Counter[str] = Counter()
    loop = runner.get_loop()

    @ten_thousand
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
