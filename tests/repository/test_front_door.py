"""What the control machine sees of a front door, against real ones."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from tests.pairs import Pair, make

PLUGIN = Path(__file__).resolve().parents[2] / "playbooks" / "action_plugins" / "front_door.py"
NAME = "webhooks.shop.test"

Serve = Callable[..., int]


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    """Return the action plugin as a module."""
    loader = SourceFileLoader("front_door", str(PLUGIN))
    spec = spec_from_loader("front_door", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module
    loader.exec_module(module)
    return module


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Answer every request so, over TLS where there is a pair; the port."""
    started: list[tuple[HTTPServer, threading.Thread]] = []

    def start(status: int, location: str = "", pair: Pair | None = None) -> int:
        class Door(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Door)
        if pair:
            (tmp_path / "pair.pem").write_text(pair.key_pem() + pair.pem)
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(tmp_path / "pair.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server.server_port

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


def seen(plugin: ModuleType, tmp_path: Path, roots: Pair | None, http: int, https: int) -> dict[str, tuple[bool, str]]:
    """Look, with these roots or the system's; what holds, and what was seen, by what should hold."""
    (tmp_path / "roots.pem").write_text(roots.pem if roots else "")
    proofs = plugin.look("127.0.0.1", NAME, str(tmp_path / "roots.pem") if roots else "", (http, https))
    return {proof.proof: (proof.passed, proof.answer) for proof in proofs}


def test_one_as_it_should_be(plugin: ModuleType, tmp_path: Path, serve: Serve) -> None:
    pair = make(NAME, days=(-1, 20))
    http, https = serve(301, f"https://{NAME}/health"), serve(200, pair=pair)
    assert seen(plugin, tmp_path, pair, http, https) == {
        "its certificate is the name's": (True, f"19 days left, signed by CN={NAME}"),
        "it answers over TLS": (True, "TLSv1.3, TLS_AES_256_GCM_SHA384"),
        "/health says that it is healthy": (True, "200 {}"),
        "HTTP leads to HTTPS": (True, f"301 https://{NAME}/health"),
    }


@pytest.mark.parametrize(
    ("pair", "trusted", "words"),
    [
        (make("another.test"), True, "Hostname mismatch"),
        (make(NAME, days=(-9, -1)), True, "certificate has expired; -2 days left"),
        (make(NAME), False, "self-signed certificate"),
    ],
    ids=["another name", "run out", "nobody's"],
)
def test_a_certificate_that_is_not_accepted(
    plugin: ModuleType, tmp_path: Path, serve: Serve, pair: Pair, trusted: bool, words: str
) -> None:
    found = seen(plugin, tmp_path, pair if trusted else None, serve(200), serve(503, pair=pair))
    passed, answer = found["its certificate is the name's"]
    assert not passed
    assert words in answer
    assert found["it answers over TLS"][0]
    assert found["/health says that it is healthy"] == (False, "503 {}")
    assert found["HTTP leads to HTTPS"] == (False, "200 ")


def test_a_redirect_elsewhere(plugin: ModuleType, tmp_path: Path, serve: Serve) -> None:
    for location in (f"http://{NAME}/health", "https://another.test/health", f"https://{NAME}.another.test/"):
        found = seen(plugin, tmp_path, None, serve(301, location), 1)
        assert found["HTTP leads to HTTPS"] == (False, f"301 {location}")


def test_nobody_there(plugin: ModuleType, tmp_path: Path) -> None:
    found = seen(plugin, tmp_path, None, 1, 1)
    assert found == {
        "it answers over TLS": (False, "127.0.0.1 port 1: [Errno 111] Connection refused"),
        "HTTP leads to HTTPS": (False, "127.0.0.1 port 1: [Errno 111] Connection refused"),
    }


def test_no_tls_there(plugin: ModuleType, tmp_path: Path, serve: Serve) -> None:
    port = serve(200)
    passed, answer = seen(plugin, tmp_path, None, port, port)["it answers over TLS"]
    assert not passed
    assert "port" in answer
