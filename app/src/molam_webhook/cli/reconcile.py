"""Acknowledged events that the database does not know: `events reconcile`."""

import io
from datetime import datetime

import click

from molam_webhook.cli.events import since_option, until_option
from molam_webhook.cli.output import as_json_option, ask_database, load, print_json, print_table, safe
from molam_webhook.config import Settings


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.File("rb"))
@since_option
@until_option
@click.option("--ids", "ids_only", is_flag=True, help="Print the ids alone, one a line.")
@as_json_option
def reconcile(
    files: tuple[io.BufferedReader, ...],
    since: datetime | None,
    until: datetime | None,
    ids_only: bool,
    as_json: bool,
) -> None:
    """Print the events that were answered 200 and are not in the database, by the front door's log.

    After a restore these are the ones to ask the sender for: it does not send them again by itself. FILE is nginx's
    log, plain or gzip; - is standard input. Self-tests are left out. An event is in the database before its line is in
    the log, so this may run at any time. Exits 1 where one is missing.
    """
    if ids_only and as_json:
        raise click.UsageError("give --ids or --json, one of them")
    url = load(Settings).database_url.get_secret_value()
    from molam_webhook.reconcile import NoLogError, Reading, missing, read

    reading = Reading()
    try:
        found = ask_database(missing(url, read(files, since, until, reading)))
    except NoLogError as error:
        raise click.BadParameter(f"{error} is not the log of the front door", param_hint="FILE") from None
    rows = [{"received_at": receipt.received_at, "event_id": receipt.event_id} for receipt in found]
    if as_json:
        print_json(
            {
                "missing": rows,
                "receipts": reading.receipts,
                "first_received_at": reading.first,
                "last_received_at": reading.last,
                "damaged_lines": reading.damaged,
                "broken_files": reading.broken,
            }
        )
    elif ids_only:
        for receipt in found:
            click.echo(safe(receipt.event_id))
    elif rows:
        print_table(rows)
    if reading.damaged:
        click.echo(f"Damaged lines, passed over: {reading.damaged}.", err=True)
    for name in reading.broken:
        click.echo(f"{safe(name)} breaks off: what comes after cannot be read.", err=True)
    span = f", from {reading.first} to {reading.last}" if reading.receipts else ""
    click.echo(
        f"{reading.receipts} answers of 200 to the sender's events{span}: {len(found)} events are missing.", err=True
    )
    if found:
        raise SystemExit(1)
