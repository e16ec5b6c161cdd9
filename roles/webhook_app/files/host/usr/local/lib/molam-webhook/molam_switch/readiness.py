"""Whether a slot's processes are ready, as they say themselves on their sockets for administration."""

from __future__ import annotations

import http.client
import socket
import time
from pathlib import Path

from . import slots
from .system import SwitchError

# A receiver that has just started may still be connecting to the database.
SECONDS = 15
INTERVAL_SECONDS = 0.1


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def wait(slot: str) -> None:
    """Wait until receiver and worker of a slot are ready; raise SwitchError with what they say when they are not."""
    until = time.monotonic() + SECONDS
    for name in ("receiver", "worker"):
        while (fault := _fault(slots.ADMIN / f"{name}-{slot}.sock")) is not None:
            if time.monotonic() > until:
                raise SwitchError(f"the {name} of slot {slot} is not ready after {SECONDS} s: {fault}")
            time.sleep(INTERVAL_SECONDS)


def _fault(path: Path) -> str | None:
    connection = _Connection(path)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"{path}: {error}"
    finally:
        connection.close()
    return None if answer.status == http.HTTPStatus.OK else text
