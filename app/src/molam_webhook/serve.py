"""Serving the application: uvicorn on uvloop, with httptools to parse requests, in one process and one thread.

A server with threads of its own (granian) was tried: handing each request from thread to thread cost more than
everything else that is done with it.
"""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from molam_webhook import logs, notify
from molam_webhook.clock import Clock
from molam_webhook.config import ReceiverSettings
from molam_webhook.http import Receiver

BACKLOG = 2048
STOP_SECONDS = 10
SOCKET_MODE = 0o660

_NO_HTTP = b'{"error":"bad_request"}'


def application() -> Receiver:
    """ASGI application factory, for any ASGI server. Raises ConfigError."""
    settings = ReceiverSettings.load()
    logs.configure(settings.log_level)
    return Receiver(settings, Clock())


def serve(settings: ReceiverSettings, *, uds: Path | None, host: str, port: int) -> None:
    """Serve on a unix socket, or on `host` and `port`, until told to stop (SIGTERM, SIGINT)."""
    logs.configure(settings.log_level)
    listener = _listen(host, port) if uds is None else _listen_on_socket(uds)
    config = uvicorn.Config(
        Receiver(settings, Clock()),
        loop="uvloop",
        http=_Protocol,
        ws="none",
        interface="asgi3",
        lifespan="on",
        backlog=BACKLOG,
        # Whom the proxy names is our own affair (the self-test's networks).
        proxy_headers=False,
        # The application says both where it matters; a request is logged by the proxy and by us.
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    try:
        _Server(config).run(sockets=[listener])
    finally:
        if uds is not None:
            uds.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the service manager that we serve, once that is true."""
        await super().startup(sockets)
        # What is there now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        notify.ready()

    async def on_tick(self, counter: int) -> bool:
        """Say that we are well, as long as the event loop turns; called ten times a second."""
        if counter % (10 * notify.BEAT_SECONDS) == 0:
            notify.beat()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop in good order when told to. The original kills itself with the same signal after that."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a connection."""
        super().connection_made(_Gathering(cast(asyncio.Transport, transport)))

    def send_400_response(self, _msg: str) -> None:
        """Answer what is no HTTP, in the form of every other refusal, and close."""
        head = f"HTTP/1.1 400 \r\ncontent-type: application/json\r\ncontent-length: {len(_NO_HTTP)}\r\n"
        self.transport.write(head.encode() + b"server: molam-webhook\r\nconnection: close\r\n\r\n" + _NO_HTTP)
        self.transport.close()


class _Gathering(asyncio.Transport):
    """Writes what is written within one turn of the event loop with one system call.

    The server writes an answer's head and body apart, which costs the proxy a second look as well.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[Any] = []

    def write(self, data: Any) -> None:  # noqa: ANN401  whatever the transport takes
        """Write soon."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def close(self) -> None:
        """Close once everything is written."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  the original's signature
        """What the transport tells of itself."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Let what comes wait."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take what comes."""
        self._transport.resume_reading()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        sys.exit(f"Can't serve on {host}, port {port}: {error.strerror}.")


def _listen_on_socket(path: Path) -> socket.socket:
    """Listen on a unix socket, replacing one that a killed process left behind.

    Exits with a sentence if a process still answers on it.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(path)) == 0:
                    sys.exit(f"Another process is serving on {path}.")
            path.unlink()
        # Nobody can connect before listen(), so nobody does before the mode is right.
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        sys.exit(f"Can't serve on {path}: {error.strerror or error}.")
    return listener
