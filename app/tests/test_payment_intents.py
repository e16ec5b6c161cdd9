"""Payment intents, from a real HTTP server that stands for the Molam API and a real cache."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stamina
from molam_webhook import payment_intents as module
from molam_webhook.config import ApiSettings, ConfigError
from molam_webhook.payment_intents import InvalidId, NotFound, PaymentIntents, Refused, Unavailable
from support import Valkey

KEY = "sk_prod_Zq4Xv9Tn2Lw7Rb"
INTENT = b'{"id": "pi_1", "status": "succeeded", "amount": 5000}'

Answer = tuple[int, dict[str, str], bytes]


class Api:
    """Gives the answers it was told to, one after another, the last one for ever; remembers what was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [(200, {}, INTENT)]
        self.asked: list[tuple[str, str | None]] = []
        self.silent = threading.Event()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append((self.path, self.headers["Authorization"]))
                status, headers, body = api.answers.pop(0) if len(api.answers) > 1 else api.answers[0]
                if api.silent.is_set():
                    time.sleep(0.5)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    yield server
    server.close()


@pytest.fixture
def valkey(directory: Path) -> Iterator[Valkey]:
    server = Valkey(directory)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def settings(api_url: str, cache_url: str = "") -> ApiSettings:
    return ApiSettings.model_validate(
        {"molam_environment": "staging", "molam_api_url": api_url, "molam_api_key": KEY, "valkey_url": cache_url}
    )


def run(configured: ApiSettings, use: Callable[[PaymentIntents], Awaitable[None]]) -> None:
    async def body() -> None:
        client = PaymentIntents(configured)
        try:
            await use(client)
        finally:
            await client.close()

    asyncio.run(body())


def test_an_intent_is_asked_for_with_the_key(api: Api) -> None:
    async def use(client: PaymentIntents) -> None:
        for _ in range(2):
            assert await client.payment_intent("pi_1") == {"id": "pi_1", "status": "succeeded", "amount": 5000}

    run(settings(api.url), use)
    # Without a cache, each time.
    assert api.asked == [("/v1/payment_intents/pi_1", f"Bearer {KEY}")] * 2


def test_an_intent_is_remembered(api: Api, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_SECONDS", 1)

    async def use(client: PaymentIntents) -> None:
        first = await client.payment_intent("pi_1")
        assert await client.payment_intent("pi_1") == first
        assert len(api.asked) == 1
        await client.payment_intent("pi_2")
        assert len(api.asked) == 2
        async with asyncio.timeout(20):
            while len(api.asked) == 2:
                assert await client.payment_intent("pi_1") == first
                await asyncio.sleep(0.05)

    run(settings(api.url, valkey.url), use)


def test_it_is_remembered_for_five_minutes(api: Api, valkey: Valkey) -> None:
    async def use(client: PaymentIntents) -> None:
        await client.payment_intent("pi_1")

    run(settings(api.url, valkey.url), use)
    assert 290 < int(valkey.cli("TTL", "molam:payment_intent:pi_1")) <= 300


@pytest.mark.parametrize(
    ("answer", "error"),
    [(404, NotFound), (401, Refused), (403, Refused), (400, Refused), (302, Refused), (204, Refused)],
)
def test_what_is_no_intent_is_not_remembered_nor_asked_for_again(
    api: Api, valkey: Valkey, answer: int, error: type[Exception]
) -> None:
    api.answers = [(answer, {"Location": f"{api.url}/payment_intents/other"}, b""), (200, {}, INTENT)]

    async def use(client: PaymentIntents) -> None:
        with pytest.raises(error):
            await client.payment_intent("pi_1")
        assert len(api.asked) == 1
        assert (await client.payment_intent("pi_1"))["id"] == "pi_1"

    run(settings(api.url, valkey.url), use)


@pytest.mark.parametrize(
    "answer",
    [(500, {}, b""), (503, {"Retry-After": "0"}, b""), (429, {"Retry-After": "0"}, b""), (200, {}, b"<html>")],
    ids=str,
)
def test_what_may_pass_is_tried_again(api: Api, answer: Answer) -> None:
    api.answers = [answer, answer, (200, {}, INTENT)]

    async def use(client: PaymentIntents) -> None:
        assert (await client.payment_intent("pi_1"))["id"] == "pi_1"

    run(settings(api.url), use)
    assert len(api.asked) == module.ATTEMPTS


def test_a_pause_that_the_api_asks_for_is_kept(api: Api) -> None:
    api.answers = [(429, {"Retry-After": "1"}, b""), (200, {}, INTENT)]
    waits = []
    stamina.instrumentation.set_on_retry_hooks([lambda details: waits.append(details.wait_for)])
    try:

        async def use(client: PaymentIntents) -> None:
            await client.payment_intent("pi_1")

        run(settings(api.url), use)
    finally:
        stamina.instrumentation.set_on_retry_hooks(None)
    assert waits == [1]


def test_a_long_pause_is_left_to_the_caller(api: Api) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    api.answers = [(503, {"Retry-After": until}, b"")]

    async def use(client: PaymentIntents) -> None:
        with pytest.raises(Unavailable) as raised:
            await client.payment_intent("pi_1")
        assert 100 < raised.value.seconds <= 120

    run(settings(api.url), use)
    assert len(api.asked) == 1


@pytest.mark.parametrize("limit", ["REQUEST_SECONDS", "WHOLE_SECONDS"])
def test_a_silent_api_is_not_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(module, limit, 0.25)
    api.silent.set()

    async def use(client: PaymentIntents) -> None:
        with pytest.raises(Unavailable, match="No answer from the Molam API"):
            await client.payment_intent("pi_1")

    run(settings(api.url), use)


def test_an_api_that_keeps_failing_is_left_alone_and_asked_again_later(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BREAKER_SECONDS", 7)
    stamina.set_testing(True, attempts=1)
    try:
        api.answers = [(500, {}, b"")]

        async def use(client: PaymentIntents) -> None:
            for _ in range(module.BREAKER_FAULTS + 3):
                with pytest.raises(Unavailable) as raised:
                    await client.payment_intent("pi_1")
            assert 0 < raised.value.seconds <= 7
            assert len(api.asked) == module.BREAKER_FAULTS
            # The time is over, and the API well again.
            monkeypatch.setattr("circuitbreaker.monotonic", lambda: time.monotonic() + 7)
            api.answers = [(200, {}, INTENT)]
            for _ in range(2):
                await client.payment_intent("pi_1")

        run(settings(api.url), use)
    finally:
        stamina.set_testing(False)


def test_an_api_that_is_not_there_is_unavailable(api: Api) -> None:
    api.close()

    async def use(client: PaymentIntents) -> None:
        with pytest.raises(Unavailable):
            await client.payment_intent("pi_1")

    run(settings(api.url), use)


@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_the_loss_of_the_cache_costs_speed_only(api: Api, valkey: Valkey, fault: str) -> None:
    async def use(client: PaymentIntents) -> None:
        await client.payment_intent("pi_1")
        getattr(valkey, fault)()
        for number in range(5):
            assert (await client.payment_intent("pi_1"))["id"] == "pi_1"
            assert len(api.asked) == 2 + number

    run(settings(api.url, valkey.url), use)
    valkey.resume()


def test_a_damaged_value_in_the_cache_is_none(api: Api, valkey: Valkey) -> None:
    valkey.cli("SET", "molam:payment_intent:pi_1", '["no intent"]')

    async def use(client: PaymentIntents) -> None:
        assert (await client.payment_intent("pi_1"))["id"] == "pi_1"

    run(settings(api.url, valkey.url), use)


@pytest.mark.parametrize("intent_id", ["", "..", "pi/1", "pi?x", "pi_1\n", "pi:1", "pi_é", "-pi", "p" * 256, None, 7])
def test_what_is_no_id_is_asked_of_nobody(api: Api, intent_id: object) -> None:
    async def use(client: PaymentIntents) -> None:
        with pytest.raises(InvalidId):
            await client.payment_intent(intent_id)

    run(settings(api.url), use)
    assert api.asked == []


def test_the_key_is_in_no_log_and_no_error(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    api.answers = [(500, {}, b""), (401, {}, b"")]
    told = []

    async def use(client: PaymentIntents) -> None:
        told.append(repr(client))
        with pytest.raises(Refused) as raised:
            await client.payment_intent("pi_1")
        told.append(repr(raised.value))

    run(settings(api.url), use)
    printed = capfd.readouterr()
    told += [printed.out, printed.err, repr(settings(api.url)), str(settings(api.url).describe())]
    assert "stamina.retry_scheduled" in printed.out + printed.err
    assert KEY not in "".join(told)


def test_without_a_key_there_is_no_client() -> None:
    with pytest.raises(ConfigError, match="MOLAM_API_KEY: is missing"):
        PaymentIntents(ApiSettings())


@pytest.mark.parametrize(
    ("environment", "url"),
    [("production", "https://api.molam.com/v1"), ("staging", "https://api.sandbox.molam.com/v1")],
)
def test_the_address_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, environment: str, url: str) -> None:
    monkeypatch.setenv("MOLAM_ENVIRONMENT", environment)
    # As templates write what is not set.
    monkeypatch.setenv("MOLAM_API_URL", "")
    monkeypatch.setenv("VALKEY_URL", "")
    loaded = ApiSettings.load()
    assert (loaded.molam_api_url, loaded.valkey_url) == (url, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOLAM_API_URL", "api.molam.com"),
        ("MOLAM_API_URL", "http://api.molam.com/v1"),
        ("MOLAM_API_URL", "https://user:hunter2@api.molam.com/v1"),
        ("MOLAM_API_URL", "https://api.molam.com/v1/"),
        ("MOLAM_API_KEY", "sk_test_Zq4Xv9Tn2Lw7Rb"),
        ("MOLAM_API_KEY", "pk_live_Zq4Xv9Tn2Lw7Rb"),
        ("MOLAM_API_KEY", "sk_prod_xxxxxxxxxxx"),
        ("MOLAM_API_KEY", "sk_prod_Zq4Xv9Tn2\nLw7Rb"),
        ("VALKEY_URL", "/run/valkey.sock"),
        ("VALKEY_URL", "http://localhost"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        ApiSettings.load()
    assert [fault.split(":")[0] for fault in raised.value.faults] == [name]
    # Neither the key nor a password is told.
    assert "Zq4Xv9Tn2" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_the_caches_password_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALKEY_URL", "redis://worker:hunter2@cache.test:6379/0")
    rows = {name: value for name, value, _ in ApiSettings.load().describe()}
    assert rows["VALKEY_URL"] == "redis://worker:***@cache.test:6379/0"
