"""Options, and kinds of values, that several commands take."""

import re
import ssl
from datetime import UTC, datetime, timedelta

import click

_AGE = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Age(click.ParamType[timedelta]):
    """A length of time such as 90s, 15m, 2h or 400d."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it; anything else is wrong usage."""
        if isinstance(value, timedelta):
            return value
        match = _AGE.fullmatch(str(value))
        if match is None:
            self.fail("must be like 90s, 15m, 2h or 400d", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


class Time(click.ParamType[datetime]):
    """A moment: ISO such as 2026-01-31T10:00 (UTC where it names no zone), or how long ago, such as 2h."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it; anything else is wrong usage."""
        if isinstance(value, datetime):
            return value
        if _AGE.fullmatch(str(value)):
            return datetime.now(UTC) - Age().convert(value, param, ctx)
        try:
            time = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail("must be like 2026-01-31T10:00 (UTC) or 2h (ago)", param, ctx)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


class Url(click.ParamType[str]):
    """Address of a web page."""

    name = "url"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check how it begins; anything else is wrong usage."""
        text = str(value)
        if not text.startswith(("http://", "https://")):
            self.fail("must begin with http:// or https://", param, ctx)
        return text


class Endpoint(click.ParamType[str]):
    """Where to connect."""

    name = "endpoint"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it; anything else is wrong usage."""
        text = str(value)
        host, _, port = text.rpartition(":")
        if not text.startswith("unix:/") and not (host and port.isdecimal() and 0 < int(port) < 65536):
            self.fail("must be HOST:PORT or unix:/PATH", param, ctx)
        return text


class Roots(click.ParamType[ssl.SSLContext]):
    """Certificates of CAs (PEM), as what trusts them and nobody else; - is standard input."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ssl.SSLContext:
        """Read the file; one without such a certificate is wrong usage."""
        if isinstance(value, ssl.SSLContext):
            return value
        with click.File(encoding="ascii", errors="ignore").convert(str(value), param, ctx) as file:
            text = file.read()
        try:
            # No text at all would mean the system's list.
            return ssl.create_default_context(cadata=text or "none")
        except ssl.SSLError:
            self.fail(f"{value} holds no CA certificate (PEM)", param, ctx)


connect_to_option = click.option(
    "--connect-to",
    type=Endpoint(),
    metavar="HOST:PORT|unix:PATH",
    help="Connect here; name and certificate stay those of --url.",
)
cacert_option = click.option(
    "--cacert", "trust", type=Roots(), help="CA certificates to trust instead of the system's; - for standard input."
)
