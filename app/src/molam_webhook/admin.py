"""The endpoints for those who run a process, on a unix socket of its own that no proxy leads to.

/health (with the time, release, uptime and, of the receiver, the clock's state), /livez, /readyz and /metrics, in the
process's own event loop: a loop that is stuck does not answer.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import prometheus_client
import uvicorn

from molam_webhook import __version__, logs
from molam_webhook.clock import Clock
from molam_webhook.health import HEALTHY, Health
from molam_webhook.logs import logger

SOCKET_MODE = 0o660
BACKLOG = 64

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Refresh = Callable[[], Awaitable[object]]

_JSON = b"application/json"
_STARTED = time.monotonic()


class Admin:
    """The application. `refresh` brings the metrics up to date before they are read; it does not raise. `clock` is that
    of a process whose answers depend on it.
    """

    def __init__(self, health: Health, refresh: Refresh | None = None, clock: Clock | None = None) -> None:
        self._health = health
        self._refresh = refresh
        self._clock = clock

    async def __call__(self, scope: Message, _receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        status, content_type, content = await self._answer(scope["method"], scope["path"])
        headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    async def _answer(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        if method not in ("GET", "HEAD"):
            return 405, _JSON, orjson.dumps({"error": "method_not_allowed"})
        match path:
            case "/health":
                report = await self._health.report()
                uptime = round(time.monotonic() - _STARTED)
                timestamp = datetime.now(UTC).isoformat(timespec="milliseconds")
                body = report | {"timestamp": timestamp, "release": __version__, "uptime_seconds": uptime}
                if self._clock is not None:
                    body["clock"] = self._clock.state()
                return 200 if report["status"] == HEALTHY else 503, _JSON, orjson.dumps(body)
            case "/livez":
                return 200, _JSON, orjson.dumps({"status": "alive"})
            case "/readyz":
                fault = await self._health.fault()
                ready = {"status": "ready"} if fault is None else {"status": "not ready", "reason": fault}
                return 200 if fault is None else 503, _JSON, orjson.dumps(ready)
            case "/metrics":
                if self._refresh is not None:
                    await self._refresh()
                await self._health.cache()
                text = prometheus_client.generate_latest(prometheus_client.REGISTRY)
                return 200, prometheus_client.CONTENT_TYPE_LATEST.encode(), text
        return 404, _JSON, orjson.dumps({"error": "not_found"})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the process handles its own."""
        yield


@asynccontextmanager
async def serving(
    path: Path | None, health: Health, refresh: Refresh | None = None, clock: Clock | None = None
) -> AsyncIterator[None]:
    """Serve the endpoints on `path` for as long as the context lasts; nothing where it is None.

    A socket that cannot be opened is logged as an error and no more: payments are worth more than metrics.
    """
    listener = _listen(path) if path is not None else None
    if path is None or listener is None:
        yield
        return
    config = uvicorn.Config(
        Admin(health, refresh, clock),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    inode = path.stat().st_ino
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        # A fault of its own is logged by asyncio, and keeps nobody from ending in good order.
        await asyncio.wait([task])
        _remove(path, inode)


def _listen(path: Path) -> socket.socket | None:
    listener = socket.socket(socket.AF_UNIX)
    new = path.with_name(f".{path.name}.new")
    try:
        # Nobody can connect before listen(), so nobody does before the mode is right. A socket that a killed
        # process left behind is replaced.
        new.unlink(missing_ok=True)
        listener.bind(str(new))
        new.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
        new.rename(path)
    except OSError as error:
        listener.close()
        logger.error("admin_socket_failed", path=str(path), **logs.describe(error))
        return None
    return listener


def _remove(path: Path, inode: int) -> None:
    # After a restart the path may be the next process's already.
    with contextlib.suppress(OSError):
        if path.stat().st_ino == inode:
            path.unlink()
