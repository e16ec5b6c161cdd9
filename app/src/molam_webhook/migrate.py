"""Bringing the database to this release's schema, and its roles to their rights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
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
    return asyncio.run(_in_transaction(settings, partial(_upgrade, contract=contract)))


def check(settings: Settings, *, contract: bool = False) -> Migration:
    """What `migrate` would do, with nothing changed and no table locked. Raises the same."""
    return asyncio.run(_in_transaction(settings, partial(_check, contract=contract)))


async def _in_transaction(settings: Settings, work: Callable[[Connection], Migration]) -> Migration:
    url = settings.database_url.get_secret_value()

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
        return await connection.run_sync(work)


def _check(connection: Connection, *, contract: bool) -> Migration:
    plan = _plan(connection, _config(connection), contract=contract)
    return Migration(plan.before, plan.target)


def _upgrade(connection: Connection, *, contract: bool) -> Migration:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    config = _config(connection)
    plan = _plan(connection, config, contract=contract)
    # Of a later release's schema the rights stay as well: they are those of a release which may be serving.
    if plan.target is not None and plan.target <= schema.NEWEST:
        command.upgrade(config, plan.target)
        if plan.contracted is not None:
            connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS '{schema.mark(plan.contracted)}'")
        connection.exec_driver_sql(_grants())
    return Migration(plan.before, plan.target)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    return config


class _Plan(NamedTuple):
    before: str | None
    target: str | None
    # The last revision on the way that takes something away.
    contracted: str | None


def _plan(connection: Connection, config: Config, *, contract: bool) -> _Plan:
    """From which revision to which. Raises SchemaError where this release must not, or that is not enough."""
    before = MigrationContext.configure(connection).get_current_revision()
    if before is not None and before > schema.NEWEST:
        mark = connection.execute(text("SELECT obj_description('alembic_version'::regclass)")).scalar()
        if fault := schema.judge(before, mark):
            raise SchemaError(fault)
        return _Plan(before, before, None)
    target, contracted, waiting = before, None, None
    for script in reversed(list(ScriptDirectory.from_config(config).iterate_revisions("head", before or "base"))):
        if script.module.kind == "contract":
            # Nothing serves from an empty database.
            if not contract and before is not None:
                waiting = script.revision
                break
            contracted = script.revision
        target = script.revision
    if waiting is not None and (target or "") < schema.OLDEST:
        raise SchemaError(
            f"revision {waiting} takes away what earlier releases use, and this release needs what comes after it: "
            "when no earlier release runs any more, run 'molam-webhook migrate --contract'"
        )
    return _Plan(before, target, contracted)


def _grants() -> str:
    return resources.files("molam_webhook").joinpath("migrations", "grants.sql").read_text(encoding="utf-8")
