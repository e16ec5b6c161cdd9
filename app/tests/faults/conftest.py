"""For these tests PostgreSQL waits for the disk, as it does in production."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from faults.proof import Site, StartSite
from processing import Start
from support import Postgres, Service, wait_until


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="molam-pg-") as path:
        server = Postgres(Path(path), durable=True)
        server.prepare()
        yield server
        server.stop()


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    """The receiver, once it has reached the database."""
    service = serve()
    with service.client() as client:
        wait_until(lambda: client.get("/health").status_code == 200)
    return service


@pytest.fixture
def start_site(postgres: Postgres, url: str, serve: Callable[..., Service], start_worker: Start) -> StartSite:
    """Starts a receiver and a worker that waits and looks as often as it does by default."""

    def start(receiver: Mapping[str, str] = {}, worker: Mapping[str, str] = {}) -> Site:
        by_default = {"MOLAM_WORKER_LEASE_SECONDS": "30", "MOLAM_WORKER_POLL_SECONDS": "2"}
        service = serve(**{"DATABASE_POOL_MAX": "4"} | dict(receiver))
        return Site(postgres, url, service, start_worker(**{"MOLAM_HANDLERS": "witness"} | by_default | dict(worker)))

    return start
