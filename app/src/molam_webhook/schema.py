"""Which revisions of the database's schema this release works with.

A revision adds (`kind = "expand"`) or removes (`kind = "contract"`). What was only added to is fit for earlier releases
too: they may serve while it is migrated, and be gone back to. A contract leaves behind the releases that do not know
it, so the database says which contract it saw last, in the comment on `alembic_version`.
"""

import re

import asyncpg

from molam_webhook.database import Connection

# The revision that this release cannot do without, and the last one that it brings.
OLDEST = "0003"
NEWEST = "0003"

_READ = "SELECT version_num, obj_description('alembic_version'::regclass) FROM alembic_version"


async def fault(connection: Connection) -> str | None:
    """Why this release does not work with the database's schema, and what to do; None where it does.

    Raises asyncpg.PostgresError where the schema cannot be read.
    """
    return judge(*await read(connection))


async def read(connection: Connection) -> tuple[str | None, str | None]:
    """Return the schema's revision, None of an empty database, and the comment that `mark` wrote.

    Raises asyncpg.PostgresError where they cannot be read.
    """
    try:
        # Of its own, so that whoever asks within a transaction can go on with it.
        async with connection.transaction():
            row = await connection.fetchrow(_READ)
    except asyncpg.UndefinedTableError:
        row = None
    return (None, None) if row is None else (row[0], row[1])


def judge(revision: str | None, mark: str | None) -> str | None:
    """Say the same as `fault` of what `read` returned."""
    if revision is None:
        return "the database is empty: run 'molam-webhook migrate'"
    contract = re.search(r"[0-9]{4}", mark or "")
    if contract and contract[0] > NEWEST:
        return (
            f"revision {contract[0]} took away what this release uses, which knows {NEWEST} at the most: "
            "use the release that ran 'molam-webhook migrate --contract', or a later one"
        )
    if revision < OLDEST:
        return f"the schema is at revision {revision}, and this release needs {OLDEST}: run 'molam-webhook migrate'"
    return None


def mark(contract: str) -> str:
    """The comment on `alembic_version` after a contract: for people who look at the table, and for `judge`."""
    return f"Releases that do not know revision {contract} no longer work with this schema."
