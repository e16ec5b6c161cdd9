"""Measure the receiver against the deployment guide's own Python stack, and against what holds both: nginx alone and
PostgreSQL alone. Started by scripts/bench-app.

Every measurement is of the same run on the same machine, with the load generator on the same cores: the figures are
this machine's, the ratios are what to look at. At the end, every event that was answered 200 must be in the database
exactly once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from string import Template

from molam_webhook.batcher import WRITERS
from molam_webhook.inbox import INBOX

from bench.report import Figures, chart, costs, table
from bench.servers import (
    APP,
    BenchError,
    Memory,
    Postgres,
    cpu_seconds,
    environment,
    free_port,
    listens,
    running,
    wait_for,
)

Command = Sequence[str | Path]

BENCH = Path(__file__).parent
CONNECTIONS = 64
SECRET = "whsec_9f3kq7Vn2Zr8Lw1T"  # noqa: S105  the benchmark's own
# More than can be answered, so that a run ends by the clock.
REQUESTS_PER_SECOND_MAX = 25_000
GUIDE_REQUESTS_PER_SECOND_MAX = 5_000
# As its unit has it: answering comes before acting.
WORKER_PRIORITY = ("nice", "-n", "10")


class Bench:
    """One run of everything, in a directory of its own."""

    def __init__(self, directory: Path, seconds: float, guide_python: Path, redis: str) -> None:
        self._directory = directory
        self._seconds = seconds
        self._guide_python = guide_python
        self._redis = redis
        self._postgres = Postgres(directory / "postgres")
        self._socket = directory / "app.sock"
        self._acknowledged: dict[str, list[Path]] = {"app": [], "guide": []}
        self._pids: dict[str, int] = {}
        self.settings: list[str] = []

    def run(self, only: str | None) -> dict[str, Figures]:
        """Measure everything, or only the receiver or one of its ways; raises BenchError."""
        found: dict[str, Figures] = {}
        self.settings.append("PostgreSQL: its defaults and " + ", ".join(Postgres.SETTINGS))
        self.settings.append(
            f"load: {CONNECTIONS} connections, {self._seconds:.0f} s each after one that is not counted"
        )
        self._make_certificate()
        with self._postgres.running():
            for database in self._acknowledged:
                self._sql("postgres", f"CREATE DATABASE {database}")
            self._sql("guide", (BENCH / "guide_schema.sql").read_text())
            self._migrate()
            if only in (None, "guide"):
                with self._guide() as (port, memory):
                    found["guide"] = self._load("the guide's stack, without TLS", f"http:{port}", "guide")
                found["guide"].peak_pss_mb = memory.peak
            if only in (None, "nginx", "socket"):
                found |= self._receiver(only)
            port = free_port()
            if only in (None, "nginx_alone"):
                with self._nginx(port, """return 200 '{"status":"accepted"}';"""):
                    found["nginx_alone"] = self._load("nginx alone, with TLS", f"https:{port}", None)
            if only in (None, "postgres"):
                found["postgres"] = self._postgres_alone(self._mean_batch())
            self._check()
        return found

    def _receiver(self, only: str | None) -> dict[str, Figures]:
        found: dict[str, Figures] = {}
        port = free_port()
        with self._app():
            if only in (None, "nginx"):
                with self._nginx(port, "proxy_pass http://molam_webhook;"):
                    found["nginx"] = self._load("the receiver behind nginx, with TLS", f"https:{port}", "app")
                    half = found["nginx"].requests_per_second / 2
                    found["half"] = self._load("the same at half of that rate", f"https:{port}", "app", half)
            if only in (None, "socket"):
                found["socket"] = self._load("the receiver on its socket", f"unix:{self._socket}", "app")
        if only in (None, "nginx"):
            # The guide's stack only stores; here each event is acted on as well.
            with (
                self._app() as receiver,
                self._worker() as worker,
                Memory([receiver, worker]).watched() as memory,
                self._nginx(port, "proxy_pass http://molam_webhook;"),
            ):
                found["worker"] = self._load("the receiver behind nginx, and its worker", f"https:{port}", "app")
            found["worker"].peak_pss_mb = memory.peak
            found["drain"] = self._drain()
        return found

    def _drain(self) -> Figures:
        """Let a worker by itself act on what has been stored so far."""
        done = "SELECT count(*) FROM webhook_deliveries WHERE state = 'done'"
        backlog = int(self._sql("app", "SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'"))
        say(f"the worker by itself, with a backlog of {backlog} …")
        with self._worker():
            before, started = int(self._sql("app", done)), time.perf_counter()
            time.sleep(self._seconds)
            after, ended = int(self._sql("app", done)), time.perf_counter()
        rate = (after - before) / (ended - started)
        say(f"  {rate:.0f}/s")
        return Figures(f"the worker by itself, backlog of {backlog}", rate)

    def _make_certificate(self) -> None:
        command: Command = [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=bench.localhost", "-addext", "subjectAltName=DNS:bench.localhost", "-days", "2"),
            *("-keyout", self._directory / "key.pem", "-out", self._directory / "cert.pem"),
        ]
        _run("openssl", command)

    def _sql(self, database: str, statement: str) -> str:
        return _run("psql", ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", self._postgres.url(database), "-c", statement])

    def _environment(self) -> dict[str, str]:
        return environment(
            PYTHONPATH=str(APP / "src"),
            DATABASE_URL=self._postgres.url("app"),
            MOLAM_WEBHOOK_SECRET=SECRET,
        )

    def _migrate(self) -> None:
        _run("the migration", [sys.executable, "-m", "molam_webhook", "migrate"], self._environment())

    @contextlib.contextmanager
    def _app(self) -> Iterator[int]:
        command: Command = [sys.executable, "-m", "molam_webhook", "serve", "--uds", self._socket]
        log = self._directory / "app.log"
        with running("the receiver", command, log, self._environment()) as pid:
            wait_for("the receiver", lambda: listens(self._socket), log)
            self._pids = {"receiver": pid}
            yield pid

    @contextlib.contextmanager
    def _worker(self) -> Iterator[int]:
        command = [*WORKER_PRIORITY, sys.executable, "-m", "molam_webhook", "worker"]
        with running("the worker", command, self._directory / "worker.log", self._environment()) as pid:
            self._pids["worker"] = pid
            yield pid

    @contextlib.contextmanager
    def _nginx(self, port: int, action: str) -> Iterator[None]:
        log = self._directory / "error.log"
        user = "user root;" if os.getuid() == 0 else ""
        text = Template((BENCH / "nginx.conf.template").read_text())
        (self._directory / "nginx.conf").write_text(
            text.substitute(user=user, port=port, socket=self._socket, action=action)
        )
        command: Command = ["nginx", "-p", self._directory, "-c", "nginx.conf", "-e", "error.log"]
        with running("nginx", command, log, environment()) as self._pids["nginx"]:
            wait_for("nginx", lambda: listens(port), log)
            yield

    def _versions(self) -> str:
        lines = _run("pip", [self._guide_python, "-m", "pip", "list", "--format=freeze"]).splitlines()
        wanted = ("flask", "gunicorn", "psycopg2", "redis")
        return ", ".join(line.replace("==", " ") for line in lines if line.lower().startswith(wanted))

    @contextlib.contextmanager
    def _guide(self) -> Iterator[tuple[int, Memory]]:
        cache, port = free_port(), free_port()
        log = self._directory / "guide.log"
        gunicorn: Command = [self._guide_python, "-m", "gunicorn", "--workers", "4", "--bind", f"127.0.0.1:{port}"]
        env = environment(
            DATABASE_URL=self._postgres.url("guide"),
            REDIS_URL=f"redis://127.0.0.1:{cache}",
            MOLAM_WEBHOOK_SECRET=SECRET,
        )
        redis: Command = [self._redis, "--port", str(cache), "--bind", "127.0.0.1", "--dir", self._directory]
        self.settings += [
            "the guide's stack: gunicorn " + " ".join(map(str, gunicorn[3:])) + " (its default, sync workers), "
            "psycopg2 pool of 5 to 20 for each worker, one INSERT and COMMIT for each event, "
            f"{Path(self._redis).name} with its default settings (EXISTS before, SETEX after), {self._versions()}"
        ]
        with running("redis", redis, self._directory / "redis.log", environment()) as redis_pid:
            wait_for("redis", lambda: listens(cache), self._directory / "redis.log")
            chdir = [f"--chdir={BENCH}", "guide_stack:app"]
            with running("gunicorn", [*gunicorn, *chdir], log, env) as pid:
                wait_for("gunicorn", lambda: listens(port), log)
                self._pids = {"gunicorn": pid, "redis": redis_pid}
                with Memory([pid]).watched() as memory:
                    yield port, memory

    def _load(self, name: str, target: str, database: str | None, rate: float | None = None) -> Figures:
        say(f"{name} …")
        number = sum(map(len, self._acknowledged.values()))
        acknowledged = self._directory / f"acknowledged{number}"
        per_second = GUIDE_REQUESTS_PER_SECOND_MAX if database == "guide" else REQUESTS_PER_SECOND_MAX
        command: Command = [
            *(sys.executable, "-m", "bench.load", target, acknowledged, f"--prefix=evt_{number}_"),
            *(f"--secret={SECRET}", f"--connections={CONNECTIONS}", f"--seconds={self._seconds}"),
            *(f"--requests={round((self._seconds + 1) * per_second)}",),
            *(("--cacert", self._directory / "cert.pem") if target.startswith("https:") else ()),
            *((f"--rate={rate}",) if rate else ()),
        ]
        path = environment(PYTHONPATH=f"{APP}:{APP / 'src'}")
        self._pids["postgres"] = self._postgres.pid
        before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        figures = json.loads(_run("the load generator", command, path))
        used = {name: cpu_seconds(pid) - before[name] for name, pid in self._pids.items()}
        answered = len(acknowledged.read_text().split())
        cpu = {name: round(1e6 * seconds / answered, 1) for name, seconds in used.items()}
        cpu["load"] = round(figures["cpu_us_per_request"], 1)
        if database:
            self._acknowledged[database].append(acknowledged)
        if set(figures["statuses"]) != {"200"}:
            raise BenchError(f"{name}: answered {figures['statuses']}; the logs are in {self._directory}")
        say(
            f"  {figures['requests_per_second']:.0f}/s, p99 {figures['p99_ms']:.1f} ms, {sum(cpu.values()):.0f} µs each"
        )
        return Figures(name, figures["requests_per_second"], figures["p50_ms"], figures["p99_ms"], None, cpu)

    def _mean_batch(self) -> int:
        """How many events the receiver stored in one transaction; a row's xmin is the transaction's number."""
        counts = self._sql("app", "SELECT count(*), count(DISTINCT xmin::text) FROM event_ids").strip()
        events, batches = map(int, counts.split("|"))
        return max(1, round(events / max(1, batches)))

    def _postgres_alone(self, batch: int) -> Figures:
        say(f"PostgreSQL alone, batches of {batch} …")
        columns = {
            1: "text 'pg_' || :n || '_' || i",
            2: "sha256('')",
            3: "text 'payment.succeeded'",
            4: "now()",
            5: f"decode('{'7b' * 330}', 'hex')",
            6: "repeat('s', 90)",
            7: "text 'v1'",
        }
        statement = INBOX.insert
        for number, expression in columns.items():
            array = f"(SELECT array_agg({expression}) FROM generate_series(1, {batch}) AS i)"  # noqa: S608  ours
            statement = statement.replace(f"${number}::", f"{array}::")
        script = self._directory / "insert.sql"
        script.write_text("\\set n random(1, 1000000000000000)\n" + " ".join(statement.split()) + ";\n")
        output = self._postgres.pgbench("app", script, WRITERS, self._seconds)
        found = re.search(r"latency average = ([\d.]+) ms[\s\S]*tps = ([\d.]+)", output)
        if found is None:
            raise BenchError(f"pgbench said: {output}")
        self.settings.append(
            f"PostgreSQL alone: pgbench, {WRITERS} clients, the receiver's own statement, {batch} rows"
        )
        return Figures(f"PostgreSQL alone, {batch} rows a commit", float(found[2]) * batch, float(found[1]))

    def _check(self) -> None:
        for database, files in self._acknowledged.items():
            acknowledged = {line for file in files for line in file.read_text().split()}
            stored = Counter(self._sql(database, "SELECT event_id FROM webhook_deliveries").split())
            missing = acknowledged - stored.keys()
            twice = [event for event, times in stored.items() if times > 1]
            if missing or twice:
                raise BenchError(
                    f"{database}: of {len(acknowledged)} events answered 200, {len(missing)} are missing, "
                    f"{len(twice)} are there twice"
                )
            if files:
                say(f"{database}: all {len(acknowledged)} events that were answered 200 are stored, each once")


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(text, file=sys.stderr, flush=True)


def _run(name: str, command: Command, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(  # noqa: S603  the commands are ours
        [str(part) for part in command], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"{name} failed: {done.stderr.strip()}")
    return done.stdout


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench-app", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a chart")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: 10)")
    parser.add_argument(
        "--only", choices=["guide", "nginx", "socket", "nginx_alone", "postgres"], help="measure just this"
    )
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a disk (default: /var/tmp)")  # noqa: S108  a new directory is made there
    parser.add_argument("--guide-python", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--redis", required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seconds < 1:
        parser.error("--seconds: at least 1")
    kind = _run("stat", ["stat", "-f", "-c", "%T", arguments.directory]).strip()
    if kind in ("tmpfs", "ramfs"):
        parser.error(f"--directory: {arguments.directory} is in memory ({kind}); commits must reach a disk")
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.directory))
    # PostgreSQL runs as another user.
    directory.chmod(0o755)
    bench = Bench(directory, arguments.seconds, arguments.guide_python, arguments.redis)
    try:
        found = bench.run(arguments.only)
    except BenchError as error:
        print(f"bench-app: {error}", file=sys.stderr)
        return 1
    shutil.rmtree(directory)
    where = f"{platform.machine()}, {os.cpu_count()} cores, {kind}, {datetime.now(UTC):%Y-%m-%d}"
    rows = list(found.values())
    if arguments.svg:
        arguments.svg.write_text(chart(rows, f"Events a second, each stored before it is answered ({where})"))
    if arguments.json:
        result = {key: asdict(figures) for key, figures in found.items()}
        print(json.dumps({"machine": where, "settings": bench.settings, "figures": result}, indent=2))
    else:
        print(
            "\n\n".join(
                [where, "\n".join(f"- {line}" for line in bench.settings), table(rows, found.get("guide")), costs(rows)]
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
