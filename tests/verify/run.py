"""Verifies the hosts of an inventory and writes their reports: what scripts/verify runs, which says how it is used."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testinfra.host import Host

from tests.host.hunt import forms, inventory_secrets
from tests.verify import advice, checklist, render
from tests.verify.checklist import ROOT
from tests.verify.result import Head, Look, Report, State, changes, judge, read_waivers, states_of
from tests.verify.target import GROUP, STATE, Target, VerifyError, connect, find_inventory, hosts

# Hosts that are looked at side by side, and processes for each: both wait most of the time.
HOSTS_AT_ONCE = 4
PROCESSES = 4
# One that hangs is a failure of the run, not of a line.
SECONDS_AT_MOST = 600
MANIFEST = "cat /opt/molam-webhook/active/manifest.json"
FAILED, NOT_DONE = 1, 2
# pytest cuts nothing short then: half a secret would not be found in what a test says.
UNCUT = ["-vv"]


def main(arguments: list[str]) -> int:
    """Verify; return 0 where every line holds, 1 where one fails, 2 where a host could not be looked at."""
    asked = parse(arguments)
    try:
        targets = hosts(find_inventory(asked.inventory), asked.limit)
    except VerifyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return NOT_DONE
    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        done = list(pool.map(attempt, targets, [asked.reports] * len(targets)))
    reports = [report for report in done if isinstance(report, Report)]
    if asked.json:
        print(json.dumps([report.as_json() for report in reports], indent=2, ensure_ascii=False))
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
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def attempt(of: Target, reports: Path) -> Report | VerifyError:
    """Verify a host and write its reports; what went wrong is returned, so that the others go on."""
    try:
        return verify(of, reports / of.name)
    except VerifyError as error:
        return error


def verify(of: Target, folder: Path) -> Report:
    """Verify one host, and write its report in each form into a folder; raise VerifyError."""
    began, at = time.monotonic(), datetime.now(UTC)
    lines = checklist.read()
    host = connect(of)
    said, manifest, secrets = ask(host)
    try:
        waivers = read_waivers(said["waivers"], lines)
    except ValueError as error:
        raise VerifyError(str(error)) from None
    looks = [replace(look, seen=without(secrets, look.seen)) for look in run_tests(of)]
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
    before = newest(folder)
    report = Report(head, verdicts, None if before is None else changes(verdicts, before))
    write(report, folder, stamp.replace(":", ""))
    return report


def ask(host: Host) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Return what inventory and release say, and what no report may show; raise VerifyError."""
    wanted = "'domain': molam_domain, 'environment': molam_environment, 'waivers': verify_waivers | default([])"
    answer = host.ansible("debug", f'msg="{{{{ {{{wanted}}} | to_json }}}}"', check=False)
    if "msg" not in answer or answer.get("failed"):
        raise VerifyError(f"its inventory can't be read: {answer.get('msg', answer)}")
    said = answer["msg"] if isinstance(answer["msg"], dict) else json.loads(answer["msg"])
    manifest = host.run(MANIFEST)
    if manifest.rc != 0:
        raise VerifyError("no release is in use there. Run site.yml first.")
    secrets = [form for secret in inventory_secrets(host).values() for form in forms(secret)]
    return said, json.loads(manifest.stdout), sorted(secrets, key=len, reverse=True)


def run_tests(of: Target) -> list[Look]:
    """Run the tests of the checklist that change nothing; raise VerifyError where pytest does not come to its end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "looks.json"
        command = [sys.executable, "-m", "pytest", "tests/host", "tests/repository", "-p", "tests.verify.plugin"]
        command += ["-m", "checklist and not intrusive", f"--verify-looks={file}", "-p", "no:cacheprovider"]
        command += [f"--ansible-inventory={of.inventory}", f"--hosts=ansible://{of.name}"]
        command += [*UNCUT, "--tb=short", "--color=no", f"--numprocesses={PROCESSES}", "--dist=loadfile"]
        command += [f"--ssh-config={of.ssh_config}"] if of.ssh_config else []
        command += ["--sudo"] if of.sudo else []
        environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
        try:
            answer = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS_AT_MOST,
            )
        except subprocess.TimeoutExpired:
            raise VerifyError(f"the tests did not end within {SECONDS_AT_MOST} s") from None
        # 1 is that tests failed; beyond it pytest did not run them all.
        if answer.returncode not in (0, 1) or not file.exists():
            raise VerifyError(f"pytest ended with {answer.returncode}:\n{(answer.stdout + answer.stderr)[-2000:]}")
        return [Look(**look | {"ids": tuple(look["ids"]), "state": State(look["state"])}) for look in read_looks(file)]


def read_looks(file: Path) -> list[dict[str, Any]]:
    """Return what the plugin kept."""
    looks: list[dict[str, Any]] = json.loads(file.read_text())
    return looks


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
    for change in report.changes or []:
        print(f"  since the last report: {change}")
    print(f"  report: {max(folder.glob('*.html'))}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
