"""The admin socket: what the processes themselves say of their health, and their metrics."""

import asyncio
import math
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
from molam_webhook import __version__
from molam_webhook.backlog import Backlog, Monitor, count
from molam_webhook.clock import Clock
from molam_webhook.config import ReceiverSettings
from molam_webhook.database import Database, session
from molam_webhook.http import Receiver
from processing import Start, acts
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from stored import store
from support import SECRET, Postgres, Process, Service, Valkey, environment, event_body, query, wait_until

pytestmark = pytest.mark.database

Serve = Callable[..., Service]


def ask(socket: Path, path: str, method: str = "GET") -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://admin", timeout=15) as client:
        return client.request(method, path)


def metrics(socket: Path) -> dict[str, float]:
    """Each metric without labels by its name."""
    families = text_string_to_metric_families(ask(socket, "/metrics").text)
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


@pytest.fixture
def worker(postgres: Postgres, database: str, directory: Path) -> Iterator[tuple[Process, Path]]:
    """A worker with nothing to do yet, and its admin socket."""
    home = directory / "worker"
    home.mkdir()
    socket = home / "admin.sock"
    env = environment(postgres.url(database, "molam_webhook_worker"), MOLAM_WORKER_POLL_SECONDS="0.1")
    process = Process(["molam_webhook", "worker", "--admin-uds", str(socket)], env, home)
    yield process, socket
    process.close()


def receiver(serve: Serve, directory: Path, **settings: str) -> tuple[Service, Path]:
    socket = directory / "admin.sock"
    return serve(MOLAM_ADMIN_UDS=str(socket), **settings), socket


def test_the_receiver_says_how_it_is(serve: Serve, directory: Path) -> None:
    service, socket = receiver(serve, directory)
    assert stat.S_IMODE(socket.stat().st_mode) == 0o660
    health = ask(socket, "/health")
    assert health.status_code == 200
    body = health.json()
    assert body.pop("uptime_seconds") >= 0
    assert datetime.now(UTC) - datetime.fromisoformat(body.pop("timestamp")) < timedelta(minutes=1)
    assert body == {
        "status": "healthy",
        "database": "healthy",
        "cache": "disabled",
        "release": __version__,
        "clock": Clock().state(),
    }
    assert math.isnan(metrics(socket)["molam_webhook_cache_healthy"])
    assert ask(socket, "/livez").json() == {"status": "alive"}
    assert (ask(socket, "/readyz").status_code, ask(socket, "/readyz").json()) == (200, {"status": "ready"})
    assert ask(socket, "/health", "HEAD").content == b""
    assert ask(socket, "/health", "POST").status_code == 405
    assert ask(socket, "/").status_code == 404
    service.deliver(event_body("evt_1"))
    assert "molam_webhooks_total" in ask(socket, "/metrics").text
    service.stop()
    assert not socket.exists()


def test_what_the_public_may_know_is_less(serve: Serve, directory: Path) -> None:
    service, _ = receiver(serve, directory)
    with service.client() as client:
        public = client.get("/health")
        assert public.json() == {"status": "healthy", "database": "healthy", "cache": "disabled"}
        for path in ("/livez", "/readyz", "/metrics"):
            assert client.get(path).status_code == 404


def test_without_a_database_a_process_lives_and_is_not_ready(serve: Serve, directory: Path) -> None:
    _, socket = receiver(serve, directory, DATABASE_URL="postgresql:///nowhere?host=/nonexistent")
    assert ask(socket, "/livez").status_code == 200
    assert ask(socket, "/health").status_code == 503
    ready = ask(socket, "/readyz")
    assert (ready.status_code, ready.json()["reason"]) == (503, "the database cannot be used")


def test_ready_as_soon_as_the_database_is_reached(url: str) -> None:
    """Asked too early, it does not keep that answer for the second that others are kept: a switch waits for it."""

    async def live() -> tuple[bool, bool]:
        database = Database(ReceiverSettings(database_url=SecretStr(url), molam_webhook_secret=SecretStr(SECRET)))
        database.start()
        early = await database.healthy()
        assert database._opening is not None
        await database._opening
        answers = early, await database.healthy()
        await database.stop()
        return answers

    assert asyncio.run(live()) == (False, True)


def test_a_schema_that_does_not_fit_is_not_ready_and_says_why(serve: Serve, directory: Path, url: str) -> None:
    _, socket = receiver(serve, directory)
    query(url, "UPDATE alembic_version SET version_num = '0001'")
    try:
        ready = ask(socket, "/readyz")
    finally:
        query(url, "UPDATE alembic_version SET version_num = '0003'")
    assert ready.status_code == 503
    assert "0001" in ready.json()["reason"]


def test_a_receiver_that_drains_is_not_ready(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = directory / "admin.sock"
    settings = ReceiverSettings(
        database_url=SecretStr("postgresql:///nowhere?host=/nonexistent"),
        molam_webhook_secret=SecretStr(SECRET),
        molam_admin_uds=socket,
    )

    async def live() -> str:
        receiver = Receiver(settings, Clock())
        stop, finished = asyncio.Event(), asyncio.Event()
        draining, started = asyncio.Event(), asyncio.Event()

        async def finish() -> None:
            draining.set()
            await finished.wait()

        async def receive() -> dict[str, str]:
            if started.is_set():
                await stop.wait()
            return {"type": "lifespan"}

        async def send(_message: object) -> None:
            started.set()

        monkeypatch.setattr(receiver._inbox, "finish", finish)
        life = asyncio.create_task(receiver({"type": "lifespan"}, receive, send))
        await started.wait()
        assert await asyncio.to_thread(reason) == "the database cannot be used"
        stop.set()
        await draining.wait()
        told = await asyncio.to_thread(reason)
        finished.set()
        await life
        return told

    def reason() -> str:
        ready = ask(socket, "/readyz")
        assert ready.status_code == 503
        return str(ready.json()["reason"])

    assert asyncio.run(live()) == "it is stopping"


def test_the_cache_is_told_and_is_not_needed(serve: Serve, directory: Path, valkey: Valkey) -> None:
    service, socket = receiver(serve, directory, VALKEY_URL=valkey.url)

    def told() -> tuple[float, str]:
        return metrics(socket)["molam_webhook_cache_healthy"], ask(socket, "/health").json()["cache"]

    assert told() == (1, "healthy")
    valkey.kill()
    # It is asked once a second at most.
    wait_until(lambda: told() == (0, "unhealthy"))
    health = ask(socket, "/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    with service.client() as client:
        assert client.get("/health").json()["cache"] == "unhealthy"


def test_the_worker_tells_of_its_cache(start_worker: Start, directory: Path) -> None:
    socket = directory / "admin.sock"
    start_worker(MOLAM_ADMIN_UDS=str(socket), VALKEY_URL="unix:///nonexistent/valkey.sock")
    assert metrics(socket)["molam_webhook_cache_healthy"] == 0


def test_a_socket_that_was_left_behind_is_replaced(serve: Serve, directory: Path) -> None:
    service, socket = receiver(serve, directory)
    service.kill()
    assert socket.exists()
    service.restart()
    assert ask(socket, "/livez").status_code == 200


def test_no_socket_is_no_reason_not_to_serve(serve: Serve, directory: Path) -> None:
    service = serve(MOLAM_ADMIN_UDS=str(directory / "missing" / "admin.sock"))
    assert service.deliver(event_body("evt_1")).status_code == 200
    (line,) = [line for line in service.lines() if line["event"] == "admin_socket_failed"]
    assert (line["level"], line["error"]) == ("error", "FileNotFoundError")


def test_another_server_serves_it_too(serve: Serve, directory: Path) -> None:
    socket = directory / "admin.sock"
    serve("granian", MOLAM_ADMIN_UDS=str(socket))
    assert ask(socket, "/readyz").status_code == 200


def test_the_worker_says_how_it_is(worker: tuple[Process, Path]) -> None:
    process, socket = worker
    assert ask(socket, "/health").json()["status"] == "healthy"
    assert ask(socket, "/readyz").status_code == 200
    assert process.stop() == 0
    assert not socket.exists()


def test_a_worker_that_stops_is_not_ready_while_it_finishes(start_worker: Start, directory: Path, url: str) -> None:
    socket = directory / "admin.sock"
    worker = start_worker(MOLAM_ADMIN_UDS=str(socket), MOLAM_HANDLERS="witness", MOLAM_WORKER_LEASE_SECONDS="60")

    def readiness() -> tuple[int, str | None]:
        ready = ask(socket, "/readyz")
        return ready.status_code, ready.json().get("reason")

    def in_hand() -> int:
        return len(query(url, "SELECT FROM webhook_deliveries WHERE lease IS NOT NULL"))

    with asyncio.Runner() as runner:
        keeper = runner.run(asyncpg.connect(url))
        # The handler cannot finish while this holds the merchant's table.
        runner.run(keeper.execute("BEGIN; LOCK TABLE shop.acts IN EXCLUSIVE MODE"))
        store(url, "evt_1")
        wait_until(in_hand)
        assert readiness() == (200, None)
        worker.tell_to_stop()
        wait_until(lambda: readiness() == (503, "it is stopping"))
        assert in_hand() == 1
        runner.run(keeper.close())
    assert worker.wait() == 0
    assert acts(url) == ["evt_1"]


def test_the_worker_counts_what_waits(worker: tuple[Process, Path], url: str) -> None:
    store(url, "evt_1", state="dead", forward="dead")
    store(url, "evt_2", state="done", forward="dead")
    query(url, "INSERT INTO event_conflicts (event_id, body_sha256, payload) VALUES ('evt_1', sha256('x'), 'x')")
    seen = metrics(worker[1])
    assert seen["molam_webhook_backlog_known"] == 1
    assert seen["molam_webhook_dead_events"] == 1
    assert seen["molam_webhook_dead_forwards"] == 2
    assert seen["molam_webhook_stored_conflicts"] == 1
    assert seen["molam_webhook_pending_events"] == 0
    assert seen["molam_webhook_oldest_pending_forward_seconds"] == 0


@pytest.mark.later_schema
def test_the_backlog_of_a_database_with_all_kinds(url: str) -> None:
    number = store(url, "evt_1")
    store(url, "evt_2")
    query(url, "UPDATE webhook_deliveries SET created_at = now() - interval '1 hour' WHERE id = $1", number)
    query(url, "UPDATE webhook_deliveries SET leased_until = now() + interval '1 minute' WHERE id = $1", number)
    store(url, "evt_3", state="done", forward="done", age=timedelta(hours=9))
    store(url, "evt_4", state="done", forward="pending", age=timedelta(hours=2))
    store(url, "evt_5", state="done", forward="pending")

    async def ask_count() -> Backlog:
        async with session(url, "test") as connection:
            return await count(connection)

    backlog = asyncio.run(ask_count())
    assert (backlog.pending, backlog.leased, backlog.dead, backlog.pending_forwards) == (2, 1, 0, 2)
    assert 3600 <= backlog.oldest_pending_seconds < 3700
    assert 7200 <= backlog.oldest_pending_forward_seconds < 7300


def test_the_backlog_is_asked_seldom_and_unknown_without_a_database(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def watch(monitor: Monitor) -> list[bool]:
        ask_once = monitor._ask

        async def ask() -> Backlog | None:
            asked.append("")
            return await ask_once()

        monkeypatch.setattr(monitor, "_ask", ask)
        return await asyncio.gather(*(monitor.works() for _ in range(5)))

    assert asyncio.run(watch(Monitor(url))) == [True] * 5
    assert len(asked) == 1
    assert asyncio.run(watch(Monitor("postgresql:///nowhere?host=/nonexistent"))) == [False] * 5
    assert REGISTRY.get_sample_value("molam_webhook_backlog_known") == 0
    assert math.isnan(REGISTRY.get_sample_value("molam_webhook_dead_events") or 0)
