"""A stand-in, on the host itself, for whom the host posts to: a chat, or the merchant's own server."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from testinfra.host import Host

# Answers every request, and keeps what was posted: a line of JSON for each.
PROGRAM = """
import http.server, json, pathlib, sys
class Recorder(http.server.BaseHTTPRequestHandler):
    log_message = lambda *_: None
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length: return
        line = json.dumps([dict(self.headers.items()), body.decode()]) + "\\n"
        with pathlib.Path(sys.argv[2]).open("a") as file: file.write(line)
        self.send_response(200); self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Recorder).serve_forever()
"""


class Posted(NamedTuple):
    """One request: its header fields, and its body."""

    headers: dict[str, str]
    body: str


class Recorder:
    """What was posted to a port of the host."""

    def __init__(self, host: Host, port: int) -> None:
        """Know where it is kept."""
        self._host = host
        self._unit = f"recorder-{port}"
        self._port = port
        self._file = f"/run/{self._unit}"

    def start(self) -> None:
        """Listen, with nothing kept yet; return not before it does."""
        program = f"python3 -c {shlex.quote(PROGRAM)} {self._port} {self._file}"
        self._host.check_output(f"rm -f {self._file} && systemd-run --quiet --collect --unit={self._unit} {program}")
        listens = f"ss -Hltn sport = :{self._port} | grep -q ."
        self._host.check_output(f"timeout 10 sh -c 'until {listens}; do sleep 0.1; done'")

    def stop(self) -> None:
        """Listen no more."""
        self._host.run(f"systemctl stop {self._unit}")

    def posted(self) -> list[Posted]:
        """Return what came so far."""
        lines = self._host.check_output(f"touch {self._file} && cat {self._file}").splitlines()
        return [Posted(*json.loads(line)) for line in lines]


@contextmanager
def recorder(host: Host, port: int) -> Iterator[Recorder]:
    """Let a stand-in listen at a port of the host's loopback."""
    stand_in = Recorder(host, port)
    stand_in.start()
    try:
        yield stand_in
    finally:
        stand_in.stop()
