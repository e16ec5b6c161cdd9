"""The merchant's own server, in a process of its own: `shop.py PORT FILE` notes what comes in FILE, and answers 200."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from support import DEADLINE_SECONDS, wait_until


class Delivery(NamedTuple):
    """What came: the Idempotency-Key, and the body."""

    key: str
    body: bytes


class Shop:
    """That process, as a test has it in hand. What it noted outlives it."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._notes = directory / "deliveries"
        self._notes.touch()
        self.url = f"http://127.0.0.1:{self._port}/molam"
        self.start()

    def start(self) -> None:
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen([sys.executable, __file__, str(self._port), self._notes], env=environment)
        wait_until(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def kill(self) -> None:
        """Let it end at once; its port then refuses connections."""
        self._process.kill()
        self._process.wait()

    def suspend(self) -> None:
        """Let it stand still: the port takes connections, and nobody answers."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def wait_for(self, number: int, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until it has noted so many more deliveries."""
        enough = self.count() + number
        wait_until(lambda: self.count() >= enough, seconds)

    def count(self) -> int:
        """How many deliveries it has noted."""
        return self._notes.read_bytes().count(b"\n")

    def deliveries(self) -> list[Delivery]:
        return [Delivery(key, body.encode()) for key, body in map(json.loads, self._notes.read_text().splitlines())]


def serve(port: int, notes: Path) -> None:
    """Be that process."""
    file = os.open(notes, os.O_WRONLY | os.O_APPEND)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:
                # The worker was killed while it sent it: what is half there did not arrive.
                self.close_connection = True
                return
            note = json.dumps([self.headers["idempotency-key"], body.decode()])
            os.write(file, note.encode() + b"\n")
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A worker that was killed does not read its answer."""

    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
