"""Logs: one JSON object a line on standard output, for our own events and for the libraries' alike.

Values that come from strangers are cut to a length; JSON's escapes keep them from breaking the line.
"""

import logging
import logging.config
import sys
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

MAX_TEXT_CHARACTERS = 512

logger: FilteringBoundLogger = structlog.get_logger()


class JsonFormatter(logging.Formatter):
    """Formats the standard library's records (the server's, the drivers') like ours."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON: time, level, the logger's name and the message, with the exception's last line
        if any.
        """
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage()[:MAX_TEXT_CHARACTERS],
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[1]:
            line |= describe(record.exc_info[1])
        return orjson.dumps(line, default=str).decode()


def configure(level: str) -> None:
    """Set up logging for this process at `level` (debug, info, warning, error or critical)."""
    logging.config.dictConfig(standard_library(level))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", key="time"),
            _cut,
            structlog.processors.JSONRenderer(serializer=_serialise),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )


def standard_library(level: str) -> dict[str, Any]:
    """Configuration for `logging.config.dictConfig`: everything as JSON; libraries speak from warning
    upwards.
    """
    threshold = level.upper() if level in ("error", "critical") else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
        "root": {"handlers": ["stdout"], "level": threshold},
        "loggers": {},
    }


def describe(error: BaseException) -> dict[str, str | None]:
    """An exception as log fields. The database's DETAIL is left out: it quotes rows."""
    message = str(error) if isinstance(error, OSError) or not error.args else str(error.args[0])
    return {"error": type(error).__name__, "message": message, "sqlstate": getattr(error, "sqlstate", None)}


def _cut(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = value[:MAX_TEXT_CHARACTERS]
        elif value is not None and not isinstance(value, int | float):
            # Only plain values are logged: a structure from a stranger has no bound.
            event[name] = type(value).__name__
    return event


def _serialise(event: EventDict, **_: object) -> bytes:
    return orjson.dumps(event)
