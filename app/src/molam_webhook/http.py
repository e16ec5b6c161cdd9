"""The HTTP endpoints, as an ASGI application: the webhook and its health (contract, "What is answered")."""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from molam_webhook import admin, logs, metrics, orders, sentry, signature
from molam_webhook import event as events
from molam_webhook.batcher import Batcher
from molam_webhook.clock import Clock
from molam_webhook.config import ReceiverSettings
from molam_webhook.database import Database
from molam_webhook.failures import Failures, Standing, caller_at
from molam_webhook.health import HEALTHY, Health
from molam_webhook.inbox import INBOX, SELFTEST, Delivery, Inbox
from molam_webhook.keyring import SELFTEST_KID
from molam_webhook.logs import logger
from molam_webhook.notify import notify
from molam_webhook.outcomes import STATUS, UNVERIFIED, Outcome

# Below the 8 s that the whole way may take, the proxy's retry included, and the sender's 10 s.
REQUEST_SECONDS = 5.0
RETRY_AFTER_SECONDS = 5

HEALTH_PATH = "/health"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
Response = tuple[Message, Message]
# Who connected to us, and whom the proxy names. A unix socket tells nobody; what came without the proxy, so from
# the host itself, names nobody.
Source = tuple[str | None, str | None]

_JSON = re.compile(rb"application/json[ \t]*(;.*)?", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9-]{8,64}")


class Answer(NamedTuple):
    """What became of one request to the webhook, with what is known of it: the kid it names, the verified delivery and
    what the log says of its payment, or the caller whose failures are beyond the limit. The log has one of those in a
    minute.
    """

    outcome: Outcome
    kid: str | None = None
    delivery: Delivery | None = None
    payment_id: logs.Plain = None
    amount: logs.Plain = None
    caller: str | None = None
    logged: bool = True

    def label(self) -> str:
        """The event's type as the metrics know it."""
        if self.delivery is None:
            return metrics.UNVERIFIED
        return metrics.SELFTEST if self.kid == SELFTEST_KID else metrics.event_type(self.delivery.event_type)


def respond(status: int, body: dict[str, str], extra: Headers = ()) -> Response:
    """Make the two ASGI messages of a small JSON answer."""
    content = orjson.dumps(body)
    # Our own Server field keeps the HTTP library's name out of the answer.
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"server", b"molam-webhook"),
        *extra,
    ]
    return (
        {"type": "http.response.start", "status": int(status), "headers": headers},
        {"type": "http.response.body", "body": content},
    )


def _refusal(outcome: Outcome, extra: Headers = ()) -> Response:
    if STATUS[outcome] in (429, 503):
        extra = [(b"retry-after", b"%d" % RETRY_AFTER_SECONDS), *extra]
    return respond(STATUS[outcome], {"error": outcome}, extra)


_REFUSALS = {outcome: _refusal(outcome) for outcome in Outcome if STATUS[outcome] >= 400}
_REFUSALS[Outcome.METHOD_NOT_ALLOWED] = _refusal(Outcome.METHOD_NOT_ALLOWED, [(b"allow", b"POST")])
_HEALTH_METHODS = _refusal(Outcome.METHOD_NOT_ALLOWED, [(b"allow", b"GET, HEAD")])


class Receiver:
    """The application. `clock` is injectable, so that tests can say what time it is."""

    def __init__(self, settings: ReceiverSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._database = Database(settings)
        cache = settings.open_cache()
        self._health = Health(cache, self._database.healthy, self._database.acquire)
        self._failures = Failures(settings.molam_failure_limit, cache)
        queue_max = settings.molam_webhook_queue_max
        self._inbox = Batcher(Inbox(self._database, INBOX).store, queue_max)
        self._selftest = Batcher(Inbox(self._database, SELFTEST).store, queue_max)
        keyring = settings.keyring
        keys = {kid: key for kid, key in keyring.keys.items() if kid != SELFTEST_KID.encode()}
        self._senders_keyring = replace(keyring, keys=keys)
        self._may_selftest = lru_cache(maxsize=1024)(self._is_near)
        metrics.QUEUE_DEPTH.set_function(lambda: self._inbox.waiting)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: the life of the process, or one HTTP request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            response = await self._respond(scope, receive)
            if response is not None:
                start, body = response
                await send(start)
                await send(body)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        sentry.start(self._settings)
        self._database.start()
        async with admin.serving(self._settings.molam_admin_uds, self._health, clock=self._clock):
            await send({"type": "lifespan.startup.complete"})
            await receive()
            notify("STOPPING=1")
            self._health.drain()
            await self._inbox.finish()
            await self._selftest.finish()
            await self._database.stop()
        sentry.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Message, receive: Receive) -> Response | None:
        try:
            if scope["path"] == self._settings.molam_webhook_path:
                return await self._respond_webhook(scope, receive)
            if scope["path"] == HEALTH_PATH:
                return await self._respond_health(scope["method"])
            return _REFUSALS[Outcome.NOT_FOUND]
        except _Disconnected:
            return None
        except Exception as error:
            # A fault of ours must not look like the sender's: a 4xx could lose the event for good.
            logger.error("request_failed", **logs.describe(error))
            return _REFUSALS[Outcome.UNAVAILABLE]

    async def _respond_health(self, method: str) -> Response:
        if method not in ("GET", "HEAD"):
            return _HEALTH_METHODS
        report = await self._health.report()
        start, body = respond(200 if report["status"] == HEALTHY else 503, report)
        return start, body if method == "GET" else {**body, "body": b""}

    async def _respond_webhook(self, scope: Message, receive: Receive) -> Response:
        started = time.perf_counter()
        headers = _collect(scope["headers"])
        answer = Answer(Outcome.UNAVAILABLE)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                body = self._check_head(scope["method"], headers) or await self._read_body(receive)
                source = _source(scope, headers)
                answer = Answer(body) if isinstance(body, Outcome) else self._check_delivery(source, headers, body)
                if answer.delivery is not None:
                    batcher = self._selftest if answer.kid == SELFTEST_KID else self._inbox
                    answer = answer._replace(outcome=await batcher.submit(answer.delivery, len(body)))
                elif answer.outcome in UNVERIFIED:
                    answer = self._limit(answer, source)
        except TimeoutError:
            # Perhaps it commits yet: the sender tries again and is told that it is a duplicate.
            answer = answer._replace(outcome=Outcome.UNAVAILABLE)
        metrics.count(answer.label(), answer.outcome, time.perf_counter() - started)
        if answer.logged:
            _log(answer, headers)
        if answer.delivery is None:
            return _REFUSALS[answer.outcome]
        event_id, kid = answer.delivery.event_id, answer.delivery.kid
        # For the proxy's log: whatever an id holds, its header is plain.
        extra = [(b"x-molam-event-id", quote(event_id, safe=":").encode()), (b"x-molam-kid", kid.encode())]
        if answer.outcome in _REFUSALS:
            return _refusal(answer.outcome, extra)
        return respond(STATUS[answer.outcome], {"status": answer.outcome, "id": event_id}, extra)

    def _check_head(self, method: str, headers: dict[bytes, bytes]) -> Outcome | None:
        """Check what can be checked before the body is read, in the contract's order; None when all is
        well.
        """
        if method != "POST":
            return Outcome.METHOD_NOT_ALLOWED
        if b"content-encoding" in headers:
            return Outcome.UNSUPPORTED_ENCODING
        if not _JSON.fullmatch(headers.get(b"content-type", b"")):
            return Outcome.UNSUPPORTED_MEDIA_TYPE
        length = headers.get(b"content-length", b"0")
        # A number too long to be a size is not worth converting.
        if not length.isdigit() or len(length) > 18 or int(length) > self._settings.molam_webhook_max_body_bytes:
            return Outcome.TOO_LARGE
        return None

    async def _read_body(self, receive: Receive) -> bytes | Outcome:
        """Read the body, stopping at the limit: a chunked body's length is known only by reading it."""
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Disconnected
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._settings.molam_webhook_max_body_bytes:
                return Outcome.TOO_LARGE
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _check_delivery(self, source: Source, headers: dict[bytes, bytes], body: bytes) -> Answer:
        """Verify the raw body, then read the event in it."""
        header = headers.get(b"molam-signature", b"")
        now_ms = self._clock.now_ms()
        keyring = self._settings.keyring if self._may_selftest(source) else self._senders_keyring
        outcome, kid = signature.verify(header, body, now_ms, keyring)
        if outcome is Outcome.TIMESTAMP_OUT_OF_WINDOW and not self._clock.synchronised():
            outcome, kid = signature.verify(header, body, now_ms, keyring, clock_trusted=False)
        if outcome is not Outcome.ACCEPTED or kid is None:
            return Answer(outcome, kid)
        event = events.parse(body)
        if isinstance(event, Outcome):
            return Answer(event, kid)
        delivery = Delivery.of(event, body, header.decode(), kid)
        payment, amount = orders.payment_intent_id(event), (event.data or {}).get("amount")
        return Answer(outcome, kid, delivery, logs.plain(payment), logs.plain(amount))

    def _limit(self, answer: Answer, source: Source) -> Answer:
        """Count a failed verification against its caller, and refuse it as one too many beyond the limit.

        The host itself has no limit. An unknown key stays one: it may be our fault.
        """
        connected, named = source
        address = connected if named is None else named
        if address is None:
            return answer
        caller = caller_at(address)
        standing = self._failures.count(caller, self._clock.now_ms())
        if standing is Standing.WITHIN:
            return answer
        outcome = Outcome.UNKNOWN_KEY if answer.outcome is Outcome.UNKNOWN_KEY else Outcome.RATE_LIMITED
        return answer._replace(outcome=outcome, caller=caller, logged=standing is Standing.BEYOND_FIRST)

    def _is_near(self, source: Source) -> bool:
        """Whether a self-test may come from there: from the host itself, or from its networks."""
        try:
            addresses = [ip_address(address) for address in source if address is not None]
        except ValueError:
            return False
        networks = self._settings.molam_selftest_networks
        return all(any(address in network for network in networks) for address in addresses)


class _Disconnected(Exception):
    """The client went away before its request was whole."""


def _source(scope: Message, headers: dict[bytes, bytes]) -> Source:
    client, named = scope.get("client"), headers.get(b"x-real-ip")
    return client[0] or None if client else None, named.decode("latin-1") if named is not None else None


def _collect(headers: Headers) -> dict[bytes, bytes]:
    """Header fields by lower-case name; a repeated field is its values joined by commas (RFC 9110, 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        fields[name] = fields[name] + b"," + value if name in fields else value
    return fields


def _log(answer: Answer, headers: dict[bytes, bytes]) -> None:
    # The proxy's request id joins its log and ours; without one that is fit to print we make our own.
    sent = headers.get(b"x-request-id", b"")
    fields: dict[str, logs.Plain] = {
        "outcome": answer.outcome,
        "request_id": sent.decode() if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16),
        "kid": answer.kid,
    }
    if answer.delivery is not None:
        fields["event_id"] = answer.delivery.event_id
        fields["event_type"] = answer.delivery.event_type
        fields["payment_id"] = answer.payment_id
        fields["amount"] = answer.amount
    if answer.caller is not None:
        fields["caller"] = answer.caller
    status = STATUS[answer.outcome]
    if status < 400:
        logs.write_soon("webhook", fields)
    else:
        log = logger.warning if status < 500 else logger.error
        log("webhook", **fields)
