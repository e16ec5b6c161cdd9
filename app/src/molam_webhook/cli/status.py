"""`status`: what a person looks at first."""

import asyncio
from dataclasses import asdict
from pathlib import Path

import click

from molam_webhook import __version__
from molam_webhook.cli.output import as_json_option, load, print_json, print_rows, print_table, safe
from molam_webhook.config import Settings

# Where the units keep the sockets (--admin-uds).
SOCKETS = Path("/run/molam-webhook-admin")


class StatusSettings(Settings):
    """What `status` reads besides: where events are forwarded to, if anywhere. The secret is the worker's alone."""

    molam_forward_url: str = ""


@click.command()
@click.option(
    "--sockets",
    type=click.Path(file_okay=False, path_type=Path),
    default=SOCKETS,
    show_default=True,
    help="Directory of the admin sockets, named receiver*.sock and worker*.sock.",
)
@as_json_option
def status(sockets: Path, as_json: bool) -> None:
    """Say how everything is, on one screen, and what to do next where something is off.

    Exits 0 when all is well, 1 when something is off.
    """
    settings = load(StatusSettings)
    from molam_webhook.status import duration, look

    url, forwarding = settings.database_url.get_secret_value(), bool(settings.molam_forward_url)
    seen = asyncio.run(look(url, sockets, forwarding=forwarding))
    good = not seen.faults
    if as_json:
        faults = [fault._asdict() for fault in seen.faults]
        print_json({"good": good, "release": __version__} | asdict(seen) | {"faults": faults})
    else:
        click.echo(
            f"molam-webhook {__version__}, {settings.molam_environment}: {'all is well' if good else 'NOT WELL'}\n"
        )
        if seen.processes:
            print_table(
                [
                    {
                        "process": process.name,
                        "state": "ready" if process.ready else process.reason,
                        "release": process.release,
                        "up": process.uptime_seconds and duration(process.uptime_seconds),
                        "database": process.database,
                        "cache": process.cache,
                    }
                    for process in seen.processes
                ]
            )
        else:
            click.echo(f"No process has a socket in {sockets}.")
        if seen.backlog is not None:
            click.echo()
            waiting = seen.backlog
            print_rows(
                {
                    "waiting": f"{waiting.pending}, the oldest for {duration(waiting.oldest_pending_seconds)}",
                    "in hand": waiting.leased,
                    "given up": waiting.dead,
                    "forwards": f"{waiting.pending_forwards}, the oldest for "
                    f"{duration(waiting.oldest_pending_forward_seconds)}; {waiting.dead_forwards} given up",
                    "conflicts": f"{waiting.conflicts}, {waiting.recent_conflicts} of them today",
                }
            )
        if seen.last_events:
            click.echo("\nLast events:")
            shown = ("received_at", "event_id", "event_type", "state", "forward")
            print_table([{name: row[name] for name in shown} for row in seen.last_events])
        for fault in seen.faults:
            click.echo(f"\n{safe(fault.what)}\n  next: {fault.next}")
    if not good:
        raise SystemExit(1)
