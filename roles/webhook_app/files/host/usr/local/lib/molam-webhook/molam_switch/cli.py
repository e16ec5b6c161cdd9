"""The command line, molam-webhook-switch."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from . import installed, ledger, slots
from .ledger import Entry
from .switching import ask, boot, switch
from .system import SwitchError

DESCRIPTION = """Put a release, with the settings and keys that are on disk, in use without a dropped request.

There are two slots, a and b. The idle one is filled and started beside the one that serves; when it is ready and has
passed a signed self-test, nginx is led to it, and the other one answers what it has in hand and stops, which takes it
two seconds more. Whatever fails before that, the old one goes on serving. Cut off at any moment (a kill, a reboot), one
slot serves, and the same command run again finishes."""


def attempt(action: str, release: str, by: str, commit: str | None = None) -> str:
    """Make a release serve, and write it into the ledger; return what was done."""
    ledger.settle()
    serving = slots.active()
    return switch(
        Entry(
            at=ledger.now(),
            by=by,
            action=action,
            from_release=slots.release_of(serving) if serving else None,
            to_release=release,
            commit=commit,
            before=serving,
        )
    )


def serving() -> str:
    """Return the slot that serves; raise SwitchError before the first switch."""
    slot = slots.active()
    if slot is None:
        raise SwitchError("no slot is in use yet: run ansible-playbook site.yml")
    return slot


def deploy(arguments: argparse.Namespace) -> None:
    """Go to a release."""
    print(attempt(ledger.DEPLOY, arguments.release, arguments.by, arguments.commit))
    if arguments.keep:
        removed = installed.prune(arguments.keep)
        if removed:
            print(f"removed from this host: {', '.join(removed)}", file=sys.stderr)


def rollback(arguments: argparse.Namespace) -> None:
    """Go back, to the release before unless another one is named."""
    now = slots.release_of(serving())
    begun = ledger.begun()
    if begun is not None and begun.action == ledger.ROLLBACK and not arguments.release:
        # The same command again finishes what was cut off, and goes no further.
        target: str | None = begun.to_release
    else:
        target = arguments.release or ledger.before(ledger.settled())
    if target is None:
        raise SwitchError(
            f"there is no release to go back to by itself: none served before {now}, or those that did are marked bad. "
            "See 'molam-webhook-switch ledger', and name one"
        )
    if arguments.plan:
        print(json.dumps({"from": now, "to": target, "installed": installed.complete(target)}))
        return
    print(attempt(ledger.ROLLBACK, target, arguments.by))


def apply(arguments: argparse.Namespace) -> None:
    """Put settings, keys and units in use that are new, with the release that serves."""
    print(attempt(ledger.APPLY, slots.release_of(serving()), arguments.by))


def mark(arguments: argparse.Namespace) -> None:
    """Mark a release as bad, or as good again."""
    ledger.settle()
    if arguments.release not in {*ledger.last_served(ledger.read()), *installed.names()}:
        raise SwitchError(f"release {arguments.release} never served here and is not installed")
    action = ledger.GOOD if arguments.good else ledger.BAD
    now, by = ledger.now(), arguments.by
    ledger.append(Entry(now, by, action, None, arguments.release, result=ledger.DONE, why=arguments.bad or ""))
    print(f"{arguments.release} is marked as {action}")


def show(arguments: argparse.Namespace) -> None:
    """Print what served, what serves, and what can be gone back to."""
    entries, slot, begun = ledger.read(), slots.active(), ledger.begun()
    state = {
        "serving": slots.release_of(slot) if slot else None,
        "slot": slot,
        "rollback": ledger.before(ledger.settled()),
        "installed": installed.names(),
        "bad": ledger.bad(entries),
        "begun": asdict(begun) if begun else None,
        "entries": [asdict(entry) for entry in entries[-arguments.limit :]],
    }
    if arguments.json:
        print(json.dumps(state))
        return
    rows = [("WHEN (UTC)", "BY", "WHAT", "FROM", "TO", "COMMIT", "SECONDS", "RESULT")]
    rows += [
        (
            entry.at.rstrip("Z").replace("T", " "),
            entry.by,
            entry.action,
            entry.from_release or "-",
            entry.to_release,
            (entry.commit or "-")[:12],
            "-" if entry.seconds is None else f"{entry.seconds:.1f}",
            # The whole of it stands in --json.
            textwrap.shorten(": ".join(filter(None, (entry.result, entry.why))), 120, placeholder=" …"),
        )
        for entry in entries[-arguments.limit :]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))
    print(f"\nserving: {state['serving'] or 'nothing yet'}{f' (slot {slot})' if slot else ''}")
    print(f"a rollback goes to: {state['rollback'] or 'nothing by itself; name a release'}")
    print(f"installed: {', '.join(installed.names()) or 'none'}")
    for release, why in ledger.bad(entries).items():
        print(f"bad: {release}{f', {why}' if why else ''}")
    if begun:
        print(f"begun at {begun.at} by {begun.by}, to {begun.to_release}: at work, or cut off; run the same again")


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="molam-webhook-switch",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 done, 1 not done and why, 2 wrong usage.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help_text, description=help_text)

    by = argparse.ArgumentParser(add_help=False)
    by.add_argument("--by", default=ledger.who(), help="who does this, for the ledger (default: who logged in)")

    to = commands.add_parser("deploy", parents=[by], help="go to an installed release")
    to.add_argument("release", help=f"its name below {slots.RELEASES}")
    to.add_argument("--commit", help="refuse it where it was built from another one")
    to.add_argument("--keep", type=int, default=0, metavar="N", help="then keep this many that served last")
    to.set_defaults(run=deploy)
    back = commands.add_parser("rollback", parents=[by], help="go back, to the release before unless one is named")
    back.add_argument("release", nargs="?", help="an installed release")
    back.add_argument("--plan", action="store_true", help="only print where from and to, as JSON")
    back.set_defaults(run=rollback)
    commands.add_parser(
        "apply", parents=[by], help="put in use new settings, keys and units, with the release that serves"
    ).set_defaults(run=apply)
    judge = commands.add_parser("mark", parents=[by], help="keep a release from being gone back to by itself")
    judge.add_argument("release")
    verdict = judge.add_mutually_exclusive_group(required=True)
    verdict.add_argument("--bad", metavar="WHY", help="never choose it by itself")
    verdict.add_argument("--good", action="store_true", help="as before the mark")
    judge.set_defaults(run=mark)
    table = command("ledger", "what served and when, what serves, what is installed")
    table.add_argument("--limit", type=int, default=20, help="so many lines (default: 20)")
    table.add_argument("--json", action="store_true", help="for programs")
    table.set_defaults(run=show)
    question = command("ask", "run a command of the release that serves, with the receiver's keys")
    question.add_argument("words", metavar="COMMAND", help="such as 'keys list'")
    command("boot", "start the slot in use; what a boot does")
    return parser.parse_args(words)


def main() -> int:
    """Run the command line."""
    arguments = parse(None)
    if os.geteuid() != 0:
        print("molam-webhook-switch: run it as root", file=sys.stderr)
        return 1
    began_with = slots.active()
    try:
        if arguments.command == "boot":
            boot()
        elif arguments.command == "ask":
            status, output, errors = ask(serving(), *shlex.split(arguments.words))
            sys.stdout.write(output)
            sys.stderr.write(errors)
            return status
        elif arguments.command == "ledger" or getattr(arguments, "plan", False):
            arguments.run(arguments)
        else:
            # One at a time; the kernel lets go of the lock when its holder dies.
            with (slots.STATE / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                arguments.run(arguments)
    except (SwitchError, OSError) as error:
        slot = slots.active()
        if slot is None:
            state = "Not switched: nothing serves yet."
        elif slot == began_with:
            state = f"Not switched: slot {slot} goes on with release {slots.release_of(slot)}."
        else:
            state = f"Switched all the same, to slot {slot} with release {slots.release_of(slot)}: run the same again."
        print(f"molam-webhook-switch: {error}\n{state}", file=sys.stderr)
        return 1
    return 0
