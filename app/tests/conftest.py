"""Fixtures: one PostgreSQL for the session, its database emptied for each test that asks for it."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import merchant
import pytest
from molam_webhook.config import Settings
from processing import WorkerProcess, worker_process
from support import DATABASE, Postgres, Process, Service, Valkey, environment, query


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep whatever the tests are started with out of the settings under test."""
    for name in (*Settings.model_fields, "molam_webhook_secret", "keyring", "credentials_directory"):
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for a unix socket (108 bytes), which pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="molam-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="molam-pg-") as path:
        server = Postgres(Path(path))
        server.prepare()
        yield server
        server.stop()


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The name of a migrated database, emptied for this test."""
    tables = "event_ids, webhook_deliveries, forwards, event_conflicts, selftest_events, orders"
    query(postgres.url(DATABASE), f"TRUNCATE {tables}")
    return DATABASE


@pytest.fixture
def url(postgres: Postgres, database: str) -> str:
    """The database's URL as its administrator, who sees everything."""
    return postgres.url(database)


@pytest.fixture
def valkey(directory: Path) -> Iterator[Valkey]:
    """A cache of this test's own."""
    server = Valkey(directory)
    yield server
    server.close()


@pytest.fixture
def serve(postgres: Postgres, database: str, directory: Path) -> Iterator[Callable[..., Service]]:
    """Starts the receiver as the role it has in production; each service started is ended."""
    started: list[Process] = []

    def start(server: str = "own", without: str = "", **settings: str) -> Service:
        home = directory / str(len(started))
        home.mkdir()
        env = environment(postgres.url(database, "molam_webhook"), **settings)
        env.pop(without, None)
        service = Service(env, home, server)
        started.append(service)
        return service

    yield start
    for service in started:
        service.close()


@pytest.fixture
def start_worker(postgres: Postgres, database: str, directory: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts workers as the role they have in production, beside the merchant's tables; each one started is ended."""
    for statement in merchant.SCHEMA.split(";"):
        query(postgres.url(database), statement)
    started: list[WorkerProcess] = []

    def start(**settings: str) -> WorkerProcess:
        home = directory / f"worker-{len(started)}"
        started.append(worker_process(postgres.url(database, "molam_webhook_worker"), home, settings))
        return started[-1]

    yield start
    for worker in started:
        worker.close()
