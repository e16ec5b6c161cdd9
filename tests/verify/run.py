"""Verifies the hosts of an inventory and writes their reports: what scripts/verify runs, which says how it is used."""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from testinfra.host import Host

from tests.host.conftest import INVENTORY, SITE
from tests.host.hunt import forms, secret_expressions, secrets_in
from tests.host.inventory import ask
from tests.verify import advice, checklist, drift, render
from tests.verify.difference import Drift
from tests.verify.looking import run_tests
from tests.verify.opinions.ask import ask as ask_tools
from tests.verify.opinions.ask import chosen
from tests.verify.result import Head, Report, State, changes, judge, read_waivers, states_of
from tests.verify.target import GROUP, STATE, Target, VerifyError, connect, find_inventory, hosts

# Hosts that are looked at side by side: they wait most of the time.
HOSTS_AT_ONCE = 4
# What the report says of a host.
ABOUT = {"domain": "molam_domain", "environment": "molam_environment", "waivers": "verify_waivers | default([])"}
FAILED, NOT_DONE = 1, 2


def main(arguments: list[str]) -> int:
    """Verify; return 0 where every line holds, 1 where one fails, 2 where a host could not be looked at."""
    asked = parse(arguments)
    try:
        asked.tools = [] if asked.opinions is None else chosen(asked.opinions)
        targets = hosts(find_inventory(asked.inventory), asked.limit)
    except VerifyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return NOT_DONE
    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        done = list(pool.map(partial(attempt, asked), targets))
    reports = [report for report in done if isinstance(report, Report)]
    if asked.json:
        print(json.dumps([report.as_json() for report in reports], indent=2, ensure_ascii=False, default=str))
    for of, outcome in zip(targets, done, strict=True):
        if isinstance(outcome, VerifyError):
            print(f"{of.name}: not verified: {outcome}", file=sys.stderr)
        elif not asked.json:
            tell(outcome, asked.reports / of.name)
    if len(reports) < len(done):
        return NOT_DONE
    return FAILED if any(report.failed for report in reports) else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/verify", add_help=False)
    parser.add_argument("--inventory", default="demo")
    parser.add_argument("--limit", default=GROUP)
    parser.add_argument("--reports", type=Path, default=STATE / "reports")
    parser.add_argument("--lines-only", action="store_true")
    parser.add_argument("--opinions", nargs="?", const="")
    parser.add_argument("--intrusive", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def attempt(asked: argparse.Namespace, of: Target) -> Report | VerifyError:
    """Verify a host and write its reports; what went wrong is returned, so that the others go on."""
    try:
        return verify(of, asked)
    except VerifyError as error:
        return error


def verify(of: Target, asked: argparse.Namespace) -> Report:
    """Verify one host, ask tools for their opinion, and write its report in each form; raise VerifyError."""
    began, at = time.monotonic(), datetime.now(UTC)
    lines = checklist.read()
    host = connect(of)
    said, secrets, answers = ask_inventory(host)
    if asked.intrusive and said["environment"] == "production":
        raise VerifyError("molam_environment is production, and what --intrusive does is for staging and test hosts")
    manifest = read_manifest(host)
    try:
        waivers = read_waivers(said["waivers"], lines)
    except ValueError as error:
        raise VerifyError(str(error)) from None
    hide = partial(without, secrets)
    with ThreadPoolExecutor(1) as pool:
        differing = None if asked.lines_only else pool.submit(drift.look, of, host, hide)
        if differing and asked.intrusive:
            # What the tests break would be told as a difference.
            differing.result()
        looks = [replace(look, seen=hide(look.seen)) for look in run_tests(of, answers, intrusive=asked.intrusive)]
        differences = differing.result() if differing else None
    opinions = ask_tools(host, asked.tools) if asked.tools else []
    verdicts = judge(lines, looks, waivers, advice.of_all(), at.date())
    stamp = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    head = Head(
        host=of.name,
        domain=said["domain"],
        environment=said["environment"],
        release=manifest["release"],
        commit=manifest["commit"],
        at=stamp,
        seconds=round(time.monotonic() - began, 1),
    )
    folder = asked.reports / of.name
    before = newest(folder)
    report = Report(head, verdicts, None if before is None else changes(verdicts, before), differences, opinions)
    write(report, folder, stamp.replace(":", ""))
    return report


def ask_inventory(host: Host) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """Return what the report says of the host, what no report may show, and the answers to what the tests will ask.

    All of it is one question, since each takes seconds. Raise VerifyError where there is no answer.
    """
    secret = secret_expressions()
    wanted = [*ABOUT.values(), *INVENTORY.values(), *SITE.values(), *secret.values()]
    try:
        said = ask(host, {f"a{number:03}": expression for number, expression in enumerate(wanted)})
    except ValueError as error:
        raise VerifyError(f"its inventory can't be read: {error}") from None
    answers = dict(zip(wanted, said.values(), strict=True))
    texts = secrets_in({name: answers[expression] for name, expression in secret.items()}).values()
    hidden = sorted({form for text in texts for form in forms(text)}, key=len, reverse=True)
    return {name: answers[expression] for name, expression in ABOUT.items()}, hidden, answers


def read_manifest(host: Host) -> dict[str, str]:
    """Return what the release in use says of itself; raise VerifyError where there is none."""
    answer = host.run("cat /opt/molam-webhook/active/manifest.json")
    if answer.rc != 0:
        raise VerifyError("no release is in use there. Run site.yml first.")
    manifest: dict[str, str] = json.loads(answer.stdout)
    return manifest


def without(secrets: list[str], text: str) -> str:
    """Return a text with no secret in it: a test that failed may have compared one."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def newest(folder: Path) -> dict[str, str] | None:
    """Return the states of the newest report in a folder, or None. One that can't be read is none."""
    for file in sorted(folder.glob("*.json"), reverse=True):
        try:
            return states_of(json.loads(file.read_text()))
        except (ValueError, KeyError, TypeError):
            continue
    return None


def write(report: Report, folder: Path, name: str) -> None:
    """Write a report in each form. They tell a stranger where a host is weak, so they are for their owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for ending, form in render.FORMS.items():
        file = folder / f"{name}.{ending}"
        file.touch(mode=0o600)
        file.write_text(form(report))


def tell(report: Report, folder: Path) -> None:
    """Print what somebody at a terminal wants to know."""
    print(f"{report.head.host}: {render.sentence(report)} ({report.head.seconds:.0f} s)")
    for verdict in report.verdicts:
        if verdict.state in (State.FAILED, State.WAIVED):
            print(f"  {verdict.id} {verdict.state.value}: {verdict.text}")
            for look in verdict.looks:
                if look.state is State.FAILED:
                    print(f"    {look.what}: {look.seen}")
            if verdict.note:
                print(f"    {verdict.note}")
            print(f"    To do: {verdict.mend}")
    if report.drift:
        tell_drift(report.drift)
    for opinion in report.opinions:
        open_ = (
            f"; NOT ANSWERED: {', '.join(finding.id for finding in opinion.unanswered)}" if opinion.unanswered else ""
        )
        print(f"  {opinion.tool}: {opinion.figure or opinion.note}; {len(opinion.unfollowed)} not followed{open_}")
    for change in report.changes or []:
        print(f"  since the last report: {change}")
    print(f"  report: {max(folder.glob('*.html'))}")


def tell_drift(seen: Drift) -> None:
    """Print what differs from what the playbook would make, and what ends soon."""
    for words in seen.not_seen:
        print(f"  not looked at: {words}")
    for entry in seen.differences:
        print(f"  differs: {entry.kind.value} {entry.what}: {entry.words}")
        print(f"    To do: {entry.mend}")
    for end in seen.expiring:
        print(f"  ends soon: {end.what}: on {end.until}, {end.days_left} days left")
        print(f"    To do: {end.mend}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
