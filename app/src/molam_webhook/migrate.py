"""Bringing the database to this release's schema, and its roles to their rights."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import NamedTuple

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from molam_webhook.config import Settings

# A migration that cannot have its lock soon gives up, rather than queue every delivery behind it.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "300s"

# Any constant of our own will do: it keeps two migrations of one database apart.
_LOCK_KEY = 7_061_708_495


class Migration(NamedTuple):
    """The schema's revision before and after; None is an empty database."""

    before: str | None
    after: str | None


def migrate(settings: Settings) -> Migration:
    """Upgrade to the newest revision, then apply `migrations/grants.sql`, in one transaction. Idempotent.

    Raises asyncpg.PostgresError, sqlalchemy.exc.SQLAlchemyError or OSError.
    """
    return asyncio.run(_migrate(settings.database_url.get_secret_value()))


async def _migrate(url: str) -> Migration:
    async def open_connection() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            url,
            server_settings={
                "application_name": "molam-webhook-migrate",
                "lock_timeout": LOCK_TIMEOUT,
                "statement_timeout": STATEMENT_TIMEOUT,
            },
        )

    engine = create_async_engine("postgresql+asyncpg://", async_creator=open_connection, poolclass=NullPool)
    async with engine.begin() as connection:
        return await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> Migration:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    config = Config()
    config.set_main_option("script_location", "molam_webhook:migrations")
    config.attributes["connection"] = connection
    before = MigrationContext.configure(connection).get_current_revision()
    command.upgrade(config, "head")
    after = MigrationContext.configure(connection).get_current_revision()
    grants = resources.files("molam_webhook").joinpath("migrations", "grants.sql").read_text(encoding="utf-8")
    connection.exec_driver_sql(grants)
    return Migration(before, after)
