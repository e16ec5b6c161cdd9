"""What the log says of an error: enough to know what happened, and no more."""

import json
import logging
import sys

import pytest
from molam_webhook import logs
from molam_webhook.logs import MAX_TEXT_CHARACTERS, JsonFormatter
from support import query

PRIVATE = "card-4242-of-a-customer"


def undecodable() -> UnicodeDecodeError:
    with pytest.raises(UnicodeDecodeError) as caught:
        f"{PRIVATE}é".encode("latin-1").decode()
    return caught.value


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no amount"), "no amount"),
        (TimeoutError(), ""),
        (KeyError("metadata"), "'metadata'"),
        (FileNotFoundError(2, "No such file or directory", "/etc/x"), "[Errno 2] No such file or directory: '/etc/x'"),
        (undecodable(), "'utf-8' codec can't decode byte 0xe9 in position 23: unexpected end of data"),
        (ExceptionGroup("two lanes ended", [OSError(), OSError()]), "two lanes ended (2 sub-exceptions)"),
        (ValueError(f"1 validation error\n  amount: {PRIVATE}"), "1 validation error"),
        (ValueError("x" * 100_000), "x" * MAX_TEXT_CHARACTERS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_what_its_first_line_says(error: Exception, message: str) -> None:
    assert logs.describe(error) == {"error": type(error).__name__, "message": message, "sqlstate": None}


@pytest.mark.database
def test_the_row_that_the_database_quotes_is_not_told(url: str) -> None:
    with pytest.raises(Exception, match=PRIVATE) as caught:
        query(url, "INSERT INTO event_ids SELECT $1, sha256('') FROM generate_series(1, 2)", PRIVATE)
    assert logs.describe(caught.value) == {
        "error": "UniqueViolationError",
        "message": 'duplicate key value violates unique constraint "event_ids_pkey"',
        "sqlstate": "23505",
    }


def test_a_librarys_line_has_its_error() -> None:
    try:
        raise ValueError("x" * 100_000)
    except ValueError:
        record = logging.LogRecord("library", logging.ERROR, "", 1, "it failed", None, sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert line | {"time": ""} == {
        "time": "",
        "level": "error",
        "event": "it failed",
        "logger": "library",
        "error": "ValueError",
        "message": "x" * MAX_TEXT_CHARACTERS,
        "sqlstate": None,
    }
