"""A real HTTP server of a test's own, in the place of somebody else's."""

from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple


class Request(NamedTuple):
    """A request as it came, the names of its header fields in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """An answer; header fields that are given replace the server's own."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b"ok"


class LocalServer:
    """Answers as `answer` says, and remembers what it was sent."""

    def __init__(self, answer: Callable[[Request], Answer], port: int = 0) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        local = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                local.requests.append(request)
                status, fields, content = local.answer(request)
                self.send_response(status)
                for name, value in ({"content-length": str(len(content))} | dict(fields)).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that was killed, or has lost patience, does not read its answer."""

        self._server = Server(("127.0.0.1", port), Handler)
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.port = self._server.server_port

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
