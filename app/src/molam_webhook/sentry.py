"""Error reports to Sentry, where SENTRY_DSN is set: what failed and where, never what was sent to us.

A report has the log line's name, those of its fields that name things (_FIELDS), and the stack without variables
or values. What an exception says may quote a payload, so that it stays in the host's own log; the request's and the
event's id in the report find it there.
"""

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from molam_webhook import __version__
from molam_webhook.config import Settings

if TYPE_CHECKING:
    from sentry_sdk.types import Event

# An outage is thousands of the same error a second: one report a minute says as much.
PAUSE_SECONDS = 60.0
FLUSH_SECONDS = 2.0

_FIELDS = ("outcome", "error", "sqlstate", "request_id", "event_id", "event_type", "kid", "attempts")
_KIND = ("event", "outcome", "error", "sqlstate")


def start(settings: Settings) -> None:
    """Report this process's errors from now on; does nothing without SENTRY_DSN. Call after `logs.configure`."""
    if settings.sentry_dsn is None:
        return
    # Imported where it is used: most hosts have no Sentry, and it is large.
    import sentry_sdk

    sentry_sdk.init(
        settings.sentry_dsn.get_secret_value(),
        release=f"molam-webhook@{__version__}",
        environment=settings.molam_environment,
        # The SDK's own integrations attach requests, arguments, log texts and queries.
        default_integrations=False,
        auto_enabling_integrations=False,
        max_request_body_size="never",
        include_local_variables=False,
        include_source_context=False,
        max_breadcrumbs=0,
        auto_session_tracking=False,
        send_client_reports=False,
        enable_metrics=False,
    )
    reporter = Reporter()
    # In place: loggers that were used already hold this very list.
    structlog.get_config()["processors"].insert(0, reporter.on_line)
    logging.getLogger().addHandler(reporter)


def stop() -> None:
    """Send what is still queued, for FLUSH_SECONDS at most."""
    if "sentry_sdk" in sys.modules:
        import sentry_sdk

        sentry_sdk.flush(FLUSH_SECONDS)


class Reporter(logging.Handler):
    """Reports our own log lines (structlog) and the libraries' (logging) of level error and above."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._reported_at: dict[tuple[object, ...], float] = {}

    def on_line(self, _logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
        """Report one of our own lines, as a structlog processor; the line itself goes on as it is."""
        if method in ("error", "critical", "exception"):
            fields = {name: line[name] for name in _FIELDS if line.get(name) is not None}
            self._report(tuple(line.get(name) for name in _KIND), str(line.get("event")), fields, sys.exc_info()[1])
        return line

    def emit(self, record: logging.LogRecord) -> None:
        """Report a library's line: its logger and its message before values are put in."""
        error = record.exc_info[1] if record.exc_info else None
        message = f"{record.name}: {record.msg if record.args else 'see the log'}"
        kind = (record.name, record.lineno, type(error))
        self._report(kind, message, {}, error)

    def _report(
        self, kind: tuple[object, ...], message: str, fields: dict[str, Any], error: BaseException | None
    ) -> None:
        now = time.monotonic()
        if now - self._reported_at.get(kind, -PAUSE_SECONDS) < PAUSE_SECONDS:
            return
        self._reported_at[kind] = now
        import sentry_sdk
        from sentry_sdk.utils import event_from_exception

        event: Event = {}
        if error is not None:
            event, _ = event_from_exception(error, client_options=sentry_sdk.get_client().options)
            for value in event["exception"]["values"]:
                value["value"] = ""
        event |= {
            "level": "error",
            "message": message,
            "tags": {name: str(value) for name, value in fields.items()},
            "fingerprint": [str(part) for part in kind],
        }
        sentry_sdk.capture_event(event)
