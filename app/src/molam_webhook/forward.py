"""Forwarding: each event is posted to a URL of the merchant's own, signed afresh, at least once.

A repeat bears the same Idempotency-Key, the event's id. It can come after a kill between the answer and the mark of
it, or when somebody asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from string import ascii_letters, digits, punctuation
from urllib.parse import quote

import httpx

from molam_webhook import signature
from molam_webhook.config import WorkerSettings
from molam_webhook.database import ERRORS, REOPEN_SECONDS, Connection, session
from molam_webhook.handlers import TryLater
from molam_webhook.leases import Item, Queue

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 10.0

# An answer's status says it all. So much of the rest is read only to use its connection again.
REST_BYTES = 65_536
REST_SECONDS = 1.0

# An id may hold any character, a header field only these. The percent sign is what others are written with.
_PLAIN = (ascii_letters + digits + punctuation).replace("%", "")


class Forwarding:
    """The work on the outbox."""

    done_word, failed_word = "event_forwarded", "forward_failed"
    # Nobody else's code runs here.
    may_kill = False

    def __init__(self, settings: WorkerSettings, client: httpx.AsyncClient, url: str, secret: bytes) -> None:
        self._database_url = settings.database_url.get_secret_value()
        self._client = client
        self._url = url
        self._secret = secret
        self.queue = Queue("forwards", "forwards", key="delivery_id", done_at="done_at")

    async def perform(self, connection: Connection, item: Item) -> None:
        """Post the event and mark it done. Raises LeaseLost, or TryLater where it was not taken."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._client.send(self._request(item), stream=True)
        except TimeoutError:
            raise TryLater(f"no answer within {ANSWER_SECONDS:.0f} s") from None
        except httpx.HTTPError as error:
            raise TryLater(f"no answer: {type(error).__name__}: {error}") from error
        await _finish(response)
        if not response.is_success:
            raise TryLater(f"answered {response.status_code}", retry_after(response.headers.get("retry-after")))
        await self._mark(connection, item)

    def _request(self, item: Item) -> httpx.Request:
        event_id = printable(item.event_id)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": event_id,
            "Molam-Event-Id": event_id,
            "Molam-Event-Type": printable(item.event_type),
            "Molam-Forward-Signature": signature.sign(item.payload, self._secret, time.time_ns() // 1_000_000, None),
        }
        return self._client.build_request("POST", self._url, content=item.payload, headers=headers)

    async def _mark(self, connection: Connection, item: Item) -> None:
        try:
            await self.queue.done(connection, item)
        except ERRORS:
            # It was taken. Without the mark it would be sent again: wait for the database, as long as we may.
            while True:
                await asyncio.sleep(REOPEN_SECONDS)
                try:
                    async with session(self._database_url, "molam-webhook-worker") as another:
                        return await self.queue.done(another, item)
                except ERRORS:
                    continue


@contextlib.asynccontextmanager
async def forwarding(settings: WorkerSettings) -> AsyncIterator[Forwarding | None]:
    """Lend the work on the outbox and close its connections afterwards; None where nothing is forwarded."""
    url, secret = settings.molam_forward_url, settings.forward_secret
    if not url or secret is None:
        yield None
        return
    async with httpx.AsyncClient(
        # The host's certificates, where its administrators put their own CA.
        verify=ssl.create_default_context(),
        timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        follow_redirects=False,
        # A proxy named in the environment is for the web.
        trust_env=False,
        cookies=no_cookies(),
    ) as client:
        yield Forwarding(settings, client, url, secret.get_secret_value().encode())


def no_cookies() -> CookieJar:
    """A jar that stays empty: each request stands for itself, whatever an answer wants remembered."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


async def _finish(response: httpx.Response) -> None:
    size = 0
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(REST_SECONDS):
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > REST_BYTES:
                    break
    await response.aclose()


def printable(text: str) -> str:
    """Text as a header field's value: what is no printable ASCII character, and the percent sign, as %XX of UTF-8."""
    return quote(text, safe=_PLAIN)


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After field asks for, a number or a date; 0 where it says nothing that can be read."""
    if value is None:
        return 0.0
    if value.isascii() and value.isdigit():
        # A number too long to be a time is as long as can be.
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
