"""Payment intents, from a real HTTP server that stands for the Molam API and a real cache."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import stamina
from local_server import Answer, LocalServer, Request
from molam_webhook import payment_intents as module
from molam_webhook.config import ApiSettings, ConfigError
from molam_webhook.payment_intents import InvalidId, NotFound, PaymentIntents, Refused, Unavailable
from support import Valkey

KEY = "sk_prod_Zq4Xv9Tn2Lw7Rb"
INTENT = b'{"id": "pi_1", "status": "succeeded", "amount": 5000}'


class Api(LocalServer):
    """Gives the answers it was told to, one after another, the last one for ever; remembers what was asked."""

    def __init__(self) -> None:
        super().__init__(self._next_answer)
        self.answers = [Answer(200, body=INTENT)]
        self.silent = threading.Event()
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def _next_answer(self, _request: Request) -> Answer:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if self.silent.is_set():
            time.sleep(0.5)
        return answer


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
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
    asked = [(request.path, request.headers["authorization"]) for request in api.requests]
    assert asked == [("/v1/payment_intents/pi_1", f"Bearer {KEY}")] * 2


def test_an_intent_is_remembered(api: Api, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_SECONDS", 1)

    async def use(client: PaymentIntents) -> None:
        first = await client.payment_intent("pi_1")
        assert await client.payment_intent("pi_1") == first
        assert len(api.requests) == 1
        await client.payment_intent("pi_2")
        assert len(api.requests) == 2
        async with asyncio.timeout(20):
            while len(api.requests) == 2:
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
    api.answers = [Answer(answer, {"Location": f"{api.url}/payment_intents/other"}), Answer(200, body=INTENT)]

    async def use(client: PaymentIntents) -> None:
        with pytest.raises(error):
            await client.payment_intent("pi_1")
        assert len(api.requests) == 1
        assert (await client.payment_intent("pi_1"))["id"] == "pi_1"

    run(settings(api.url, valkey.url), use)


@pytest.mark.parametrize(
    "answer",
    [Answer(500), Answer(503, {"Retry-After": "0"}), Answer(429, {"Retry-After": "0"}), Answer(200, body=b"<html>")],
    ids=str,
)
def test_what_may_pass_is_tried_again(api: Api, answer: Answer) -> None:
    api.answers = [answer, answer, Answer(200, body=INTENT)]

    async def use(client: PaymentIntents) -> None:
        assert (await client.payment_intent("pi_1"))["id"] == "pi_1"

    run(settings(api.url), use)
    assert len(api.requests) == module.ATTEMPTS


def test_a_pause_that_the_api_asks_for_is_kept(api: Api) -> None:
    api.answers = [Answer(429, {"Retry-After": "1"}), Answer(200, body=INTENT)]
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
    api.answers = [Answer(503, {"Retry-After": until})]

    async def use(client: PaymentIntents) -> None:
        with pytest.raises(Unavailable) as raised:
            await client.payment_intent("pi_1")
        assert 100 < raised.value.seconds <= 120

    run(settings(api.url), use)
    assert len(api.requests) == 1


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
        api.answers = [Answer(500)]

        async def use(client: PaymentIntents) -> None:
            for _ in range(module.BREAKER_FAULTS + 3):
                with pytest.raises(Unavailable) as raised:
                    await client.payment_intent("pi_1")
            assert 0 < raised.value.seconds <= 7
            assert len(api.requests) == module.BREAKER_FAULTS
            # The time is over, and the API well again.
            monkeypatch.setattr("circuitbreaker.monotonic", lambda: time.monotonic() + 7)
            api.answers = [Answer(200, body=INTENT)]
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
            assert len(api.requests) == 2 + number

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
    assert api.requests == []


def test_the_key_is_in_no_log_and_no_error(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    api.answers = [Answer(500), Answer(401)]
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
