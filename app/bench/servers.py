"""What the benchmark starts: each server its own, in one directory, ended with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

APP = Path(__file__).parents[1]
START_SECONDS = 20.0
STOP_SECONDS = 15.0
SAMPLE_SECONDS = 0.1


class BenchError(Exception):
    """The benchmark can't go on; one sentence that says why."""


@contextlib.contextmanager
def running(name: str, command: Sequence[str | Path], log: Path, env: dict[str, str]) -> Iterator[int]:
    """Run a server in a process group of its own, its output in `log`; yields its pid, ends it with SIGTERM."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603  the commands are ours
            [str(part) for part in command], env=env, stdout=output, stderr=output, process_group=0
        )
    try:
        yield process.pid
        if process.poll() is not None:
            raise BenchError(f"{name} ended by itself; its log is {log}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(name: str, is_there: Callable[[], bool], log: Path) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + START_SECONDS
    while not is_there():
        if time.monotonic() > deadline:
            raise BenchError(f"{name} did not start; its log is {log}")
        time.sleep(0.02)


def listens(place: Path | int) -> bool:
    """Whether something answers on a unix socket, or on a port of the loopback address."""
    family, address = (
        (socket.AF_UNIX, str(place)) if isinstance(place, Path) else (socket.AF_INET, ("127.0.0.1", place))
    )
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """PostgreSQL as it comes, reached over a unix socket only. Its commits reach the disk."""

    SETTINGS = ("fsync=on", "synchronous_commit=on", "full_page_writes=on", "listen_addresses=", "max_connections=60")

    def __init__(self, directory: Path) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self._bin = binaries[-1]
        self._directory = directory
        self._log = directory / "log"
        # PostgreSQL refuses to run as root.
        self._as_user = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._directory.mkdir()
        if os.getuid() == 0:
            shutil.chown(self._directory, "postgres", "postgres")
        data = self._directory / "data"
        self._run("initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C")
        options = " ".join([f"-k {self._directory}", *(f"-c {setting}" for setting in self.SETTINGS)])
        self._run("pg_ctl", "-D", data, "-l", self._log, "-o", options, "-w", "start")
        try:
            yield
        finally:
            self._run("pg_ctl", "-D", data, "-m", "fast", "-w", "stop")

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [*self._as_user, str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(  # noqa: S603  the commands are ours
            command, cwd=self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != 0:
            raise BenchError(f"{program} failed: {done.stderr.strip()}; the log is {self._log}")

    @property
    def pid(self) -> int:
        return int((self._directory / "data" / "postmaster.pid").read_text().split()[0])

    def url(self, database: str) -> str:
        return f"postgresql://bench@/{database}?host={self._directory}"

    def pgbench(self, database: str, script: Path, clients: int, seconds: float) -> str:
        """Run a script over and over; returns what pgbench printed."""
        command = [
            *("pgbench", "--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--time={seconds:.0f}"),
            *(f"--file={script}", f"--host={self._directory}", "--username=bench", database),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  the command is ours
        if done.returncode != 0:
            raise BenchError(f"pgbench failed: {done.stderr.strip()}")
        return done.stdout


class Memory:
    """Watches the memory (PSS, in MB) of processes and their children; `peak` is the most it saw of all together."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._ended = threading.Event()
        self.peak = 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[Memory]:
        watch = threading.Thread(target=self._watch)
        watch.start()
        try:
            yield self
        finally:
            self._ended.set()
            watch.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(_pss(pid) for pid in self._pids))


def _pss(pid: int) -> float:
    """The PSS of a process and its descendants, in MB."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024 / 1e6
    return own + sum(_pss(int(child)) for child in children)


def cpu_seconds(pid: int) -> float:
    """What a process and its descendants have used of the processors, those that have ended included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    # utime, stime, cutime, cstime
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


def environment(**settings: str) -> dict[str, str]:
    """The environment of a server: nothing of the surroundings but PATH."""
    return {"PATH": os.environ["PATH"], **settings}
