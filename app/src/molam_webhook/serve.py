"""Serving the application with granian."""

import socket
import sys
import time
from functools import partial
from pathlib import Path
from threading import Thread

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels

from molam_webhook import logs
from molam_webhook.clock import Clock
from molam_webhook.config import ReceiverSettings
from molam_webhook.http import Receiver
from molam_webhook.notify import notify

BACKLOG = 2048
STOP_SECONDS = 10
SOCKET_MODE = 0o660
PROBE_SECONDS = 0.01


def application() -> Receiver:
    """ASGI application factory, for any ASGI server. Raises ConfigError."""
    settings = ReceiverSettings.load()
    logs.configure(settings.log_level)
    return Receiver(settings, Clock())


def serve(settings: ReceiverSettings, *, uds: Path | None, host: str, port: int) -> None:
    """Serve on a unix socket, or on `host` and `port`, until told to stop (SIGTERM, SIGINT)."""
    if uds is not None:
        remove_stale_socket(uds)
    address = str(uds) if uds is not None else (host, port)
    Granian(
        # A name for messages; the application itself comes from the loader below.
        "molam_webhook.http:Receiver",
        uds=uds,
        uds_permissions=SOCKET_MODE if uds is not None else None,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=1,
        # Most of a request's time is Python; uvloop makes the event loop's share of it, and asyncpg's, much
        # smaller.
        loop=Loops.uvloop,
        backlog=BACKLOG,
        # More than the queue holds, so that an overload is answered 503 rather than left in the backlog.
        backpressure=2 * settings.molam_webhook_queue_max,
        workers_kill_timeout=STOP_SECONDS,
        log_level=LogLevels.warning,
        log_dictconfig=logs.standard_library(settings.log_level),
    ).serve(target_loader=partial(_load, settings, address), wrap_loader=False)


def _load(settings: ReceiverSettings, address: str | tuple[str, int]) -> Receiver:
    """Make the application, in the server's worker process."""
    logs.configure(settings.log_level)
    Thread(target=_announce, args=(address,), daemon=True).start()
    return Receiver(settings, Clock())


def _announce(address: str | tuple[str, int]) -> None:
    """Tell the service manager that we serve, once that is true.

    The server listens only after the application's start, and does not say when it does.
    """
    while not _listens(address):
        time.sleep(PROBE_SECONDS)
    notify("READY=1")


def _listens(address: str | tuple[str, int]) -> bool:
    try:
        if isinstance(address, tuple):
            socket.create_connection(address).close()
        else:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(address)
    except OSError:
        return False
    return True


def remove_stale_socket(path: Path) -> None:
    """Remove a socket file that a killed process left behind.

    Exits with a sentence if a process still answers on it.
    """
    if path.is_socket():
        if _listens(str(path)):
            sys.exit(f"Another process is serving on {path}.")
        path.unlink()
