"""Migrations: what adds and what takes away are kept apart, and a release knows which schema it works with."""

from __future__ import annotations

import asyncio
import re
import shutil
from importlib import resources
from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from molam_webhook import migrate as module
from molam_webhook import schema, upgrade
from molam_webhook.config import Settings
from molam_webhook.migrate import SchemaError, migrate
from support import Postgres, query

OWNER, WEB, WORKER = "molam_webhook_owner", "molam_webhook", "molam_webhook_worker"

REVISION = """
from alembic import op

revision = "{0}"
down_revision = "{1}"
kind = "{2}"


def upgrade() -> None:
    op.execute("{3}")
"""


def revisions() -> list[tuple[str, object, str | None]]:
    config = Config()
    config.set_main_option("script_location", "molam_webhook:migrations")
    scripts = reversed(list(ScriptDirectory.from_config(config).walk_revisions()))
    return [(script.revision, script.down_revision, getattr(script.module, "kind", None)) for script in scripts]


def test_every_revision_says_whether_it_adds_or_takes_away() -> None:
    assert {kind for _, _, kind in revisions()} <= {"expand", "contract"}


def test_revisions_are_numbered_in_their_order() -> None:
    """As text they compare as they follow one another, and there is one line of them."""
    names = [revision for revision, _, _ in revisions()]
    assert names == [f"{number:04}" for number in range(1, len(names) + 1)]
    assert [before for _, before, _ in revisions()] == [None, *names[:-1]]


def test_the_release_declares_its_range() -> None:
    names = [revision for revision, _, _ in revisions()]
    assert names[-1] == schema.NEWEST
    assert schema.OLDEST in names


class Fresh:
    """An empty database, and a release whose revisions and range are the test's own."""

    def __init__(self, postgres: Postgres, scripts: Path, patch: pytest.MonkeyPatch) -> None:
        self._postgres = postgres
        self._scripts = scripts
        self._patch = patch
        patch.setattr(upgrade, "SCRIPTS", str(scripts))

    def url(self, user: str = "root") -> str:
        return self._postgres.url("fresh", user)

    def release(self, *brings: str, oldest: str) -> None:
        """Be the release that brings these revisions besides 0001, and cannot do without `oldest`.

        "+a" adds the column `a`, "-a" takes it away.
        """
        versions = self._scripts / "versions"
        for path in versions.glob("*.py"):
            if not path.name.startswith("0001"):
                path.unlink()
        for number, change in enumerate(brings, start=2):
            revision, before = f"{number:04}", f"{number - 1:04}"
            kind = "expand" if change[0] == "+" else "contract"
            clause = f"ADD COLUMN {change[1:]} text" if change[0] == "+" else f"DROP COLUMN {change[1:]}"
            text = REVISION.format(revision, before, kind, f"ALTER TABLE orders {clause}")
            (versions / f"{revision}.py").write_text(text)
        self._patch.setattr(schema, "NEWEST", f"{len(brings) + 1:04}")
        self._patch.setattr(schema, "OLDEST", oldest)

    def migrate(self, *, contract: bool = False) -> tuple[str | None, str | None]:
        settings = Settings.model_validate({"database_url": self.url(OWNER)})
        return migrate(settings, contract=contract)

    def fault(self, user: str = WEB) -> str | None:
        async def ask() -> str | None:
            connection = await asyncpg.connect(self.url(user))
            try:
                return await schema.fault(connection)
            finally:
                await connection.close()

        return asyncio.run(ask())

    def columns(self) -> set[str]:
        sql = "SELECT attname FROM pg_attribute WHERE attrelid = 'orders'::regclass AND length(attname) = 1"
        return {row[0] for row in query(self.url(), sql)}


@pytest.fixture
def fresh(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fresh:
    query(postgres.url("postgres"), "DROP DATABASE IF EXISTS fresh")
    query(postgres.url("postgres"), f"CREATE DATABASE fresh OWNER {OWNER}")
    with resources.as_file(resources.files("molam_webhook").joinpath("migrations")) as path:
        shutil.copytree(path, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    # Rights on what the test's releases do not have are of no matter here.
    grants = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO molam_webhook, molam_webhook_worker"
    monkeypatch.setattr(module, "_grants", lambda: grants)
    return Fresh(postgres, tmp_path / "migrations", monkeypatch)


@pytest.mark.database
def test_an_empty_database_is_told(fresh: Fresh) -> None:
    assert fresh.fault(user=OWNER) == "the database is empty: run 'molam-webhook migrate'"


@pytest.mark.database
def test_what_takes_away_waits_to_be_asked_for(fresh: Fresh) -> None:
    fresh.release("+a", oldest="0002")
    assert fresh.migrate() == (None, "0002")
    fresh.release("+a", "+b", "-a", oldest="0003")
    assert fresh.migrate() == ("0002", "0003")
    assert fresh.columns() == {"a", "b"}
    assert fresh.fault() is None
    assert fresh.migrate() == ("0003", "0003")
    assert fresh.migrate(contract=True) == ("0003", "0004")
    assert fresh.columns() == {"b"}
    assert fresh.fault() is None


@pytest.mark.database
def test_an_empty_database_has_no_earlier_release_to_wait_for(fresh: Fresh) -> None:
    fresh.release("+a", "-a", "+b", oldest="0004")
    assert fresh.migrate() == (None, "0004")
    assert fresh.columns() == {"b"}


@pytest.mark.database
def test_a_release_that_needs_what_comes_after_a_contract_says_what_to_do(fresh: Fresh) -> None:
    fresh.release("+a", oldest="0002")
    fresh.migrate()
    fresh.release("+a", "-a", "+b", oldest="0004")
    with pytest.raises(SchemaError, match=r"^revision 0003 takes away .* run 'molam-webhook migrate --contract'$"):
        fresh.migrate()
    assert fresh.columns() == {"a"}
    assert fresh.fault() == ("the schema is at revision 0002, and this release needs 0004: run 'molam-webhook migrate'")
    assert fresh.migrate(contract=True) == ("0002", "0004")
    assert fresh.columns() == {"b"}


@pytest.mark.database
def test_an_earlier_release_works_with_what_was_added(fresh: Fresh) -> None:
    """It may serve during the migration, and be gone back to."""
    fresh.release("+a", "+b", oldest="0003")
    fresh.migrate()
    # A right that the later release has given.
    query(fresh.url(), f"GRANT UPDATE ON orders TO {WEB}")
    fresh.release("+a", oldest="0002")
    for user in (WEB, WORKER):
        assert fresh.fault(user) is None
    assert fresh.migrate() == ("0003", "0003")
    assert fresh.columns() == {"a", "b"}
    query(fresh.url(WEB), "UPDATE orders SET a = 'x'")


@pytest.mark.database
def test_a_release_that_a_contract_left_behind_neither_runs_nor_migrates(fresh: Fresh) -> None:
    fresh.release("+a", "-a", "+b", oldest="0004")
    fresh.migrate()
    fresh.release("+a", oldest="0002")
    reason = "revision 0003 took away what this release uses, which knows 0002 at the most: "
    for user in (WEB, WORKER):
        assert (fresh.fault(user) or "").startswith(reason)
    for contract in (False, True):
        with pytest.raises(SchemaError, match=f"^{re.escape(reason)}"):
            fresh.migrate(contract=contract)
    # One that knows the contract, and not what was added after it, does.
    fresh.release("+a", "-a", oldest="0002")
    assert fresh.fault() is None


@pytest.mark.database
def test_a_migration_that_fails_changes_nothing(fresh: Fresh) -> None:
    fresh.release("+a", oldest="0002")
    fresh.migrate()
    fresh.release("+a", "+b", "-nothing", oldest="0003")
    with pytest.raises(Exception, match="nothing"):
        fresh.migrate(contract=True)
    assert fresh.columns() == {"a"}
    assert fresh.fault() is not None


@pytest.mark.later_schema
@pytest.mark.database
def test_this_release_works_with_the_schema_that_it_makes(postgres: Postgres, database: str) -> None:
    for user in (WEB, WORKER):

        async def ask(name: str = user) -> str | None:
            connection = await asyncpg.connect(postgres.url(database, name))
            try:
                return await schema.fault(connection)
            finally:
                await connection.close()

        assert asyncio.run(ask()) is None
