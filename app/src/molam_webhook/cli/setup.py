"""What a deployment asks: `migrate` and `check-config`."""

import click

from molam_webhook.cli.output import fail, first_line, load, print_rows
from molam_webhook.config import AllSettings, Settings


@click.command()
@click.option(
    "--contract", is_flag=True, help="Remove too what earlier releases need: there is no way back to them after it."
)
def migrate(*, contract: bool) -> None:
    """Bring the database to this release's schema and roles' rights. Safe to repeat."""
    settings = load(Settings)
    from asyncpg import InterfaceError, PostgresError

    from molam_webhook.migrate import MigrationError, SchemaError
    from molam_webhook.migrate import migrate as run

    try:
        before, after = run(settings, contract=contract)
    except SchemaError as error:
        fail(str(error))
    except (MigrationError, PostgresError, InterfaceError, OSError) as error:
        fail(f"The migration failed and changed nothing: {first_line(error)}")
    click.echo(f"{before or 'empty'} -> {after}")


@click.command("check-config")
def check_config() -> None:
    """Print each setting, its value (secrets masked) and its source; exit 78 with every fault otherwise."""
    print_rows({name: f"{source:<11}  {value}" for name, value, source in load(AllSettings).describe()})
