"""Handlers: what acts on an event, over the database. Ours is `orders`; a merchant's own come from packages of theirs.

A handler is an async function of a connection, an event and the time at which it was received, or a class whose
instances are such functions (one is made, with no arguments). All handlers of an event run in one transaction, which
commits their effects and the event's done mark together, or nothing. See docs/handlers.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeAlias

from molam_webhook.event import Event

if TYPE_CHECKING:
    # The configuration reads handlers, and connections read the configuration.
    from molam_webhook.database import Connection

GROUP = "molam_webhook.handlers"

Handler: TypeAlias = "Callable[[Connection, Event, datetime], Awaitable[None]]"

_OURS = (EntryPoint("orders", "molam_webhook.orders:apply", GROUP),)


class Unprocessable(Exception):
    """The event itself is at fault, and trying again cannot mend it: it is parked as dead at once."""


class TryLater(Exception):
    """The event cannot be acted on yet: it is tried again, and not before `seconds` have passed."""

    def __init__(self, reason: str, seconds: float | str = 0.0) -> None:
        super().__init__(reason)
        # A header's text will do.
        self.seconds = float(seconds)


class Handlers:
    """Handlers by name, in the order in which they act on an event."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = dict(handlers)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def __str__(self) -> str:
        """The names, as the setting gives them."""
        return ",".join(self._handlers)


def load(names: str) -> Handlers:
    """Import the handlers of a comma-separated list, in its order. Raises ValueError with every fault."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    installed = [*_OURS, *entry_points(group=GROUP)]
    faults: list[str] = []
    handlers: dict[str, Handler] = {}
    for name in dict.fromkeys(wanted):
        found = [point for point in installed if point.name == name]
        try:
            if wanted.count(name) > 1:
                raise ValueError(f"names {name!r} twice")
            handlers[name] = _import(name, found, installed)
        except ValueError as fault:
            faults.append(str(fault))
    if faults:
        raise ValueError("; ".join(faults))
    return Handlers(handlers)


def _import(name: str, found: list[EntryPoint], installed: list[EntryPoint]) -> Handler:
    if not found:
        there = ", ".join(sorted({point.name for point in installed}))
        raise ValueError(f"there is no handler {name!r}; installed are: {there}")
    if len(found) > 1:
        raise ValueError(f"there is more than one handler {name!r}: {', '.join(point.value for point in found)}")
    try:
        loaded = found[0].load()
        handler: Handler = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:
        # Code that is not ours may raise anything while it is imported.
        raise ValueError(f"handler {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not _is_async(handler):
        raise ValueError(f"handler {name!r} is not an async function, nor a class of such")
    return handler


def _is_async(function: object) -> bool:
    return any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None))))  # noqa: B004  its kind is asked
