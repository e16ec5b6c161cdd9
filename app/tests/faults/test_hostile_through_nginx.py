"""Whatever strangers send gets one of the contract's answers and leaves nothing: through nginx, to a receiver at work.

What is no HTTP, nginx answers by itself. Between the strangers' requests go the sender's, over the same connections: no
request may become a part of another.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import string
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import orjson
import pytest
from faults.hostile import STATUS, Request, requests, ten_thousand
from hypothesis import given
from support import DEADLINE_SECONDS, PATH, Service, count, event_body, query, signed_headers, wait_until

# Debian keeps it where only root looks.
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

pytestmark = [
    pytest.mark.database,
    pytest.mark.hostile,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]

# As roles/nginx has it, as far as it decides what becomes of a request.
CONFIGURATION = string.Template("""
$user
worker_processes 1;
daemon off;
pid nginx.pid;
error_log error.log;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path tmp;
    proxy_temp_path tmp;
    fastcgi_temp_path tmp;
    uwsgi_temp_path tmp;
    scgi_temp_path tmp;
    client_header_timeout 5s;
    client_body_timeout 5s;
    keepalive_requests 100000;
    map $$status $$retry_after { 429 5; 503 5; default ""; }
    upstream receiver { server unix:$socket max_fails=0; keepalive 64; }
    server {
        listen 127.0.0.1:$port;
        server_tokens off;
        add_header Retry-After $$retry_after always;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $$host;
        proxy_set_header X-Real-IP $$remote_addr;
        proxy_set_header X-Request-Id $$request_id;
        proxy_hide_header Retry-After;
        client_max_body_size 256k;
        client_body_buffer_size 256k;
        default_type application/json;
        error_page 413 @too_large;
        error_page 502 504 =503 @unavailable;
        location / { proxy_pass http://receiver; }
        location @too_large { return 413 '{"error":"too_large"}'; }
        location @unavailable { return 503 '{"error":"unavailable"}'; }
    }
}
""")

# One of the sender's after so many of the strangers'.
STRANGERS = 100

# A stranger who may mean another length than it sent, or ends a line where none ends, has a connection of its own.
UNFRAMED = re.compile(rb"[\r\n\0]")

ANSWERS = STATUS | {"rate_limited": 429, "bad_request": 400}

# nginx's own page for what is no HTTP, without its version.
NO_HTTP = {400, 405, 414, 501, 505}
PAGE = re.compile(rb"<html>.*<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n", re.DOTALL)


class Response(NamedTuple):
    """A response as it came: its status, its header fields (in lower case) and its body."""

    status: int
    headers: dict[str, str]
    body: bytes


def read(stream: BinaryIO) -> Response | None:
    """The next response; None where the connection ends instead."""
    line = stream.readline()
    if not line:
        return None
    headers = {}
    while (field := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = field.partition(": ")
        headers[name.lower()] = value
    return Response(int(line.split()[1]), headers, stream.read(int(headers["content-length"])))


def word(response: Response) -> str:
    """What a response says, and that it says so in the contract's form."""
    status, headers, body = response
    assert headers["server"] == "nginx"
    assert headers.get("retry-after") == ("5" if status in (429, 503) else None)
    if headers["content-type"] == "text/html":
        assert PAGE.fullmatch(body)
        assert status in NO_HTTP
        return "no HTTP"
    content = orjson.loads(body)
    if status == 200:
        assert content.keys() == {"status", "id"}
        return str(content["status"])
    assert content.keys() == {"error"}
    assert status == ANSWERS[content["error"]]
    return str(content["error"])


class Connection:
    """A connection to nginx, opened when it is needed: nginx closes one on which nothing comes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._opened = contextlib.ExitStack()
        self._stream: BinaryIO | None = None

    def ask(self, data: bytes) -> Response:
        """The response to one request."""
        if self._stream is None:
            connection = socket.create_connection(("127.0.0.1", self._port), DEADLINE_SECONDS)
            self._socket = self._opened.enter_context(connection)
            self._stream = self._opened.enter_context(connection.makefile("rb"))
        # Who is refused before everything is sent gets an answer all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)
        response = read(self._stream)
        assert response is not None
        if response.headers["connection"] == "close":
            self.close()
        return response

    def close(self) -> None:
        self._opened.close()
        self._stream = None


def ask_alone(port: int, data: bytes) -> list[Response]:
    """Every response to whatever these bytes are."""
    connection = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
    responses = []
    with connection, connection.makefile("rb") as stream, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)
        while (response := read(stream)) is not None:
            responses.append(response)
    return responses


def written(request: Request) -> tuple[bytes, bool]:
    """A request as bytes, and whether it is sure where it ends."""
    method, path, headers, parts = request
    body = b"".join(parts)
    line = f"{method} {path} HTTP/1.1".encode()
    framed = not UNFRAMED.search(b"".join([line, *(value for _, value in headers)]))
    fields = [(b"Host", b"receiver.test"), *headers]
    if b"content-length" in dict(headers):
        framed = False
    else:
        fields.append((b"Content-Length", b"%d" % len(body)))
    if not framed:
        fields.insert(0, (b"Connection", b"close"))
    return b"\r\n".join([line, *(name + b": " + value for name, value in fields), b"", body]), framed


def delivery(body: bytes, signature: str) -> bytes:
    headers = [(b"Content-Type", b"application/json"), (b"Molam-Signature", signature.encode())]
    return written(("POST", PATH, headers, [body]))[0]


@pytest.fixture
def front(directory: Path) -> Iterator[Callable[[Service], int]]:
    """Puts nginx before a receiver; returns its port."""
    home = directory / "nginx"
    home.mkdir()
    started: list[subprocess.Popen[bytes]] = []

    def start(service: Service) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        # As root it would go to a user who may not open the receiver's socket.
        user = "user root;" if os.getuid() == 0 else ""
        text = CONFIGURATION.substitute(user=user, socket=service.socket, port=port)
        (home / "nginx.conf").write_text(text)
        command = [str(NGINX), "-p", str(home), "-c", "nginx.conf", "-e", "error.log"]
        started.append(subprocess.Popen(command))

        def listens() -> bool:
            assert started[-1].poll() is None, (home / "error.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens)
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


def test_strangers_change_nothing_and_the_sender_is_served_between_them(
    serve: Callable[..., Service], front: Callable[[Service], int], directory: Path, url: str
) -> None:
    # They all come from one address, and each is to be told what is wrong with it.
    service = serve(MOLAM_FAILURE_LIMIT="1000000")
    port = front(service)
    connection = Connection(port)
    answers: Counter[str] = Counter()
    sent: dict[str, bytes] = {}
    asked = 0

    @ten_thousand
    @given(requests())
    def check(request: Request) -> None:
        nonlocal asked
        data, framed = written(request)
        responses = [connection.ask(data)] if framed else ask_alone(port, data)
        said = [word(response) for response in responses]
        assert not {"accepted", "duplicate"} & set(said)
        answers.update(said)
        asked += 1
        if asked % STRANGERS == 0:
            event_id = f"evt_sender_{asked}"
            sent[event_id] = event_body(event_id)
            answer = connection.ask(delivery(sent[event_id], signed_headers(sent[event_id])["molam-signature"]))
            assert (answer.status, word(answer)) == (200, "accepted")

    check()
    connection.close()
    assert answers.keys() == STATUS.keys() | {"bad_request", "no HTTP"}
    assert len(sent) == asked // STRANGERS
    assert {row[0]: row[1] for row in query(url, "SELECT event_id, payload FROM webhook_deliveries")} == sent
    assert count(url, "event_ids") == len(sent)
    assert count(url, "event_conflicts") == count(url, "selftest_events") == 0
    assert {line["event"] for line in service.lines()} == {"webhook", "Invalid HTTP request received."}
    assert "upstream" not in (directory / "nginx" / "error.log").read_text()
    with service.client() as client:
        assert client.get("/health").status_code == 200


def test_who_forges_too_often_is_told_to_wait_and_the_sender_is_not(
    serve: Callable[..., Service], front: Callable[[Service], int]
) -> None:
    connection = Connection(front(serve()))
    # The longest id that there can be, in the longest header.
    body = event_body("\U0001f4b3" * 255)
    good, bad = signed_headers(body)["molam-signature"], signed_headers(body + b" ")["molam-signature"]
    said = Counter(word(connection.ask(delivery(body, bad))) for _ in range(50))
    assert said.keys() == {"signature_mismatch", "rate_limited"}
    answer = connection.ask(delivery(body, good))
    assert (answer.status, word(answer)) == (200, "accepted")
    assert answer.headers["x-molam-event-id"] == "%F0%9F%92%B3" * 255
    connection.close()
