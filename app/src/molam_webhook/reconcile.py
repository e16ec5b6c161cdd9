"""Which acknowledged events the database does not know: the front door's log against the ids that are kept for ever.

A sender does not send again what was answered 200. Where a database was restored from a backup, what came after the
backup is known by that log alone.
"""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

import orjson

from molam_webhook.database import session
from molam_webhook.event import is_name
from molam_webhook.events import APPLICATION, PAGE
from molam_webhook.keyring import SELFTEST_KID

# More than the longest line that nginx writes: a path of 8 KiB, escaped, and an id of 3 KiB.
LINE_BYTES = 64 * 1024

_GZIP = b"\x1f\x8b"

_UNKNOWN = """
SELECT event_id FROM unnest($1::text[]) AS answered (event_id)
WHERE NOT EXISTS (SELECT FROM event_ids i WHERE i.event_id = answered.event_id)
"""


class NoLogError(ValueError):
    """A file that has lines, and none of the front door's. The text is its name."""


class Receipt(NamedTuple):
    """An event that was answered 200: accepted, or known already."""

    event_id: str
    received_at: datetime


@dataclass(slots=True)
class Reading:
    """What has been read so far: receipts (of those asked for), the earliest and the latest of them, lines that are
    damaged, and the files whose rest cannot be read.
    """

    receipts: int = 0
    first: datetime | None = None
    last: datetime | None = None
    damaged: int = 0
    broken: list[str] = field(default_factory=list)

    def count(self, receipt: Receipt) -> None:
        """Take one receipt into account."""
        self.receipts += 1
        self.first = min(self.first or receipt.received_at, receipt.received_at)
        self.last = max(self.last or receipt.received_at, receipt.received_at)


def read(
    files: Iterable[io.BufferedReader], since: datetime | None, until: datetime | None, reading: Reading
) -> Iterator[Receipt]:
    """Every receipt since then and before `until`, in the order of the files, plain or gzip; self-tests are none.

    Raises NoLogError.
    """
    for file in files:
        lines, good = 0, 0
        for line in _lines(file, reading):
            lines += 1
            try:
                receipt = _receipt(line)
            except (ValueError, KeyError, TypeError):
                continue
            good += 1
            if receipt and (not since or receipt.received_at >= since) and (not until or receipt.received_at < until):
                reading.count(receipt)
                yield receipt
        if lines and not good:
            raise NoLogError(file.name)
        reading.damaged += lines - good


async def missing(url: str, receipts: Iterator[Receipt]) -> list[Receipt]:
    """Those whose event the database does not know, each event once, by its first receipt and in the order of these.

    Memory is taken for what is missing, and for one page. Raises one of `database.ERRORS`.
    """
    found: dict[str, Receipt] = {}
    async with session(url, APPLICATION) as connection:
        while page := list(islice(receipts, PAGE)):
            unknown = {row["event_id"] for row in await connection.fetch(_UNKNOWN, [each.event_id for each in page])}
            for receipt in page:
                if receipt.event_id in unknown:
                    found.setdefault(receipt.event_id, receipt)
    return list(found.values())


def _lines(file: io.BufferedReader, reading: Reading) -> Iterator[bytes]:
    """Lines of LINE_BYTES at most, as far as the file can be read."""
    plain = file if file.peek(len(_GZIP))[: len(_GZIP)] != _GZIP else gzip.GzipFile(fileobj=file)
    try:
        while line := plain.readline(LINE_BYTES):
            yield line
    except (EOFError, OSError, zlib.error):
        reading.broken.append(file.name)


def _receipt(line: bytes) -> Receipt | None:
    """Read one line; None where it is no receipt of the sender's. Raises ValueError, KeyError or TypeError where it is
    damaged.
    """
    fields = orjson.loads(line)
    event_id, received_at = unquote(fields["event_id"]), datetime.fromisoformat(fields["time"])
    # Lines of an earlier release name no kid.
    if fields["status"] != 200 or not event_id or fields.get("kid") == SELFTEST_KID:
        return None
    if not is_name(event_id) or received_at.tzinfo is None:
        raise ValueError(line)
    return Receipt(event_id, received_at)
