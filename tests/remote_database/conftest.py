"""Fixtures of the checks of a receiver whose PostgreSQL is on another host."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest
import testinfra
from testinfra.host import Host

from tests.host.conftest import site  # noqa: F401  a fixture, by the name it has here
from tests.host.inventory import ask

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "molecule" / "remote_database" / "inventory"
JOBS = ("receiver", "worker", "owner")


@dataclass(frozen=True)
class Database:
    """The database as whoever comes over the network meets it, and its host."""

    host: Host
    address: str
    ca: Path
    logins: dict[str, dict[str, str]] = field(repr=False)

    async def connect(self, user: str, password: str) -> asyncpg.Connection[asyncpg.Record]:
        """Log in over TLS; the certificate is verified."""
        trust = ssl.create_default_context(cafile=self.ca)
        return await asyncpg.connect(host=self.address, user=user, password=password, database="molam", ssl=trust)

    def refusal(self, user: str, password: str, statement: str = "SELECT 1") -> str:
        """Return by its name why a statement was refused, or the login itself; "" where neither was."""

        async def attempt() -> None:
            connection = await self.connect(user, password)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        try:
            asyncio.run(attempt())
        except asyncpg.PostgresError as error:
            return type(error).__name__
        return ""

    def sql(self, statement: str) -> str:
        """Run a statement as its superuser, on its own host."""
        psql = "runuser -u postgres -- psql --no-psqlrc -At molam"
        return str(self.host.check_output(f"{psql} <<'END'\n{statement}\nEND"))

    def present(self) -> set[str]:
        """Return who is logged in, of those that are the receiver's host's."""
        return set(self.sql("SELECT DISTINCT usename FROM pg_stat_activity WHERE client_addr IS NOT NULL").split())


@pytest.fixture(scope="module")
def database(host: Host) -> Database:
    """Return the database that the inventory names."""
    wanted = {
        "logins": "webhook_app_database_logins",
        "ca": "webhook_app_database_ca",
        "address": "hostvars.dbr.ansible_host",
    }
    values = ask(host, wanted)
    ssh_config = str(ROOT / ".state" / "ssh" / "config")
    its_host = testinfra.get_host("ansible://dbr", ansible_inventory=str(INVENTORY), ssh_config=ssh_config)
    return Database(its_host, values["address"], Path(values["ca"]), values["logins"])
