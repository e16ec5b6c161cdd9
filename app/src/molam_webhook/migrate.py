"""Bringing the database to this release's schema, and its roles to their rights."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import NamedTuple

import asyncpg

from molam_webhook import schema
from molam_webhook.config import Settings

# A migration that cannot have its lock soon gives up, rather than queue every delivery behind it.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "300s"

# Any constant of our own will do: it keeps two migrations of one database apart.
LOCK = "SELECT pg_advisory_xact_lock(7061708495)"


class MigrationError(Exception):
    """The database refused; the message is its own."""


class SchemaError(Exception):
    """This release must not migrate this database; the message says why, and what to do."""


class Migration(NamedTuple):
    """The schema's revision before and after; None is an empty database."""

    before: str | None
    after: str | None


def migrate(settings: Settings, *, contract: bool = False) -> Migration:
    """Upgrade the schema, then apply `migrations/grants.sql`, in one transaction. Idempotent.

    What only adds is run up to the first revision that removes (a contract), since an earlier release may be serving;
    with `contract`, and on an empty database, everything is. A schema of a later release is left as it is.

    Raises SchemaError, MigrationError, asyncpg.PostgresError or OSError; nothing was changed then.
    """
    return asyncio.run(_migrate(settings.database_url.get_secret_value(), contract=contract))


async def _migrate(url: str, *, contract: bool) -> Migration:
    """Do what has to be done. A switch waits for it, and mostly there is nothing to upgrade."""
    connection = await connect(url)
    try:
        async with connection.transaction():
            await connection.execute(LOCK)
            revision, mark = await schema.read(connection)
            if revision == schema.NEWEST:
                await connection.execute(_grants())
                return Migration(revision, revision)
            if revision is not None and revision > schema.NEWEST:
                if fault := schema.judge(revision, mark):
                    raise SchemaError(fault)
                # The rights stay as well: they are those of a later release, which may be serving.
                return Migration(revision, revision)
    finally:
        await connection.close()
    # Alembic takes longer to load than all of the above takes.
    from molam_webhook.upgrade import upgrade

    return await upgrade(lambda: connect(url), _grants(), contract=contract)


async def connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    """Open a connection that gives up in time."""
    return await asyncpg.connect(
        url,
        server_settings={
            "application_name": "molam-webhook-migrate",
            "lock_timeout": LOCK_TIMEOUT,
            "statement_timeout": STATEMENT_TIMEOUT,
        },
    )


def _grants() -> str:
    return resources.files("molam_webhook").joinpath("migrations", "grants.sql").read_text(encoding="utf-8")
