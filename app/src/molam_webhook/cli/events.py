"""Stored events: `events list | show | count | dead | retry | discard | replay | export | prune`."""

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click
import orjson

from molam_webhook.cli.options import Age, Time
from molam_webhook.cli.output import (
    as_json_option,
    ask_database,
    fail,
    load,
    print_json,
    print_rows,
    print_table,
    yes_option,
)
from molam_webhook.config import Settings

if TYPE_CHECKING:
    from molam_webhook.events import State

type_option = click.option("--type", "event_type", metavar="TYPE", help="Only events of this type.")
since_option = click.option(
    "--since", type=Time(), help="Received at this time or later: 2026-01-31T10:00 (UTC), or 2h for two hours ago."
)
until_option = click.option("--until", type=Time(), help="Received before this time.")
state_option = click.option(
    "--state",
    type=click.Choice(["pending", "done", "dead"]),
    help="pending: something is still to be done; dead: it was given up; done: all is done, or was discarded.",
)
payment_option = click.option("--payment", metavar="ID", help="Only events that name this payment.")
limit_option = click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="At most so many."
)


@click.group()
def events() -> None:
    """Look at stored events, and have them acted on again."""


@events.command("list")
@state_option
@type_option
@since_option
@until_option
@payment_option
@click.option("--conflicts", is_flag=True, help="Only events of which another body came later, rightly signed.")
@click.option(
    "--kid", "kids", multiple=True, metavar="KID", help="Only events signed with this key, or with one of several."
)
@limit_option
@as_json_option
def list_events(
    *,
    state: "State | None",
    event_type: str | None,
    since: datetime | None,
    until: datetime | None,
    payment: str | None,
    conflicts: bool,
    kids: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Print the newest events, one a line. Exits 0 also when there is none.

    "state" is what became of the handlers, "forward" of the forwarding ("-": none is to be done).
    """
    from molam_webhook.events import Filter, find

    wanted = Filter(
        state=state,
        event_type=event_type,
        since=since,
        until=until,
        payment=payment,
        conflicts=conflicts,
        kids=list(kids) or None,
    )
    found = ask_database(find(_url(), wanted, limit))
    if as_json:
        print_json(found)
    elif found:
        shown = ("received_at", "event_id", "event_type", "state", "forward", "attempts", "payment")
        print_table([{name: row[name] for name in shown} for row in found])
        if len(found) == limit:
            click.echo(f"The newest {limit}; there may be more (--limit).", err=True)
    else:
        click.echo("No such event.", err=True)


@events.command()
@click.argument("event_id", metavar="ID")
@as_json_option
def show(event_id: str, as_json: bool) -> None:
    """Print the stored event ID, its forwarding, its order and the other bodies that came under its id.

    Those are its conflicts: rightly signed, kept aside, acted on by nobody. Exits 1 if it was never received.
    """
    from molam_webhook.events import show as run

    found = ask_database(run(_url(), event_id))
    if found is None:
        fail(f"No event {event_id!r} was ever received.")
    if as_json:
        print_json(found)
        return
    parts = [(name, found.pop(name)) for name in ("forward", "order")]
    parts += [("other body", other) for other in found.pop("other_bodies")]
    print_rows(found)
    for name, part in parts:
        click.echo()
        if part is None:
            click.echo(f"no {name}")
        else:
            click.echo(f"{name}:")
            print_rows({f"  {key}": value for key, value in part.items()})


@events.command()
@click.option("--since", type=Time(), default="1d", show_default=True, help="Received at this time or later.")
@click.option("--prefix", default="", help="Only events whose ids begin so, as those of `send --prefix` do.")
@as_json_option
def count(since: datetime, prefix: str, as_json: bool) -> None:
    """Count the events of the last day, or since another time: in all, by state, and what is still to be forwarded."""
    from molam_webhook.events import tally

    found = ask_database(tally(_url(), since, prefix))
    if as_json:
        print_json(found)
    else:
        print_rows(found)


@events.command()
@type_option
@limit_option
@as_json_option
def dead(event_type: str | None, limit: int, as_json: bool) -> None:
    """Print the newest events that were given up, and why.

    Nothing is lost: each is stored, and waits for somebody to mend the reason and run `events retry`, or to decide that
    it is to rest: `events discard`.
    Exits 0 also when there is none.
    """
    from molam_webhook.events import Filter, find

    found = ask_database(find(_url(), Filter(state="dead", event_type=event_type), limit))
    rows = [
        {
            "received_at": row["received_at"],
            "event_id": row["event_id"],
            "event_type": row["event_type"],
            "given_up": part,
            "reason": row[reason],
        }
        for row in found
        for part, state, reason in (("handlers", "state", "last_error"), ("forward", "forward", "forward_error"))
        if row[state] == "dead"
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows)
        click.echo("\nMend the reason, then: molam-webhook events retry ID ... (or --all-dead)", err=True)
        click.echo("What is to rest for good: molam-webhook events discard ID ... --reason TEXT", err=True)
    else:
        click.echo("No event was given up.", err=True)


@events.command()
@click.argument("event_ids", metavar="[ID]...", nargs=-1)
@click.option("--all-dead", is_flag=True, help="Every event that was given up.")
@type_option
@yes_option
@as_json_option
def retry(event_ids: tuple[str, ...], all_dead: bool, event_type: str | None, yes: bool, as_json: bool) -> None:
    """Try events again that were given up, now, with a new count of attempts.

    What was given up is tried again and nothing else: handlers, forwarding, or both. Asks before it touches more
    than one event. Exits 1 where an ID is no event that was given up.
    """
    if bool(event_ids) == all_dead or (event_type and not all_dead):
        raise click.UsageError("give IDs, or --all-dead (with --type, if you like)")
    from molam_webhook.events import Filter, select
    from molam_webhook.requeue import retry as run

    url = _url()
    ids = None if all_dead else list(event_ids)
    found = ask_database(select(url, Filter(ids=ids, state="dead", event_type=event_type)))
    _insist(len(found), f"Try {len(found)} events again?", yes)
    count = ask_database(run(url, list(found)))
    _report({"retried": count}, f"{count} to be tried again.", as_json)
    _miss(set(event_ids) - set(found.values()), "was not given up, or never received")


@events.command()
@click.argument("event_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", required=True, metavar="TEXT", help="Why. It stays with the event.")
@yes_option
@as_json_option
def discard(event_ids: tuple[str, ...], reason: str, yes: bool, as_json: bool) -> None:
    """Let events rest for good that were given up: handlers, forwarding, or both.

    Each stays, as "discarded", with the reason. Nobody acts on it or forwards it any more, it is no longer among the
    dead, and `events prune` removes it as what is done; `events replay ID` takes it back. What is pending or done is
    left alone. Asks before it touches more than one event. Exits 1 where an ID is no event that was given up.
    """
    if not reason.strip():
        raise click.UsageError("say why, with --reason")
    from molam_webhook.events import Filter, select
    from molam_webhook.requeue import discard as run

    url = _url()
    found = ask_database(select(url, Filter(ids=list(event_ids), state="dead")))
    _insist(len(found), f"Let {len(found)} events rest for good?", yes)
    count = ask_database(run(url, list(found), reason))
    _report({"discarded": count}, f"{count} discarded.", as_json)
    _miss(set(event_ids) - set(found.values()), "was not given up, or never received")


@events.command()
@click.argument("event_ids", metavar="[ID]...", nargs=-1)
@since_option
@until_option
@type_option
@yes_option
@as_json_option
def replay(
    *,
    event_ids: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    event_type: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Act once more on events that are done: those named, or those received in a span of time.

    What that does, before you say yes:

    \b
    - orders: nothing changes where they are right; the projection may run any number of times.
    - a handler of your own: runs again. It must bear that (do the work once per event id).
    - forwarding: the event is sent again, with the same Idempotency-Key.

    Of a span, what was discarded stays so; by its ID it is taken back. Asks before it touches more than one event.
    Exits 1 where an ID is no event that is done.
    """
    if bool(event_ids) == bool(since and until) or (event_ids and (since or until or event_type)):
        raise click.UsageError("give IDs, or --since and --until (with --type, if you like)")
    from molam_webhook.events import Filter, select
    from molam_webhook.requeue import replay as run

    url = _url()
    wanted = Filter(
        ids=list(event_ids) or None,
        state="done",
        since=since,
        until=until,
        event_type=event_type,
        discarded=bool(event_ids),
    )
    found = ask_database(select(url, wanted))
    _insist(len(found), f"Act once more on {len(found)} events that are done?", yes)
    count = ask_database(run(url, list(found)))
    _report({"replayed": count}, f"{count} to be acted on once more.", as_json)
    _miss(set(event_ids) - set(found.values()), "is not done, or was never received")


@events.command()
@state_option
@type_option
@since_option
@until_option
@payment_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A new file, readable by you alone (0600).  [default: standard output]",
)
def export(
    *,
    state: "State | None",
    event_type: str | None,
    since: datetime | None,
    until: datetime | None,
    payment: str | None,
    output: Path | None,
) -> None:
    """Write events as JSON, one a line, oldest first, each with its body as it came.

    Bodies hold customers' data: treat the file accordingly. "payload" is the raw body and "signature" its header, so
    that each can be verified again.
    """
    from molam_webhook.events import Filter
    from molam_webhook.events import export as run

    wanted = Filter(state=state, event_type=event_type, since=since, until=until, payment=payment)
    url = _url()
    try:
        file = sys.stdout.buffer if output is None else _create(output)
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}.")

    async def write() -> int:
        count = 0
        async for event in run(url, wanted):
            file.write(orjson.dumps(event) + b"\n")
            count += 1
        file.flush()
        return count

    count = ask_database(write())
    click.echo(f"{count} events.", err=True)


@events.command()
@click.option("--older-than", required=True, type=Age(), help="Age since receipt, such as 400d; at least 30d.")
@yes_option
@as_json_option
def prune(older_than: timedelta, yes: bool, as_json: bool) -> None:
    """Remove the bodies of events that were done long ago.

    Events that are not done stay, and so does every id, so that a late duplicate is still known for one. What is
    removed can't be shown, replayed or exported any more: `events export --until ...` keeps a copy. Asks before it
    removes anything.
    """
    from molam_webhook import retention

    if older_than < retention.MIN_AGE:
        raise click.BadParameter(f"must be at least {retention.MIN_AGE.days}d", param_hint="--older-than")
    url = _url()
    before = datetime.now(UTC) - older_than
    count = 0 if yes else ask_database(retention.count(url, before))
    if count:
        click.confirm(f"Remove {count} events for good?", abort=True, err=True)
    removed = ask_database(retention.prune(url, before)) if yes or count else 0
    _report({"removed": removed}, f"{removed} removed; their ids stay.", as_json)


def _url() -> str:
    return load(Settings).database_url.get_secret_value()


def _insist(count: int, question: str, yes: bool) -> None:
    if count > 1 and not yes:
        click.confirm(question, abort=True, err=True)


def _report(counts: dict[str, int], sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(counts)
    else:
        click.echo(sentence)


def _miss(event_ids: set[str], why: str) -> None:
    if event_ids:
        fail(*(f"{event_id} {why}." for event_id in sorted(event_ids)))


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
