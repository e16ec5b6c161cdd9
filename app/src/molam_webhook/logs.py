"""Logs: one JSON object a line on standard output, for our own events and for the libraries' alike.

Values that come from strangers are cut to a length; JSON's escapes keep them from breaking the line.
"""

import asyncio
import logging
import logging.config
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

MAX_TEXT_CHARACTERS = 512

# A value whose length has a bound.
Plain: TypeAlias = str | int | float | None

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


def write_soon(event: str, fields: dict[str, Plain]) -> None:
    """Log at level info as `logger.info` does, for what is logged with every request: at a tenth of the cost.

    The caller bounds the values (`plain`). Lines are written together when the event loop's turn ends.
    """
    if logger.is_enabled_for(logging.INFO):
        line = {"event": event, **fields, "level": "info", "time": datetime.now(UTC)}
        sys.stdout.buffer.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))
        _flush_soon()


def plain(value: object) -> Plain:
    """What is logged of a value that comes from strangers: text is cut, and a structure, which has no bound, is named
    by its type.
    """
    if isinstance(value, str):
        return value[:MAX_TEXT_CHARACTERS]
    return value if value is None or isinstance(value, int | float) else type(value).__name__


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
    """An exception as log fields, with the first line of what it says: the next ones quote values (a database's DETAIL,
    a validator's inputs).
    """
    message = next(iter(str(error).splitlines()), "")[:MAX_TEXT_CHARACTERS]
    return {"error": type(error).__name__, "message": message, "sqlstate": getattr(error, "sqlstate", None)}


def describe_end(error: BaseException) -> dict[str, str | None]:
    """The exception that ends a process as log fields: as `describe` does, with where it was raised, the innermost call
    first. Of a group's exceptions the first is told: the others follow from it.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    stack = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return describe(error) | {"stack": stack}


_flushing: asyncio.Handle | None = None


def _flush_soon() -> None:
    global _flushing
    if _flushing is None:
        _flushing = asyncio.get_running_loop().call_soon(_flush)


def _flush() -> None:
    global _flushing
    _flushing = None
    sys.stdout.buffer.flush()


def _cut(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        event[name] = plain(value)
    return event


def _serialise(event: EventDict, **_: object) -> bytes:
    return orjson.dumps(event)
