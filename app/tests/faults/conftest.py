"""For these tests PostgreSQL waits for the disk, as it does in production."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
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
