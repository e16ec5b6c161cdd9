"""The command line, `molam-webhook`.

Exit status: 0 done, 1 it did not work, 2 wrong usage, 78 (EX_CONFIG) wrong configuration.
"""

import asyncio
import os
import secrets
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import orjson

from molam_webhook import __version__, logs
from molam_webhook.config import AllSettings, ConfigError, ReceiverSettings, Settings, WorkerSettings

S = TypeVar("S", bound=Settings)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="molam-webhook")
def main() -> None:
    """Receive signed Molam payment webhooks: verify each, store it once, apply it to its order.

    Settings come from the environment, or from files of the same names (in lower case) in
    $CREDENTIALS_DIRECTORY.
    """


@main.command()
@click.option("--uds", type=click.Path(path_type=Path), help="Unix socket to listen on (mode 0660).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address, without --uds.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port, without --uds.")
def serve(uds: Path | None, host: str, port: int) -> None:
    """Serve the webhook endpoint and /health until stopped."""
    settings = _load(ReceiverSettings)
    # Imported where they are used: each command starts with no more than it needs.
    from molam_webhook.serve import serve as run

    run(settings, uds=uds, host=host, port=port)


@main.command()
def worker() -> None:
    """Apply stored events to their orders until stopped."""
    settings = _load(WorkerSettings)
    from molam_webhook.worker import Worker

    logs.configure(settings.log_level)
    asyncio.run(Worker(settings).run())


@main.command()
def migrate() -> None:
    """Bring the database to this release's schema and roles' rights. Safe to repeat."""
    settings = _load(Settings)
    from asyncpg import InterfaceError, PostgresError
    from sqlalchemy.exc import SQLAlchemyError

    from molam_webhook.migrate import migrate as run

    try:
        before, after = run(settings)
    except (SQLAlchemyError, PostgresError, InterfaceError, OSError) as error:
        _fail(f"The migration failed and changed nothing: {_first_line(error)}")
    click.echo(f"{before or 'empty'} -> {after}")


@main.command("check-config")
def check_config() -> None:
    """Print each setting, its value (secrets masked) and its source; exit 78 with every fault otherwise."""
    _print_rows({name: f"{source:<11}  {value}" for name, value, source in _load(AllSettings).describe()})


@main.command()
@click.option("--url", required=True, help="The endpoint, such as https://pay.example.com/molam/webhook.")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File holding the secret; otherwise MOLAM_WEBHOOK_SECRET is used.",
)
@click.option("--kid", help="Key id to name; without it the header names none.")
@click.option("--type", "event_type", default="payment.succeeded", show_default=True, help="Event type.")
@click.option("--id", "event_id", help="Event id.  [default: a new one]")
@click.option("--payment-intent", help="Payment id.  [default: a new one]")
@click.option("--order-id", help="Order id.  [default: a new one]")
@click.option("--amount", default=5000, show_default=True, type=click.IntRange(0), help="In minor units.")
@click.option("--currency", default="XOF", show_default=True, help="Currency code.")
@click.option(
    "--cacert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CA certificate to trust instead of the system's.",
)
@click.option(
    "--connect-to",
    metavar="HOST:PORT|unix:PATH",
    callback=lambda _context, _option, value: _connect_to(value),
    help="Connect here; name and certificate stay those of --url.",
)
@click.option("--forge", is_flag=True, help="Send a wrong MAC, to see it refused.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def send(
    *,
    url: str,
    secret_file: Path | None,
    kid: str | None,
    event_type: str,
    event_id: str | None,
    payment_intent: str | None,
    order_id: str | None,
    amount: int,
    currency: str,
    cacert: Path | None,
    connect_to: str | None,
    forge: bool,
    as_json: bool,
) -> None:
    """Send one signed event, as Molam would, and report the answer. Exits 0 only on 2xx."""
    from molam_webhook.send import SendError, make_event
    from molam_webhook.send import send as run

    if not url.startswith(("http://", "https://")):
        raise click.UsageError("--url must begin with http:// or https://")
    new = uuid.uuid4().hex
    event = make_event(
        event_type,
        event_id or f"evt_{new}",
        payment_intent=payment_intent or f"pi_{new}",
        order_id=order_id or f"ord_{new}",
        amount=amount,
        currency=currency,
    )
    secret = _sender_secret(secret_file, forge=forge)
    try:
        report = run(url, event, secret, kid=kid, forge=forge, cacert=cacert, connect_to=connect_to)
    except SendError as error:
        _fail(str(error))
    if as_json:
        click.echo(orjson.dumps(asdict(report)))
    else:
        _print_rows(
            {
                "sent": f"{report.event_type} {report.event_id}" + (" (forged)" if forge else ""),
                "to": report.url,
                "kid": report.kid or "none named",
                "answer": report.status,
                "body": report.answer,
                "latency": f"{report.latency_ms} ms",
            }
        )
    if not 200 <= report.status < 300:
        raise SystemExit(1)


@main.group()
def events() -> None:
    """Look at stored events."""


@events.command()
@click.argument("event_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(event_id: str, as_json: bool) -> None:
    """Print the stored event ID and its order. Exits 1 if it was never received."""
    settings = _load(Settings)
    from molam_webhook import database
    from molam_webhook import events as stored

    try:
        found = stored.show(settings, event_id)
    except database.ERRORS as error:
        _fail(f"The database cannot be asked: {_first_line(error)}")
    if found is None:
        _fail(f"No event {event_id!r} was ever received.")
    if as_json:
        click.echo(orjson.dumps(found))
        return
    order = found.pop("order")
    _print_rows(found)
    click.echo()
    if order is None:
        click.echo("no order")
    else:
        _print_rows(order)


def _load(settings: type[S]) -> S:
    try:
        return settings.load()
    except ConfigError as error:
        click.echo("The configuration cannot be used:", err=True)
        for fault in error.faults:
            click.echo(f"  {fault}", err=True)
        raise SystemExit(os.EX_CONFIG) from None


def _fail(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    raise SystemExit(1)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _connect_to(value: str | None) -> str | None:
    if value is None or value.startswith("unix:/"):
        return value
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.BadParameter("must be HOST:PORT or unix:/PATH")
    return value


def _sender_secret(secret_file: Path | None, *, forge: bool) -> bytes:
    if secret_file is not None:
        return secret_file.read_bytes().rstrip(b"\r\n")
    if secret := os.environ.get("MOLAM_WEBHOOK_SECRET"):
        return secret.encode()
    if forge:
        return secrets.token_bytes(32)
    raise click.UsageError("set MOLAM_WEBHOOK_SECRET or give --secret-file")


def _print_rows(rows: dict[str, Any]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        text = "-" if value is None else str(value)
        # What strangers sent must not steer the terminal.
        safe = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
        click.echo(f"{name:<{width}}  {safe}")
