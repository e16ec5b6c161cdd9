"""What the tests of the worker share: events in the inbox, worker processes, and a look at what became of them."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import merchant
from molam_webhook import event as events
from molam_webhook.config import WorkerSettings
from molam_webhook.event import Event
from molam_webhook.handlers import Handler, Handlers
from molam_webhook.handling import Handling
from molam_webhook.worker import Worker
from pydantic import SecretStr
from support import DEADLINE_SECONDS, SOURCE, Process, environment, event_body, query, wait_until

Start = Callable[..., "WorkerProcess"]

LEASE_SECONDS = "1"

_STORE = """
INSERT INTO webhook_deliveries (event_id, event_type, created, payload, signature, kid)
SELECT *, '', 'v1' FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bytea[])
"""


def store(url: str, *bodies: bytes) -> None:
    """Put events into the inbox as the receiver would, but without a word to the worker."""
    rows = []
    for body in bodies:
        event = events.parse(body)
        assert isinstance(event, Event)
        rows.append((event.id, event.type, event.created, body))
    query(url, _STORE, *map(list, zip(*rows, strict=True)))


def told(event_id: str, do: str = "") -> bytes:
    """An event that says what the merchant's handler does over it."""
    return event_body(event_id, do=do)


def settings_with(*handlers: Handler, **settings: object) -> WorkerSettings:
    """The default settings but for these, with the given handlers."""
    named = Handlers({str(number): handler for number, handler in enumerate(handlers)})
    return WorkerSettings.load().model_copy(update={"molam_handlers": named} | settings)


def work(url: str, *handlers: Handler, **settings: object) -> None:
    """Take every event that is due, once each, in this process."""

    async def run() -> None:
        chosen = settings_with(*handlers, **{"database_url": SecretStr(url)} | settings)
        worker, handling = Worker(chosen), Handling(chosen.molam_handlers, forwarding=False)
        found = True
        while found:
            # A failed attempt may close it.
            connection = await worker.connect()
            found = await worker.step(connection, handling)
            await connection.close()

    asyncio.run(run())


def states(url: str, table: str = "webhook_deliveries") -> dict[str, tuple[str, int]]:
    """State and attempts by event id."""
    key = "delivery_id" if table == "forwards" else "id"
    sql = f"SELECT d.event_id, q.state, q.attempts FROM {table} q JOIN webhook_deliveries d ON d.id = q.{key}"
    return {row[0]: (row[1], row[2]) for row in query(url, sql)}


def pending(url: str) -> int:
    return int(query(url, "SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'")[0][0])


def acts(url: str) -> list[str]:
    """The events that the merchant's handler acted on, one for each act that was kept."""
    return sorted(row[0] for row in query(url, "SELECT event_id FROM shop.acts"))


class WorkerProcess(Process):
    """A worker in a process of its own."""

    def tell_to_stop(self) -> None:
        """Tell it to stop, and do not wait until it has."""
        self._process.terminate()

    def wait(self) -> int:
        """Wait until it ends by itself."""
        return self._process.wait(DEADLINE_SECONDS)

    def wait_suspended(self) -> None:
        stat = Path(f"/proc/{self._process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def live_through(self, done: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> int:
        """Start it again whenever it ends, as the service manager does, until something is done; returns how often."""
        deaths = 0
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self.log.read_text()
            if self._process.poll() is not None:
                deaths += 1
                self.restart()
            time.sleep(0.02)
        return deaths

    def events(self, name: str) -> list[dict[str, object]]:
        """The lines of its log about one thing."""
        return [line for line in self.lines() if line["event"] == name]


def install(directory: Path, name: str, entry_points: str) -> None:
    """Make a package known to Python, as far as its entry points go, wherever `directory` is on the path."""
    package = directory / f"{name.replace('-', '_')}-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(entry_points)


def worker_process(database_url: str, directory: Path, settings: dict[str, str]) -> WorkerProcess:
    """Start a worker with the merchant's package installed; ready when this returns."""
    directory.mkdir()
    install(directory, "merchant", merchant.ENTRY_POINTS)
    path = os.pathsep.join(
        map(str, (SOURCE, directory, Path(merchant.__file__).parent, settings.get("PYTHONPATH", "")))
    )
    quick = {"MOLAM_WORKER_LEASE_SECONDS": LEASE_SECONDS, "MOLAM_WORKER_POLL_SECONDS": "0.1"}
    env = environment(database_url, **{"MOLAM_WEBHOOK_SECRET": ""} | quick | settings | {"PYTHONPATH": path})
    return WorkerProcess(["molam_webhook", "worker"], env, directory)
