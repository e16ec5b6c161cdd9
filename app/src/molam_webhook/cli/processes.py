"""The processes: `serve` and `worker`."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from molam_webhook import logs, sentry
from molam_webhook.cli.output import S, load
from molam_webhook.config import ReceiverSettings, WorkerSettings
from molam_webhook.logs import logger

admin_option = click.option(
    "--admin-uds",
    type=click.Path(path_type=Path),
    help="Unix socket (mode 0660) for /health, /livez, /readyz and /metrics.  [default: MOLAM_ADMIN_UDS]",
)


@click.command()
@click.option("--uds", type=click.Path(path_type=Path), help="Unix socket to listen on (mode 0660).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address, without --uds.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port, without --uds.")
@admin_option
def serve(uds: Path | None, host: str, port: int, admin_uds: Path | None) -> None:
    """Serve the webhook endpoint and /health until stopped."""
    settings = _with_admin(load(ReceiverSettings), admin_uds)
    # Imported where it is used: each command starts with no more than it needs.
    from molam_webhook.serve import serve as run

    with _telling("receiver_failed"):
        run(settings, uds=uds, host=host, port=port)


@click.command()
@admin_option
def worker(admin_uds: Path | None) -> None:
    """Act on stored events until stopped."""
    settings = _with_admin(load(WorkerSettings), admin_uds)
    logs.configure(settings.log_level)
    with _telling("worker_failed"):
        asyncio.run(_work(settings))


async def _work(settings: WorkerSettings) -> None:
    from molam_webhook import admin
    from molam_webhook.backlog import Monitor
    from molam_webhook.health import Health
    from molam_webhook.worker import Worker

    sentry.start(settings)
    monitor = Monitor(settings.database_url.get_secret_value())
    health = Health(settings.open_cache(), monitor.works, monitor.connect)
    async with admin.serving(settings.molam_admin_uds, health, monitor.refresh):
        await Worker(settings, on_stop=health.drain).run()


@contextlib.contextmanager
def _telling(event: str) -> Iterator[None]:
    """Log as `event`, and report, what would end the process as a traceback; it ends with status 1."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        # Some libraries raise what is no Exception (a panic in Rust).
        logger.error(event, **logs.describe_end(error))
        raise SystemExit(1) from None
    finally:
        sentry.stop()


def _with_admin(settings: S, admin_uds: Path | None) -> S:
    return settings if admin_uds is None else settings.model_copy(update={"molam_admin_uds": admin_uds})
