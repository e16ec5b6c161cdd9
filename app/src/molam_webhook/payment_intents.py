"""Payment intents from the Molam API, for handlers; remembered for five minutes where there is a cache."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Any

import httpx
import orjson
import stamina
from circuitbreaker import CircuitBreaker

from molam_webhook.config import ApiSettings, ConfigError
from molam_webhook.forward import no_cookies, retry_after
from molam_webhook.handlers import TryLater, Unprocessable

CACHE_SECONDS = 300

CONNECT_SECONDS = 2.0
REQUEST_SECONDS = 5.0

# A call may try so often, wait so long in between, and take so long in all. A handler's transaction idles meanwhile,
# which PostgreSQL ends after 10 s; what takes longer is for the worker's own retries.
ATTEMPTS = 3
MAX_PAUSE_SECONDS = 2.0
WHOLE_SECONDS = 8.0

# After this many faults in a row the API is left alone, for this long.
BREAKER_FAULTS = 5
BREAKER_SECONDS = 30

# It becomes a part of a URL and of a cache key, so it can be no path and no other key.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")

_TRANSIENT = {408, 425, 429}


class PaymentIntentError(Exception):
    """There is no payment intent to be had; the message says why, without the key."""


class InvalidId(PaymentIntentError, Unprocessable):
    """What was asked for is no payment intent's id: an event that names it is parked."""


class NotFound(PaymentIntentError):
    """The API knows no such payment intent (yet: this is not remembered)."""


class Refused(PaymentIntentError):
    """The API does not answer us, and will not until somebody changes a setting: the key above all."""


class Unavailable(PaymentIntentError, TryLater):
    """The API cannot answer now; `seconds` is the pause that it asks for, 0 where it says nothing of it."""


class PaymentIntents:
    """A client of the Molam API. Make one for each process: it keeps connections, and knows when to leave the
    API alone.
    """

    def __init__(self, settings: ApiSettings) -> None:
        """Connect to nothing yet. Raises ConfigError where there is no key."""
        if settings.molam_api_key is None:
            raise ConfigError(["MOLAM_API_KEY: is missing; payment intents are read from the Molam API with it"])
        self._http = httpx.AsyncClient(
            base_url=settings.molam_api_url,
            headers={
                "Accept": "application/json",
                "Authorization": f"Bearer {settings.molam_api_key.get_secret_value()}",
            },
            cookies=no_cookies(),
            # The whole request is limited where it is sent.
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            # The system's certificates, which know a company's own authority; not the library's.
            verify=ssl.create_default_context(),
        )
        self._breaker = CircuitBreaker(
            BREAKER_FAULTS, BREAKER_SECONDS, (Unavailable, asyncio.CancelledError), "molam-api"
        )
        self._cache = settings.open_cache()

    async def payment_intent(self, intent_id: object) -> dict[str, Any]:
        """The payment intent as the API describes it, at most five minutes old. The id may be whatever an event says.

        Raises InvalidId, NotFound, Refused or Unavailable.
        """
        if not isinstance(intent_id, str) or not _ID.fullmatch(intent_id):
            raise InvalidId("A payment intent's id is 1 to 255 letters, digits, _ and -.")
        key = f"molam:payment_intent:{intent_id}"
        if self._cache is not None:
            remembered = await self._cache.get(key)
            if remembered is not None and (intent := _read(remembered)) is not None:
                return intent
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                body, intent = await self._fetch(intent_id)
        except TimeoutError:
            raise Unavailable(f"No answer from the Molam API within {WHOLE_SECONDS:.0f} s.") from None
        if self._cache is not None:
            await self._cache.set(key, body, CACHE_SECONDS)
        return intent

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()
        if self._cache is not None:
            await self._cache.close()

    @stamina.retry(
        # Looked up when it is called: it stands further below.
        on=lambda error: _pause(error),
        attempts=ATTEMPTS,
        timeout=None,
        wait_initial=0.2,
        wait_jitter=0.2,
    )
    async def _fetch(self, intent_id: str) -> tuple[bytes, dict[str, Any]]:
        if self._breaker.opened:
            pause = self._breaker.open_remaining
            raise Unavailable(f"The Molam API failed {BREAKER_FAULTS} times; left alone for {pause} s.", pause)
        with self._breaker:
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    answer = await self._http.get(f"payment_intents/{intent_id}")
            except (httpx.RequestError, TimeoutError) as error:
                raise Unavailable(f"No answer from the Molam API: {str(error) or type(error).__name__}.") from error
            return _check(answer)


def _check(answer: httpx.Response) -> tuple[bytes, dict[str, Any]]:
    """The body and the payment intent in it. Raises NotFound, Refused or Unavailable."""
    status = answer.status_code
    if status in _TRANSIENT or status >= 500:
        raise Unavailable(f"The Molam API answered {status}.", retry_after(answer.headers.get("retry-after")))
    if status == httpx.codes.NOT_FOUND:
        raise NotFound("The Molam API knows no such payment intent.")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise Refused(f"The Molam API answered {status}: is MOLAM_API_KEY a secret key, and still valid?")
    if status != httpx.codes.OK:
        raise Refused(f"The Molam API answered {status}: is MOLAM_API_URL right?")
    intent = _read(answer.content)
    if intent is None:
        raise Unavailable("The Molam API answered something else than a JSON object.")
    return answer.content, intent


def _read(body: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _pause(error: Exception) -> bool | float:
    """Whether to try again after `error`, or after how many seconds."""
    if not isinstance(error, Unavailable) or error.seconds > MAX_PAUSE_SECONDS:
        return False
    return error.seconds or True
