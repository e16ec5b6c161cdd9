"""What the tests run for real: a PostgreSQL server, the service's processes, and a sender."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
from molam_webhook import signature
from molam_webhook.keyring import Key, Keyring

SOURCE = Path(__file__).parents[1] / "src"
SECRET = "whsec_9f3kq7Vn2Zr8Lw1T"  # noqa: S105  a test's own
KEYRING = Keyring({b"v1": Key(SECRET.encode(), active=True)}, b"v1")
PATH = "/molam/webhook"
DATABASE = "webhook"
DEADLINE_SECONDS = 20.0
STOP_SECONDS = 3.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def event_body(event_id: str, event_type: str = "payment.succeeded", **data: object) -> bytes:
    payment = {"id": f"pi_{event_id}", "amount": 5000, "currency": "XOF", "metadata": {"order_id": "ord_1"}}
    created = data.pop("created", 1_763_800_000)
    return orjson.dumps({"id": event_id, "type": event_type, "created": created, "data": payment | data})


def signed_headers(body: bytes, kid: str | None = "v1", secret: str = SECRET) -> dict[str, str]:
    header = signature.sign(body, secret.encode(), now_ms(), kid)
    return {"content-type": "application/json", "molam-signature": header}


def wait_until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for something that is on its way; the limit only ends a hopeless wait."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Postgres:
    """A PostgreSQL server of our own in a directory of its own, reached over a unix socket only.

    Only where it is `durable` does it wait for the disk. With `wal`, its log is there.
    """

    def __init__(self, directory: Path, *, durable: bool = False, wal: Path | None = None) -> None:
        self._bin = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self._data = directory / "data"
        self._fsync = "on" if durable else "off"
        self.directory = directory
        # PostgreSQL refuses to run as root.
        self._as_user = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        )
        if os.getuid() == 0:
            shutil.chown(directory, "postgres", "postgres")
        initdb = ["initdb", "-U", "root", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        if wal is not None:
            # Small files, so that a new one is needed often.
            initdb += [f"--waldir={wal}", "--wal-segsize=1"]
        self._run(*initdb, "-D", self._data)
        self.start()

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [*self._as_user, self._bin / program, *arguments]
        subprocess.run(command, check=True, cwd=self.directory, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        options = f"-k {self.directory} -c listen_addresses= -c fsync={self._fsync} -c max_connections=60"
        self._run("pg_ctl", "-D", self._data, "-l", self.directory / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def kill(self) -> None:
        """Kill the server's first process; the others notice by themselves, a little later."""
        os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def prepare(self) -> None:
        """Make the roles and the migrated database that a deployment makes.

        With MOLAM_TEST_MIGRATE, the path of a later release's molam-webhook, that one migrates it further, as it does
        while this release is still serving.
        """
        for role in ("molam_webhook", "molam_webhook_worker", "molam_webhook_owner"):
            query(self.url("postgres"), f"CREATE ROLE {role} LOGIN")
        query(self.url("postgres"), f"CREATE DATABASE {DATABASE} OWNER molam_webhook_owner")
        env = environment(self.url(DATABASE, "molam_webhook_owner"))
        done = run_cli("migrate", env=env)
        assert done.returncode == 0, done.stderr
        if program := os.environ.get("MOLAM_TEST_MIGRATE"):
            del env["PYTHONPATH"]
            done = subprocess.run([program, "migrate"], env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

    def url(self, database: str, user: str = "root") -> str:
        return f"postgresql://{user}@/{database}?host={self.directory}"


class Valkey:
    """A Valkey server (or Redis, its forerunner) of our own, reached over a unix socket only."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "valkey.sock"
        self.url = f"unix://{self.socket}"
        self._program = shutil.which("valkey-server") or shutil.which("redis-server") or ""
        assert self._program, "install valkey-server or redis-server"
        self.start()

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.socket.parent)]
        self._process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL)
        wait_until(self._listens)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Let it stand still: it takes connections and answers none."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Bring it back, whether it was killed or stopped."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
        else:
            self.start()

    def cli(self, *command: str) -> str:
        program = self._program.replace("-server", "-cli")
        answer = subprocess.run([program, "-s", self.socket, *command], capture_output=True, text=True, check=True)
        return answer.stdout.strip()

    close = kill


def query(url: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """Run one statement and return its rows."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    return asyncio.run(run())


@contextlib.contextmanager
def setting(url: str, name: str, value: str) -> Iterator[None]:
    """Set the whole server so, for as long as the context lasts."""
    query(url, f"ALTER SYSTEM SET {name} = {value}")
    query(url, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        query(url, f"ALTER SYSTEM RESET {name}")
        query(url, "SELECT pg_reload_conf()")


def count(url: str, table: str) -> int:
    return int(query(url, f"SELECT count(*) FROM {table}")[0][0])


def environment(database_url: str, **settings: str) -> dict[str, str]:
    """The environment of a process of ours: nothing of the surroundings but what Python and coverage need."""
    return {
        **{name: os.environ[name] for name in ("PATH", "COVERAGE_PROCESS_CONFIG") if name in os.environ},
        "PYTHONPATH": str(SOURCE),
        "DATABASE_URL": database_url,
        "DATABASE_POOL_MIN": "1",
        "MOLAM_WEBHOOK_SECRET": SECRET,
    } | settings


def run_cli(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "molam_webhook", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


class Process:
    """A long-running process of ours, in a process group of its own, its output in a file."""

    def __init__(self, arguments: list[str], env: dict[str, str], directory: Path) -> None:
        self.log = directory / "output"
        self._command = [sys.executable, "-m", *arguments]
        self._env = env | {"NOTIFY_SOCKET": str(directory / "notify")}
        # A socket such as the service manager's tells when it is ready.
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        self._notify.settimeout(DEADLINE_SECONDS)
        self.restart()

    def restart(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=output, stderr=subprocess.STDOUT, process_group=0
            )
        self._wait_ready()

    def _wait_ready(self) -> None:
        try:
            # What an earlier run of it said stands before.
            while not self._notify.recv(64).startswith(b"READY=1"):
                pass
        except TimeoutError:
            raise AssertionError(self.log.read_text()) from None

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.log.read_bytes().splitlines()]

    def suspend(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(DEADLINE_SECONDS)
        # Its beats stand before.
        while self._notify.recv(64) != b"STOPPING=1":
            pass
        return status

    def close(self) -> None:
        # In good order if it can: a killed process doesn't say which lines it ran.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        self._notify.close()


class Service(Process):
    """The receiver on a unix socket, served as in production or by another ASGI server (granian)."""

    def __init__(self, env: dict[str, str], directory: Path, server: str = "own") -> None:
        self.socket = directory / "http.sock"
        commands = {
            "own": ["molam_webhook", "serve", "--uds", str(self.socket)],
            "granian": [
                *("granian", "--interface", "asgi", "--factory", "--log-level", "warning"),
                *("--uds", str(self.socket), "molam_webhook.serve:application"),
            ],
        }
        self._announces = server == "own"
        super().__init__(commands[server], env, directory)

    def _wait_ready(self) -> None:
        if self._announces:
            super()._wait_ready()
        else:
            wait_until(self._listens)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.socket), limits=httpx.Limits(max_connections=None))
        return httpx.Client(transport=transport, base_url="http://receiver", timeout=15)

    def deliver(self, body: bytes, **headers: str) -> httpx.Response:
        with self.client() as client:
            return client.post(PATH, content=body, headers=signed_headers(body) | headers)
