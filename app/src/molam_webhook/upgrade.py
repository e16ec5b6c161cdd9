"""Running the revisions of the schema that this release brings, with Alembic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from molam_webhook import schema
from molam_webhook.migrate import LOCK, Migration, MigrationError, SchemaError

SCRIPTS = "molam_webhook:migrations"

Open = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


async def upgrade(open_connection: Open, grants: str, *, contract: bool) -> Migration:
    """Upgrade a schema that lacks something of this release's, or all of it, as `migrate` says; then run `grants`.

    Raises SchemaError, MigrationError, asyncpg.PostgresError or OSError; nothing was changed then.
    """
    engine = create_async_engine("postgresql+asyncpg://", async_creator=open_connection, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(_upgrade, grants, contract=contract)
    except SQLAlchemyError as error:
        raise MigrationError(str(error)) from error


def _upgrade(connection: Connection, grants: str, *, contract: bool) -> Migration:
    connection.exec_driver_sql(LOCK)
    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    config.attributes["connection"] = connection
    before = MigrationContext.configure(connection).get_current_revision()
    target, contracted = _plan(ScriptDirectory.from_config(config), before, contract=contract or before is None)
    command.upgrade(config, target)
    if contracted is not None:
        connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS '{schema.mark(contracted)}'")
    connection.exec_driver_sql(grants)
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
