"""`selftest`: what it proves of a receiver, straight over its socket and by a front door with TLS."""

import json
import os
import shutil
import socket
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from molam_webhook.cli import main
from support import PATH, SECRET, SOURCE, Service, count, environment, run_cli, wait_until

Serve = Callable[..., Service]

OWN = {"SELFTEST_SECRET": "of-the-host-itself-only"}
# Debian keeps it where only root looks.
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
CONFIGURATION = string.Template("""
$user
worker_processes 1;
daemon off;
pid nginx.pid;
error_log error.log;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path tmp;
    proxy_temp_path tmp;
    fastcgi_temp_path tmp;
    uwsgi_temp_path tmp;
    scgi_temp_path tmp;
    server {
        listen 127.0.0.1:$port ssl;
        ssl_certificate certificate.pem;
        ssl_certificate_key key.pem;
        location / {
            proxy_pass http://unix:$socket;
            proxy_set_header X-Real-IP $$remote_addr;
        }
    }
}
""")


class Front:
    """nginx before a receiver, for the name pay.test, with a certificate that is its own CA."""

    def __init__(self, home: Path, receiver: Path) -> None:
        self.certificate = home / "certificate.pem"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj /CN=x "
        command += "-addext subjectAltName=DNS:pay.test -keyout key.pem -out certificate.pem"
        subprocess.run(command.split(), cwd=home, check=True, capture_output=True)
        # As root it would go to a user who may not open the receiver's socket.
        user = "user root;" if os.getuid() == 0 else ""
        configuration = CONFIGURATION.substitute(user=user, port=self.port, socket=receiver)
        (home / "nginx.conf").write_text(configuration)
        self._process = subprocess.Popen([NGINX or "", "-p", home, "-c", "nginx.conf", "-e", "error.log"])
        wait_until(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def options(self, name: str = "pay.test") -> list[str]:
        return ["--url", f"https://{name}{PATH}", "--connect-to", f"127.0.0.1:{self.port}"]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def front(directory: Path) -> Iterator[Callable[[Service], Front]]:
    """Puts nginx before a receiver."""
    started: list[Front] = []

    def start(service: Service) -> Front:
        (home := directory / "nginx").mkdir()
        started.append(Front(home, service.socket))
        return started[-1]

    yield start
    for one in started:
        one.close()


def ask(url: str, *options: str, **settings: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and what was said."""
    done = run_cli("selftest", *options, "--json", env=environment(url, **OWN | settings))
    return done.returncode, json.loads(done.stdout)


def wrong(said: dict[str, Any]) -> dict[str, str]:
    """What was not proved, with the answers."""
    return {row["proof"]: row["answer"] for row in said["proofs"] if not row["passed"]}


@pytest.mark.database
def test_each_key_is_taken_for_what_it_is(serve: Serve, url: str) -> None:
    keys = {
        "v1": {"secret": SECRET, "state": "revoked"},
        "v2": {"secret": SECRET[::-1], "state": "active"},
        "v3": {"secret": f"{SECRET}3", "state": "active"},
    }
    service = serve(without="MOLAM_WEBHOOK_SECRET", KEYRING=json.dumps(keys), **OWN)

    def ask_with(**others: dict[str, str]) -> tuple[int, dict[str, Any]]:
        env = environment(url, KEYRING=json.dumps(keys | others), **OWN)
        del env["MOLAM_WEBHOOK_SECRET"]
        done = run_cli("selftest", "--uds", str(service.socket), "--json", env=env)
        return done.returncode, json.loads(done.stdout)

    status, said = ask_with()
    assert status == 0, said
    names = [row["proof"] for row in said["proofs"]]
    assert [name for name in names if name.startswith("a signature")] == [
        "a signature of v1 is refused",
        "a signature of v2 holds",
        "a signature of v3 holds",
    ]
    assert said["latency"] is None
    assert count(url, "webhook_deliveries") == 0
    for kid, entry in {"v1": {"state": "active"}, "v2": {"state": "revoked"}, "v3": {"secret": f"{SECRET}4"}}.items():
        status, said = ask_with(**{kid: keys[kid] | entry})
        (name,) = wrong(said)
        assert status == 1
        assert f"signature of {kid} " in name


@pytest.mark.database
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_by_the_front_door(serve: Serve, front: Callable[[Service], Front], url: str) -> None:
    service = serve(**OWN)
    door = front(service)
    options = [*door.options(), "--cacert", str(door.certificate), "--count", "5"]
    status, said = ask(url, *options)
    assert (status, wrong(said)) == (0, {})
    assert [row["proof"] for row in said["proofs"]] == [
        "an event is stored",
        "the same event again is known",
        "a forged event is refused",
        "a signature of v1 holds",
        "5 more are stored",
    ]
    assert 0 < said["latency"]["p50_ms"] <= said["latency"]["p99_ms"] <= said["latency"]["max_ms"]
    assert count(url, "selftest_events") == 6
    assert count(url, "webhook_deliveries") == count(url, "event_ids") == 0

    # The CA from standard input, and a table for people.
    command = [sys.executable, "-m", "molam_webhook", "selftest", *door.options(), "--cacert", "-", "--count", "2"]
    env = environment(url, **OWN) | {"PYTHONPATH": str(SOURCE)}
    text = door.certificate.read_text()
    shown = subprocess.run(command, env=env, input=text, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "2 more are stored" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("2 timed: p50 ")

    # Another name, a CA that nobody here trusts, and another key: nothing is timed then.
    other_name = [*door.options("other.test"), "--cacert", str(door.certificate)]
    for asked, answer in {(*other_name,): "Hostname mismatch", (*door.options(),): "self-signed certificate"}.items():
        status, said = ask(url, *asked, "--count", "5")
        assert (status, said["latency"]) == (1, None)
        assert answer in wrong(said)["an event is stored"]
    status, said = ask(url, *options, SELFTEST_SECRET=SECRET[::-1])
    assert (status, said["latency"]) == (1, None)
    assert "signature_mismatch" in wrong(said)["an event is stored"]
    service.kill()
    status, said = ask(url, *options)
    assert status == 1
    assert len(wrong(said)) == len(said["proofs"]) == 4


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ([], "--uds or --url"),
        (["--uds", "x", "--url", "https://x"], "--uds or --url"),
        (["--url", "x"], "must begin with"),
        (["--url", "https://x", "--connect-to", "x"], "must be HOST:PORT"),
        (["--url", "https://x", "--cacert", "/nonexistent"], "No such file"),
        (["--url", "https://x", "--cacert", "/dev/null"], "no CA certificate"),
        (["--url", "https://x", "--cacert", __file__], "no CA certificate"),
    ],
    ids=str,
)
def test_wrong_usage_is_2(options: list[str], word: str) -> None:
    done = CliRunner().invoke(main, ["selftest", *options])
    assert done.exit_code == 2
    assert word in done.output
