"""Kinds of values that several commands take."""

import re
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
