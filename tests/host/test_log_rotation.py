"""Logs are rotated without losing a line, kept as long as asked for, and none is left out."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from typing import Any, NamedTuple

import pytest
from testinfra.host import Host

from tests.conftest import Saw

from .conftest import Site
from .load import load

ACCESS = "/var/log/nginx/molam-webhook.log"
STATE = "/var/lib/logrotate/status"
ROTATED = re.compile(r"(-\d{8}-\d{6}|\.\d+)(\.gz)?$")
# Of one size, or written anew each time.
NOT_ROTATED = {"/var/log/lastlog", "/var/log/faillog", "/var/log/apt/eipp.log.xz"}
# The journal bounds itself; the installer wrote once.
NOT_LOGROTATES = ("/var/log/journal/", "/var/log/installer/")
# Owner, group and mode, which a rotation keeps.
MODES = {
    ACCESS: "www-data:adm 640",
    "/var/log/nginx/error.log": "www-data:adm 640",
    "/var/log/fail2ban.log": "root:adm 640",
    "/var/log/postgresql/*.log": "postgres:adm 640",
}
MESSAGE_OF_LIMITS = "ec387f577b844b8fa948f33cad9a75e6"
ENOUGH = 20
LINES = 2000


class Asked(NamedTuple):
    """What the inventory asks for: days that logs are kept, bytes that the journal takes at the most."""

    days: int
    journal_bytes: int


@pytest.fixture(scope="module")
def asked(inventory: dict[str, Any]) -> Asked:
    """Ask the inventory."""
    return Asked(int(inventory["log_rotation_days"]), int(inventory["journal_bytes"]))


def run_logrotate(host: Host) -> None:
    """Do what its timer does; systemd would refuse the sixth time within 10 s."""
    ran = host.run("systemctl reset-failed logrotate.service && systemctl start logrotate.service")
    assert ran.succeeded, host.check_output("journalctl --quiet --unit=logrotate.service --lines=20")


def a_day_later(host: Host) -> None:
    """Let logrotate find that it rotated our logs last a day ago. It refuses to rotate twice within a second."""
    time.sleep(1)
    ours = r"/var/log/(nginx|postgresql|letsencrypt)/[^\"]+\.log|/var/log/fail2ban\.log"
    host.check_output(rf"""sed -i -E 's#^("({ours})") .*#\1 2020-1-1-0:0:0#' {STATE}""")
    run_logrotate(host)


@pytest.mark.checklist("OPS-3")
def test_all_that_is_written_is_rotated(host: Host, saw: Saw) -> None:
    """A new log that nobody thought of is found here: name it in a file of its package, or in role log_rotation."""
    said = host.check_output("logrotate --debug /etc/logrotate.conf 2>&1")
    assert "error:" not in said
    rotated = set(re.findall(r"^considering log (\S+)", said, re.MULTILINE))
    written = host.check_output("find /var/log -type f").splitlines()
    others = {path for path in written if not path.startswith(NOT_LOGROTATES) and not ROTATED.search(path)}
    left = others - rotated - NOT_ROTATED
    saw(f"{len(others & rotated)} logs are rotated; not rotated: {', '.join(sorted(left)) or 'none'}")
    assert ACCESS in rotated
    assert left == set()


def test_ours_is_read_in_place_of_the_packages_files(host: Host) -> None:
    """Which are as they came, so that no upgrade has to ask."""
    said = host.check_output("logrotate --debug /etc/logrotate.conf 2>&1")
    logs = [ACCESS, "/var/log/fail2ban.log", *host.check_output("ls /var/log/postgresql/*.log").splitlines()]
    for log in logs:
        assert re.search(rf"^\S+ ignore duplicate log entry for {log}$", said, re.MULTILINE)
    assert "logrotate.d" not in host.run("dpkg --verify nginx-common postgresql-common fail2ban certbot").stdout


@pytest.mark.checklist("OPS-3")
def test_looked_at_every_hour(host: Host, saw: Saw) -> None:
    show = "systemctl show --value --property=NextElapseUSecRealtime logrotate.timer"
    after = int(host.check_output(f'date --date="$({show})" +%s')) - int(host.check_output("date +%s"))
    saw(f"logrotate runs again in {after // 60} minutes")
    assert host.service("logrotate.timer").is_enabled
    assert after <= 3700


@pytest.mark.checklist("OPS-3")
def test_the_journal_is_bounded(host: Host, asked: Asked, saw: Saw) -> None:
    """What journald said of itself when it started, and what it was told."""
    limits = "--output=cat --output-fields=MAX_USE JOURNAL_NAME='System Journal' MESSAGE_ID=" + MESSAGE_OF_LIMITS
    bound = int(host.check_output(f"journalctl --quiet --reverse --lines=1 {limits}"))
    saw(f"the journal takes {bound / 1e6:.0f} MB at most, and keeps {asked.days + 7} days")
    assert bound == asked.journal_bytes
    told = host.check_output("systemd-analyze cat-config systemd/journald.conf").splitlines()
    assert {"Storage=persistent", f"MaxRetentionSec={asked.days + 7}day"} <= set(told)
    assert host.check_output("find /var/log/journal -name system.journal") != ""


@pytest.mark.intrusive
def test_no_line_is_lost_under_load(host: Host, site: Site) -> None:
    run_logrotate(host)
    mark = f"mark-{uuid.uuid4().hex}"
    loop = (
        f"SET log_min_error_statement = panic; DO 'BEGIN FOR i IN 1..{LINES} LOOP RAISE LOG ''{mark} %'', i; "
        "PERFORM pg_sleep(0.001); END LOOP; END'"
    )
    writer = f"systemd-run --quiet --collect --unit={mark} --property=User=postgres psql --no-psqlrc --quiet"
    host.check_output(f'{writer} --command="{loop}"')
    with load(site, pause_seconds=0.01) as answers:
        for _ in range(3):
            before = len(answers)
            deadline = time.monotonic() + 20
            while len(answers) < before + ENOUGH:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            a_day_later(host)
    taken = [event_id for event_id, status in answers if status == 200]
    assert len(taken) >= 3 * ENOUGH
    # nginx writes its line when the answer has been sent.
    host.check_output(
        f"timeout 20 sh -c 'until grep -q {taken[-1]} {ACCESS}*; do sleep 0.1; done; "
        f"while systemctl --quiet is-active {mark}; do sleep 0.1; done'"
    )
    time.sleep(1)
    written = Counter(host.check_output(f"zcat --force {ACCESS}* | grep --only-matching 'evt_[0-9a-f]*'").split())
    assert [event_id for event_id in taken if written[event_id] != 1] == []
    logged = host.check_output(
        f"zcat --force /var/log/postgresql/*.log* | grep --extended-regexp --only-matching '{mark} [0-9]+'"
    )
    assert Counter(logged.splitlines()) == Counter(f"{mark} {number}" for number in range(1, LINES + 1))

    # Each has opened the new file, which is for the same to read; the one before is compressed. PostgreSQL's collector
    # keeps its first one as output 1 and 2, for what becomes of itself.
    # It fails where a process has gone meanwhile.
    assert host.run("find /proc/[0-9]*/fd ! -name [12] -lname '/var/log/*.log-*'").stdout == ""
    for log, mode in MODES.items():
        found = host.check_output(f"stat --format='%U:%G %a' {log} {log}-*.gz").splitlines()
        assert set(found) == {mode}, log
        assert len(found) >= 3


@pytest.mark.checklist("OPS-3")
@pytest.mark.intrusive
def test_kept_for_as_long_as_asked_and_no_longer(host: Host, asked: Asked) -> None:
    old, young = f"{ACCESS}-20200101-000000.gz", f"{ACCESS}-20200102-000000.gz"
    for path, age in ((old, asked.days + 2), (young, asked.days - 1)):
        host.check_output(f"touch --date='{age} days ago' {path}")
    try:
        a_day_later(host)
        assert not host.file(old).exists
        assert host.file(young).exists
    finally:
        host.check_output(f"rm -f {old} {young}")


@pytest.mark.intrusive
def test_what_is_large_is_rotated_before_its_day_is_over(host: Host) -> None:
    small, large = "/var/log/nginx/small.log", "/var/log/nginx/large.log"
    host.check_output(f"truncate --size=1M {small} && truncate --size=101M {large}")
    try:
        run_logrotate(host)
        assert host.file(large).size == 0
        assert host.file(small).size == 1 << 20
    finally:
        host.check_output(f"rm -f {small}* {large}*")
