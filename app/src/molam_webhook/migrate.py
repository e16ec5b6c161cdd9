"""Bringing the database to this release's schema, and its roles to their rights."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import NamedTuple

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from molam_webhook import schema
from molam_webhook.config import Settings

# A migration that cannot have its lock soon gives up, rather than queue every delivery behind it.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "300s"

# Any constant of our own will do: it keeps two migrations of one database apart.
_LOCK_KEY = 7_061_708_495

_SCRIPTS = "molam_webhook:migrations"


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

    Raises SchemaError, asyncpg.PostgresError, sqlalchemy.exc.SQLAlchemyError or OSError; nothing was changed then.
    """
    return asyncio.run(_migrate(settings.database_url.get_secret_value(), contract=contract))


async def _migrate(url: str, *, contract: bool) -> Migration:
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
        return await connection.run_sync(_upgrade, contract=contract)


def _upgrade(connection: Connection, *, contract: bool) -> Migration:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    before = MigrationContext.configure(connection).get_current_revision()
    if before is not None and before > schema.NEWEST:
        mark = connection.execute(text("SELECT obj_description('alembic_version'::regclass)")).scalar()
        if fault := schema.judge(before, mark):
            raise SchemaError(fault)
        # The rights stay as well: they are those of a later release, which may be serving.
        return Migration(before, before)
    target, contracted = _plan(ScriptDirectory.from_config(config), before, contract=contract or before is None)
    command.upgrade(config, target)
    if contracted is not None:
        connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS '{schema.mark(contracted)}'")
    connection.exec_driver_sql(_grants())
    return Migration(before, target)


def _plan(scripts: ScriptDirectory, before: str | None, *, contract: bool) -> tuple[str, str | None]:
    """The revision to go to, and the last contract on the way, if any. Raises SchemaError where that is not enough."""
    target, contracted, waiting = before or "base", None, None
    for script in reversed(list(scripts.iterate_revisions("head", target))):
        if script.module.kind == "contract":
            if not contract:
                waiting = script.revision
                break
            contracted = script.revision
        target = script.revision
    if waiting is not None and target < schema.OLDEST:
        raise SchemaError(
            f"revision {waiting} takes away what earlier releases use, and this release needs what comes after it: "
            "when no earlier release runs any more, run 'molam-webhook migrate --contract'"
        )
    return target, contracted


def _grants() -> str:
    return resources.files("molam_webhook").joinpath("migrations", "grants.sql").read_text(encoding="utf-8")
