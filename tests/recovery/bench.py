"""Measure what a restore takes, what a backup costs those who send, and what a killed database and a lost host lose.

Fills the inbox of a test host, backs it up while events are sent, and restores it; then takes another host away. Makes
and removes the test hosts of the scenarios `release` and `second_repository`; don't run it beside the tests. Each
million of events takes about 4 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import testinfra

from tests.host.conftest import Site
from tests.host.load import load, stored
from tests.release.bench import ADDRESS, DOMAIN, HOST, INVENTORY, STATE, BenchError, on_host, shared
from tests.release.clone import ROOT

from . import lost_host

BIN = ROOT / ".venv" / "bin"
MILLION = 1_000_000
FILL = """
WITH new AS (
  SELECT 'evt_bench_' || n AS id, convert_to(format(
    '{"id":"evt_bench_%%s","type":"payment.succeeded","created":1790000000,"data":{"payment_intent_id":"pi_%%s",'
    '"order_id":"order_%%s","amount":%%s,"currency":"XOF","customer":"cus_%%s","description":"%%s"}}',
    n, md5(n::text), n, n %% 100000, md5('c' || n), repeat(md5('d' || n), 4)), 'UTF8') AS payload
  FROM generate_series(%d, %d) AS n
), known AS (INSERT INTO event_ids (event_id, body_sha256) SELECT id, sha256(payload) FROM new)
INSERT INTO webhook_deliveries (event_id, event_type, payload, signature, kid, state, processed_at)
SELECT id, 'payment.succeeded', payload, 't=1790000000,v1=' || encode(sha256(payload), 'hex'), 'v1', 'done', now()
FROM new
"""
SENDERS = 8
WARM_SECONDS, QUIET_SECONDS = 5.0, 20.0
# Acknowledged so long before a host is lost, an event is in the second repository.
MOST_SECONDS = 60


def sql(statement: str) -> str:
    """Return what a statement gives, of the test host's database."""
    return on_host(f"runuser -u postgres -- psql --no-psqlrc -qAt molam_webhook <<'END'\n{statement}\nEND").strip()


def timed(label: str, step: Callable[[], object]) -> float:
    """Take a step, say how long it took, and return that in seconds."""
    print(f"  {label} …", end="", flush=True, file=sys.stderr)
    began = time.monotonic()
    step()
    seconds = time.monotonic() - began
    print(f" {seconds:.1f} s", file=sys.stderr)
    return seconds


def fill(have: int, wanted: int) -> None:
    """Have so many events in the inbox, acted on long ago."""
    for first in range(have + 1, wanted + 1, MILLION // 2):
        sql(FILL % (first, min(first + MILLION // 2 - 1, wanted)))
    sql("VACUUM ANALYZE event_ids, webhook_deliveries; CHECKPOINT")


@contextmanager
def no_automatic_groups() -> Iterator[None]:
    """Let the kernel go by nice levels alone meanwhile.

    A test host has no control groups of its own, in which the backup's unit has the weight `idle`; the kernel's
    automatic groups would hide from its scheduler that the backup has the least nice level of all as well.
    """
    switch = Path("/proc/sys/kernel/sched_autogroup_enabled")
    before = switch.read_text() if switch.exists() else ""
    if before:
        switch.write_text("0")
    try:
        yield
    finally:
        if before:
            switch.write_text(before)


def rate(answers: list[tuple[str, int]], goes_on: Callable[[float], bool]) -> tuple[float, float]:
    """Return how many events were taken a second for as long as something goes on, and for how many seconds it did."""
    began, before = time.monotonic(), len(answers)
    while goes_on(time.monotonic() - began):
        time.sleep(0.2)
    seconds, new = time.monotonic() - began, answers[before:]
    if refused := {status for _, status in new} - {200}:
        raise BenchError(f"answered {refused} while a backup was made")
    return len(new) / seconds, seconds


def backing_up(_seconds: float) -> bool:
    """Whether the backup goes on."""
    return on_host("systemctl is-active molam-backup-repository || :").strip() == "activating"


def backup_under_load(site: Site) -> dict[str, float]:
    """Back up while events are sent; return the seconds that it took, and the events a second with it and without."""
    with no_automatic_groups(), load(site, SENDERS, newcomers=0, pause_seconds=0.0) as answers:
        time.sleep(WARM_SECONDS)
        quiet = [rate(answers, lambda seconds: seconds < QUIET_SECONDS)[0]]
        on_host("systemctl start --no-block molam-backup-repository; sleep 0.5")
        busy, backup = rate(answers, backing_up)
        on_host("! systemctl is-failed --quiet molam-backup-repository")
        quiet.append(rate(answers, lambda seconds: seconds < QUIET_SECONDS)[0])
    return {"backup": backup, "busy": busy, "quiet": sum(quiet) / len(quiet)}


def killed(site: Site) -> tuple[int, int]:
    """Kill PostgreSQL under load; return how many events were acknowledged, and how many of them are lost."""
    host = testinfra.get_host(f"ssh://root@{ADDRESS}", ssh_config=str(STATE / "ssh" / "config"))
    with load(site, 8, pause_seconds=0.0) as answers:
        for _ in range(3):
            time.sleep(3)
            on_host("systemctl kill --signal=KILL 'postgresql@*'")
        time.sleep(5)
    taken = [event_id for event_id, status in answers if status == 200]
    return len(taken), len(taken) - stored(host, taken)[0]


def measure(sizes: list[int]) -> dict[str, Any]:
    """Return the figures; those of a size by its number of events."""
    env = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    site_yml: list[str | Path] = [
        BIN / "ansible-playbook",
        f"--inventory={INVENTORY}",
        f"--limit=localhost,{HOST}",
        # The scenario leaves backups out.
        f"--extra-vars={json.dumps({'backup_enabled': True, 'backup_key': secrets.token_urlsafe(32)})}",
        ROOT / "site.yml",
    ]
    timed("bare host to the first release", lambda: subprocess.run(site_yml, env=env, check=True, capture_output=True))
    on_host("while systemctl list-jobs 'molam-backup*' | grep -q molam; do sleep 0.5; done")
    secret = (STATE / "secrets" / f"{HOST}.webhook_secret").read_text()
    figures: dict[str, Any] = {"sizes": {}}
    site = Site(ADDRESS, DOMAIN, "v1", secret, STATE / "pki" / "ca.pem")
    figures["killed"] = killed(site)
    have = 0
    for size in sizes:
        timed(f"{size} events", lambda have=have, size=size: fill(have, size))  # type: ignore[misc]
        have = size
        cost = backup_under_load(site)
        report: dict[str, Any] = {}
        whole = timed("restore", lambda report=report: report.update(json.loads(on_host("molam-restore"))))  # type: ignore[misc]
        on_host("rm -rf /var/lib/postgresql/*/main.before-*")
        on_host("while systemctl list-jobs 'molam-backup*' | grep -q molam; do sleep 0.5; done")
        figures["sizes"][size] = {
            "bytes": int(sql("SELECT pg_database_size('molam_webhook')")),
            "restore": whole,
            "events": report["events"],
        } | cost
    return figures


def print_sizes(sizes: dict[int, dict[str, Any]]) -> None:
    """Print what a backup and a restore took, a line for each size."""
    print("| events | database | backup | restored, read and serving | sent meanwhile, a second | without a backup |")
    print("|---:|---:|---:|---:|---:|---:|")
    for one in sizes.values():
        print(
            f"| {one['events']} | {one['bytes'] / 1e9:.1f} GB | {one['backup']:.0f} s | {one['restore']:.0f} s "
            f"| {one['busy']:.0f} ({one['busy'] / one['quiet']:.2f}) | {one['quiet']:.0f} |"
        )
    print()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10], help="of events (default: 1 10)")
    parser.add_argument("--only-lost-host", action="store_true", help="leave out what is measured with one host")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"
    try:
        figures: dict[str, Any] = {}
        if not arguments.only_lost_host:
            shared("destroy.yml")
            shared("create.yml")
            figures = measure([number * MILLION for number in sorted(arguments.millions)])
            shared("destroy.yml")
        figures["lost_host"] = {name: loss._asdict() for name, loss in lost_host.measure().items()}
    except (BenchError, subprocess.CalledProcessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        print(f"\nbench-recovery: {error}\n{said}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}, Debian 13 test host over SSH\n")
    if "sizes" in figures:
        print_sizes(figures["sizes"])
    lost = 0
    if "killed" in figures:
        taken, lost = figures["killed"]
        print(f"PostgreSQL killed three times under load: {taken} events were acknowledged, {lost} of them lost.\n")
    print("| what there is of a lost host | acknowledged | lost | within the last | serves again after |")
    print("|---|---:|---:|---:|---:|")
    for name, loss in figures["lost_host"].items():
        span, recovery = f"{loss['seconds']:.1f} s", f"{loss['recovery']:.0f} s"
        print(f"| the {name} | {loss['acknowledged']} | {loss['events']} | {span} | {recovery} |")
    second, synchronous = (figures["lost_host"][name] for name in ("second repository", "synchronous copy"))
    return 1 if lost or synchronous["events"] or second["seconds"] > MOST_SECONDS else 0


if __name__ == "__main__":
    sys.exit(main())
