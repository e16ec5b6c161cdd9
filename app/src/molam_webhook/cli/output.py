"""What every command prints, and how it ends when it cannot do its work."""

import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import click
import orjson

from molam_webhook.config import ConfigError, Settings

S = TypeVar("S", bound=Settings)
T = TypeVar("T")

# One wide cell must not break the lines of all.
CELL_CHARACTERS = 100

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def load(settings: type[S]) -> S:
    """Read the settings; exits 78 with every fault where they cannot be used."""
    try:
        return settings.load()
    except ConfigError as error:
        click.echo("The configuration cannot be used:", err=True)
        for fault in error.faults:
            click.echo(f"  {fault}", err=True)
        raise SystemExit(os.EX_CONFIG) from None


def ask_database(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; exits 1 with a sentence where the database cannot be asked."""
    from asyncpg import InsufficientPrivilegeError

    from molam_webhook import database

    try:
        return asyncio.run(work)
    except InsufficientPrivilegeError as error:
        fail(f"This database role may not do that: {first_line(error)}.")
    except database.ERRORS as error:
        fail(f"The database cannot be asked: {first_line(error)}")


def fail(*sentences: str) -> NoReturn:
    """Print the sentences on standard error, one a line, and exit 1."""
    for sentence in sentences:
        click.echo(safe(sentence), err=True)
    raise SystemExit(1)


def first_line(error: Exception) -> str:
    """The first line of what the exception says."""
    return (str(error) or type(error).__name__).splitlines()[0]


def print_json(value: object) -> None:
    """Print one line of JSON."""
    click.echo(orjson.dumps(value))


def print_rows(rows: Mapping[str, Any]) -> None:
    """Print one thing: a line for each of its parts."""
    width = max(map(len, rows))
    for name, value in rows.items():
        click.echo(f"{name:<{width}}  {safe(value)}")


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print many things of one shape: a line for each, under the names of their parts."""
    # Imported where it is used: each command starts with no more than it needs.
    from tabulate import tabulate

    cells = [[_cell(value) for value in row.values()] for row in rows]
    click.echo(tabulate(cells, headers=list(rows[0]), tablefmt="plain", disable_numparse=True))


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    text = safe(value)
    return text if len(text) <= CELL_CHARACTERS else f"{text[: CELL_CHARACTERS - 1]}…"


def safe(value: object) -> str:
    """Text for a terminal: what strangers sent must not steer it. None is a dash."""
    text = "-" if value is None else str(value)
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
