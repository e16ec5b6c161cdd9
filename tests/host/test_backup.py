"""Backups are made, closed to others, and restored: the newest state, a moment, and what is damaged is told."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from testinfra.host import Host

from .conftest import Site, new_event
from .load import load, stored, until_taken
from .playbooks import ROOT, play

DATABASE = "/var/lib/postgresql"
ARCHIVE = "/var/lib/pgbackrest/archive/molam"
BACKUPS = "/var/lib/pgbackrest/backup/molam"
SETTINGS = "/etc/pgbackrest/pgbackrest.conf"

# An index that lacks what its table has: what it was made by says something else now.
DAMAGED = """
CREATE FUNCTION place(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE TABLE rows AS SELECT generate_series(1, 1000) AS n;
CREATE INDEX ON rows (place(n));
CREATE OR REPLACE FUNCTION place(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT -$1';
"""
# A restore that is killed in the moment after it has put the data folder aside.
CUT_OFF = """
import os, sys
sys.path.insert(0, "/usr/local/lib/molam-backup")
from molam_backup import restore
rename = restore.rename
restore.rename = lambda folder, name: (rename(folder, name), print(name), sys.stdout.flush(), os._exit(9))
sys.argv = ["molam-restore"]
restore.main()
"""
# Ten times as much as there is room for, even compressed.
NO_ROOM = """
CREATE TABLE no_room AS SELECT string_agg(gen_random_uuid()::text, '') AS text
FROM generate_series(1, 1000000) AS number GROUP BY number % 1000
"""
READ_ALL = """
import sys
sys.path.insert(0, "/usr/local/lib/molam-backup")
from molam_backup import recovery, system
recovery.check(system.cluster().programs, "scratch")
"""
ARCHIVE_TWICE = """
import sys
sys.path.insert(0, "/usr/local/lib/molam-backup")
from molam_backup import system
system.archived()
system.archived()
"""


def sql(host: Host, statement: str, database: str = "molam_webhook") -> str:
    """Return what a statement gives."""
    return str(host.check_output(f"runuser -u postgres -- psql --no-psqlrc -qAt {database} <<'END'\n{statement}\nEND"))


def measured(host: Host) -> dict[str, float]:
    """Return what is measured of the backups, now."""
    host.check_output("systemctl start molam-backup-measure.service")
    found: dict[str, float] = json.loads(host.check_output("cat /var/lib/molam-backup/measured/backups.json"))
    return found


def archive(host: Host) -> str:
    """Have what was committed archived, and return the segment's name."""
    segment = sql(host, "SELECT pg_walfile_name(pg_switch_wal() - 1)")
    deadline = time.monotonic() + 30
    while sql(host, f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver") != "t":
        assert time.monotonic() < deadline, segment
        time.sleep(0.1)
    return segment


def newest(host: Host, what: str) -> str:
    """Return the newest copy."""
    return str(host.check_output(f"ls -t /var/lib/molam-backup/{what}/*.gpg")).splitlines()[0]


@pytest.fixture
def _backed_up(host: Host) -> None:
    """Wait for the backup that began when the host was made, or restored."""
    host.check_output(
        "timeout 120 sh -c 'while systemctl list-jobs \"molam-backup*\" | grep -q molam; do sleep 0.5; done'"
    )


@pytest.fixture
def _cleared(host: Host) -> Iterator[None]:
    """Remove what restores put aside."""
    yield
    host.check_output(f"rm -rf {DATABASE}/*/main.before-*")


@pytest.mark.checklist("OPS-2")
def test_every_night_and_measured(host: Host) -> None:
    for timer in ("molam-backup", "molam-backup-drill", "molam-backup-measure"):
        assert host.service(f"{timer}.timer").is_running
        assert host.service(f"{timer}.timer").is_enabled


@pytest.mark.usefixtures("_backed_up")
def test_each_kind_is_there_and_young(host: Host) -> None:
    found = measured(host)
    made = time.time() - host.file("/etc/molam-backup/backup_key.cred").mtime.timestamp()
    for what in ("repository", "database", "host"):
        # Without one it would be as old as the key.
        assert found[f'molam_backup_age_seconds{{of="{what}"}}'] < made - 1
    told = json.loads(host.run("molam-check --json").stdout)
    assert told["measured"].keys() >= found.keys()


def test_what_is_committed_is_archived_soon(host: Host, site: Site) -> None:
    shown = (
        "SELECT name || ' ' || setting FROM pg_settings WHERE name IN ('archive_mode', 'archive_timeout') ORDER BY 1"
    )
    assert sql(host, shown).split() == ["archive_mode", "on", "archive_timeout", "30"]
    assert site.send(new_event()).status_code == 200
    archive(host)
    found = measured(host)
    assert found["molam_wal_waiting_seconds"] < 60
    assert found["molam_wal_missing"] == 0


def test_where_nothing_is_written_nothing_is_waited_for(host: Host) -> None:
    """The second time there is no segment that could be archived."""
    host.check_output(f"timeout 30 python3 - <<'END'\n{ARCHIVE_TWICE}END")


@pytest.fixture
def _certbots(host: Host) -> Iterator[None]:
    """Have what certbot keeps of an account with a CA, where there is no certbot."""
    account = "/etc/letsencrypt/accounts/ca.test/directory/1/private_key.json"
    there = host.file("/etc/letsencrypt").exists
    host.check_output(f"mkdir --parents $(dirname {account}) && echo '{{}}' > {account}")
    yield
    host.check_output(f"rm -r {'/etc/letsencrypt/accounts/ca.test' if there else '/etc/letsencrypt'}")


@pytest.mark.usefixtures("_backed_up", "_certbots")
def test_nobody_reads_them_without_the_key(host: Host, site: Site) -> None:
    event = new_event()
    assert site.send(event).status_code == 200
    host.check_output("systemctl start molam-backup-repository molam-backup-database molam-backup-host")
    clear = f"grep -rlaE '{event['id']}|molam_webhook|CREATE TABLE' /var/lib/pgbackrest /var/lib/molam-backup/database"
    assert host.run(clear).stdout == ""
    for folder in ("/var/lib/pgbackrest", newest(host, "database"), newest(host, "host")):
        assert host.run(f"runuser -u molam_webhook -- cat {folder}").rc != 0
        assert host.run(f"runuser -u molam_webhook -- ls {folder}/backup").rc != 0
    key = "systemd-creds decrypt --name=backup_key /etc/molam-backup/backup_key.cred -"
    read = 'gpg --batch --quiet --pinentry-mode loopback --passphrase-fd 3 --decrypt {} 3<<<"$(' + key + ')"'
    dump = host.check_output(f"bash -c '{read.format(newest(host, 'database'))} | pg_restore --file=- --data-only'")
    assert event["id"] in dump
    kept = read.format(newest(host, "host"))
    names = host.check_output(f"bash -c '{kept} | tar --list'").splitlines()
    assert {"credentials/keyring", "var/lib/molam-webhook/ledger.jsonl"} <= set(names)
    assert [name for name in names if "backup_key" in name] == []
    # The keys as they are, and no credential, which another host could not read.
    assert site.secret in host.check_output(f"bash -c '{kept} | tar --extract --to-stdout credentials/keyring'")
    # And all there is of certificates.
    folders = host.check_output("ls -d /etc/letsencrypt /etc/molam-tls 2>/dev/null || :").split()
    there = host.check_output(f"find {' '.join(folders)} -type f").splitlines()
    assert {path.removeprefix("/") for path in there} <= set(names)
    assert any(path.startswith("/etc/molam-tls/") for path in there)
    assert any(path.startswith("/etc/letsencrypt/accounts/") for path in there)


def test_units_are_closed_in(host: Host) -> None:
    for unit in ("repository", "database", "host", "measure", "drill"):
        said = host.check_output(f"systemd-analyze security --no-pager molam-backup-{unit}.service | tail -n 1")
        assert float(re.findall(r"\d+\.\d+", said)[-1]) <= 1.5


def test_they_give_way_to_whatever_else_the_host_does(host: Host) -> None:
    for unit in ("repository", "database", "host", "drill"):
        show = f"systemctl show --property=Nice,IOSchedulingClass,CPUWeight molam-backup-{unit}.service"
        said = dict(line.split("=") for line in host.check_output(show).splitlines())
        assert said == {"Nice": "19", "IOSchedulingClass": "3", "CPUWeight": "idle"}, unit


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up")
def test_copies_are_kept_for_as_long_as_asked_and_no_longer(host: Host) -> None:
    days = int(host.check_output("sed -n 's/^BACKUP_RETENTION_DAYS=//p' /etc/molam-backup/environment"))
    for what, suffix in (("database", "dump"), ("host", "tar")):
        old, young = (f"/var/lib/molam-backup/{what}/2020-01-0{day}T000000Z.{suffix}.gpg" for day in (1, 2))
        for path, age in ((old, days + 1), (young, days - 1)):
            host.check_output(f"touch --date='{age} days ago' {path}")
        try:
            host.check_output(f"systemctl start molam-backup-{what}")
            assert (host.file(old).exists, host.file(young).exists) == (False, True)
        finally:
            host.check_output(f"rm -f {old} {young}")


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up", "_cleared")
def test_nothing_is_lost_with_a_damaged_database(request: pytest.FixtureRequest, host: Host, site: Site) -> None:
    """The log of the last seconds is still there, and not archived yet, and what tells whose it is is not whole.

    Nor does root follow a link that the database's user has laid there.
    """
    with load(site, senders=2) as answers:
        time.sleep(3)
        host.check_output("systemctl kill --signal=KILL 'postgresql@*' && systemctl stop 'postgresql@*'")
        host.check_output(f"cd {DATABASE}/*/main && rm -r base && truncate --size=0 global/pg_control")
        host.check_output(f"cd {DATABASE}/*/main/pg_wal && runuser -u postgres -- ln -s /etc/shadow {'A' * 24}")
        time.sleep(1)
    taken = [event_id for event_id, status in answers if status == 200]
    assert len(taken) > 10
    assert {status for _, status in answers} <= {200, 503}
    name = host.backend.host
    # It asks, and nobody answers; then somebody else is named.
    for confirmed in ([], ["--extra-vars=confirm=another"]):
        refused = play(request, host, "playbooks/restore.yml", *confirmed)
        assert refused.returncode == 2
        assert f"Nothing was changed: {name} was not confirmed" in " ".join(refused.stdout.split())
    answer = play(request, host, "playbooks/restore.yml", f"--extra-vars=confirm={name}")
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert re.search(r"recovered up to +20\d\d-", answer.stdout)
    assert re.search(rf"events +{sql(host, 'SELECT count(*) FROM event_ids')}\b", answer.stdout)
    assert re.search(r"the newest came at +20\d\d-", answer.stdout)
    assert re.search(r"acknowledged, missing +0\b", answer.stdout)
    assert stored(host, taken)[0] == len(taken)
    assert site.send(new_event()).status_code == 200


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up", "_cleared")
def test_back_to_just_before_a_table_was_dropped(request: pytest.FixtureRequest, host: Host, site: Site) -> None:
    before, after = new_event(), new_event()
    assert site.send(before).status_code == 200
    host.check_output(f"until molam-webhook events show {before['id']} | grep -q 'status  *paid'; do sleep 0.1; done")
    moment = sql(host, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')")
    time.sleep(1)
    sql(host, "DROP TABLE orders CASCADE")
    assert site.send(after).status_code == 200
    extra = f"--extra-vars={json.dumps({'confirm': host.backend.host, 'to': moment})}"
    answer = play(request, host, "playbooks/restore.yml", extra)
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert stored(host, [before["id"]]) == (1, 1)
    assert stored(host, [after["id"]]) == (0, 0)
    assert re.search(r"acknowledged, missing +[1-9]", answer.stdout)


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up", "_cleared")
def test_to_a_moment_that_an_earlier_restore_left(host: Host, site: Site) -> None:
    """The log that was written then is there still, though the newest goes another way since."""
    events, moments = [new_event() for _ in range(3)], []
    for event in events:
        assert site.send(event).status_code == 200
        moments.append(
            sql(host, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')")
        )
        time.sleep(1)
    ids = [event["id"] for event in events]
    archive(host)
    for number in (0, 1):
        host.check_output(f"molam-restore --to {moments[number]}")
        assert [stored(host, [name])[0] for name in ids] == [1 if place <= number else 0 for place in range(3)]


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up", "_cleared")
def test_back_to_the_end_of_one_backup(request: pytest.FixtureRequest, host: Host, site: Site) -> None:
    before, after = new_event(), new_event()
    assert site.send(before).status_code == 200
    host.check_output("systemctl start molam-backup-repository")
    label = json.loads(host.check_output("molam-restore --list"))[-1]["label"]
    assert site.send(after).status_code == 200
    confirmed = {"confirm": host.backend.host}
    extra = f"--extra-vars={json.dumps(confirmed | {'backup': '20200101-000000F'})}"
    answer = play(request, host, "playbooks/restore.yml", extra)
    assert answer.returncode == 2
    assert "there is no backup 20200101-000000F" in answer.stdout
    assert stored(host, [before["id"], after["id"]])[0] == 2
    answer = play(request, host, "playbooks/restore.yml", f"--extra-vars={json.dumps(confirmed | {'backup': label})}")
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert stored(host, [before["id"]])[0] == 1
    assert stored(host, [after["id"]])[0] == 0


@contextmanager
def damaged(host: Host) -> Iterator[None]:
    """Let a part of the newest backup be damaged meanwhile."""
    label: dict[str, Any] = json.loads(host.check_output("molam-restore --list"))[-1]
    found = host.check_output(f"find {BACKUPS}/{label['label']}/bundle -type f -size +100k")
    bundle = found.splitlines()[0]
    host.check_output(
        f"cp -a {bundle} /root/bundle && dd if=/dev/zero of={bundle} bs=1 seek=50000 count=64 conv=notrunc"
    )
    try:
        yield
    finally:
        host.check_output(f"cp -a /root/bundle {bundle} && rm /root/bundle")


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up", "_cleared")
def test_a_second_attempt_loses_nothing(host: Host, site: Site) -> None:
    """What the archive did not get is in the folder alone that the first attempt put aside when it was killed."""
    sql(host, "ALTER SYSTEM SET archive_command = 'false'")
    sql(host, "SELECT pg_reload_conf()")
    event = new_event()
    assert site.send(event).status_code == 200
    first = host.run(f"python3 - <<'END'\n{CUT_OFF}END")
    assert first.rc == 9
    aside = first.stdout.strip()
    with damaged(host):
        second = host.run("molam-restore")
    assert second.rc == 1
    assert second.stderr.partition("--back-to ")[2].strip() == aside
    report = json.loads(host.check_output("molam-restore"))
    assert stored(host, [event["id"]])[0] == 1
    assert report["aside"] == aside
    assert not host.file("/var/lib/molam-backup/own").exists


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up", "_cleared")
def test_a_damaged_backup_is_told_and_what_was_there_is_whole(host: Host, site: Site) -> None:
    event = new_event()
    assert site.send(event).status_code == 200
    with damaged(host):
        answer = host.run("molam-restore")
    assert answer.rc == 1
    assert re.search("checksum|invalid|corrupt", answer.stderr), answer.stderr
    undo = answer.stderr.partition("To have it back: ")[2].strip()
    aside = undo.split()[-1]
    # Root would make it the database's, by a link that the database's user has laid.
    host.check_output(f"runuser -u postgres -- ln -s /etc/machine-id {aside}/recovery.signal")
    linked = host.run(undo)
    assert linked.rc == 1
    assert linked.stderr.strip().endswith(undo.partition("molam-restore")[2])
    assert host.file("/etc/machine-id").user == "root"
    host.check_output(f"rm {aside}/recovery.signal")
    host.check_output(undo)
    # It was taken before, and is known.
    assert until_taken(site, event) == "duplicate"


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up", "_cleared")
def test_a_hole_in_the_archive_is_told(host: Host, site: Site) -> None:
    """PostgreSQL takes it for the end of the log."""
    segments = []
    for _ in range(3):
        assert site.send(new_event()).status_code == 200
        segments.append(archive(host))
    (hole,) = host.check_output(f"find /var/lib/pgbackrest/archive -name '{segments[1]}-*'").splitlines()
    host.check_output(f"mv {hole} /root/hole && rm -f /var/lib/postgresql/*/main/pg_wal/{segments[1]}")
    try:
        missing = measured(host)["molam_wal_missing"]
        answer = host.run("molam-restore")
    finally:
        host.check_output(f"mv /root/hole {hole}")
    assert missing == 1
    assert answer.rc == 1
    assert "a segment between them is missing" in answer.stderr, answer.stderr
    host.check_output(answer.stderr.partition("To have it back: ")[2].strip())
    # The failed restore began a timeline. What is written now must not be on the one before it.
    after = new_event()
    assert site.send(after).status_code == 200
    host.check_output("molam-restore")
    assert stored(host, [after["id"]])[0] == 1


@contextmanager
def small(host: Host, folder: str) -> Iterator[None]:
    """Let a folder be on a disk of its own meanwhile, which has 2 MiB left."""
    mount = f"mount -t tmpfs -o size=$(($(du -sk {folder} | cut -f 1) + 2048))k small /mnt && "
    mount += f"cp --archive {folder}/. /mnt/ && mount --bind /mnt {folder}"
    host.check_output(mount)
    try:
        yield
    finally:
        host.check_output(f"umount {folder} && umount /mnt")


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up")
def test_a_backup_that_fills_the_disk_leaves_it_as_it_was(host: Host) -> None:
    """The database is on that disk, too, in most places, and would stand still until somebody comes."""
    sql(host, NO_ROOM)
    listed = host.check_output("molam-restore --list")
    try:
        with small(host, BACKUPS):
            before = host.check_output(f"find {BACKUPS} -type f")
            answer = host.run("systemctl start molam-backup-repository")
            after = host.check_output(f"find {BACKUPS} -type f")
    finally:
        sql(host, "DROP TABLE no_room")
        host.check_output("systemctl reset-failed molam-backup-repository")
    assert answer.rc == 1
    assert after == before
    assert host.check_output("molam-restore --list") == listed
    assert host.run("systemctl start molam-backup-repository").rc == 0


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up")
def test_an_archive_that_takes_nothing_is_told_and_stops_no_event(host: Host, site: Site) -> None:
    """And beyond its limit the log is let go, until a backup makes up for it."""
    ready = f"{DATABASE}/*/main/pg_wal/archive_status/*.ready"
    host.check_output(f"mv {ARCHIVE} /root/archive && cp --archive {SETTINGS} /root/settings")
    try:
        assert site.send(new_event()).status_code == 200
        sql(host, "SELECT pg_switch_wal()")
        # As if it had waited for ten minutes.
        host.check_output(f"timeout 10 sh -c 'until touch --date=\"600 seconds ago\" {ready}; do sleep 0.1; done'")
        waiting = measured(host)["molam_wal_waiting_seconds"]
        told = host.run("molam-check")
        assert site.send(new_event()).status_code == 200
        host.check_output(f"sed -i 's/^archive-push-queue-max=.*/archive-push-queue-max=0/' {SETTINGS}")
        archive(host)
        left = host.run(f"ls {ready}").stdout
        assert site.send(new_event()).status_code == 200
    finally:
        host.check_output(f"mv /root/archive {ARCHIVE} && mv /root/settings {SETTINGS}")
    assert waiting >= 600
    assert told.rc == 1
    assert "molam_wal_waiting_seconds is 6" in told.stdout
    # No log is kept for an archive that does not take it.
    assert left == ""
    archive(host)
    assert measured(host)["molam_wal_missing"] >= 2
    host.check_output("systemctl start molam-backup-repository")
    assert measured(host)["molam_wal_missing"] == 0


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up", "_cleared")
def test_a_folder_that_was_put_back_by_hand_is_told_and_mended(host: Host) -> None:
    aside = json.loads(host.check_output("molam-restore"))["aside"]
    data = host.check_output("pg_lsclusters --no-header | awk '{print $6}'")
    host.check_output("systemctl stop molam-backup.target 'molam-backup-*.service' 'postgresql@*'")
    host.check_output(f"rm -r {data} && mv {aside} {data}")
    host.check_output("systemctl restart postgresql && molam-webhook-switch boot")
    assert host.run("systemctl start molam-backup-drill").rc == 1
    told = host.check_output("tail -n 1 /var/lib/molam-backup/drill/results.jsonl")
    assert "a restore would follow the other one" in json.loads(told)["why"]
    host.check_output(f"systemctl reset-failed molam-backup-drill && molam-restore --back-to {data}")
    host.check_output("systemctl start molam-backup-repository molam-backup-drill")


@pytest.mark.checklist("OPS-2")
@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up")
def test_a_drill_passes_and_one_that_fails_is_told(request: pytest.FixtureRequest, host: Host, site: Site) -> None:
    with load(site, senders=1):
        time.sleep(1)
    answer = play(request, host, "playbooks/drill.yml")
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert re.search(r"was restored up to 20\d\d-.* in \d", " ".join(answer.stdout.split()))
    assert measured(host)["molam_backup_drill_age_seconds"] < 120
    assert host.run("ls /var/lib/molam-backup/drill").stdout.split() == ["results.jsonl"]

    # The archive is gone. PostgreSQL keeps meanwhile what it has for it.
    host.check_output(f"mv {ARCHIVE} /root/archive")
    try:
        answer = play(request, host, "playbooks/drill.yml")
        check = host.run("molam-check")
    finally:
        host.check_output(f"mv /root/archive {ARCHIVE}")
        host.check_output("systemctl reset-failed molam-backup-drill")
    assert answer.returncode == 2
    assert "the drill failed" in answer.stdout
    assert check.rc == 1
    assert "molam_failed_units is" in check.stdout


@pytest.mark.intrusive
def test_another_key_is_refused_where_there_are_backups(request: pytest.FixtureRequest, host: Host) -> None:
    answer = play(request, host, "site.yml", "--extra-vars=backup_key=another-key-that-nobody-can-guess", "--check")
    assert answer.returncode == 2
    assert "Nothing was changed" in answer.stdout
    assert "docs/backups.md" in answer.stdout


@pytest.fixture
def _scratch(host: Host) -> Iterator[None]:
    """Make a database beside the one that serves."""
    host.check_output("runuser -u postgres -- createdb --template=template0 --locale=C.UTF-8 scratch")
    yield
    host.check_output("runuser -u postgres -- dropdb --force scratch")


@pytest.mark.intrusive
@pytest.mark.usefixtures("_scratch")
def test_an_index_that_is_damaged_is_found(host: Host) -> None:
    """Which no checksum tells: what follows a restore, and a drill, reads each row by its indexes."""
    sql(host, DAMAGED, "scratch")
    told = host.run(f"python3 -IB - <<'END'\n{READ_ALL}END")
    assert told.rc == 1
    assert "lacks matching index tuple" in told.stderr, told.stderr


@pytest.mark.intrusive
@pytest.mark.usefixtures("_backed_up")
def test_the_daily_dump_brings_the_database_back(host: Host, site: Site) -> None:
    """By the commands of docs/runbooks/restore.md, which need nothing of ours: with all rows, and all rights."""
    event = new_event()
    assert site.send(event).status_code == 200
    host.check_output("systemctl start molam-backup-database")
    rights = "SELECT datdba::regrole, datacl, datcollate FROM pg_database WHERE datname = 'molam_webhook'"
    count = "SELECT count(*) FROM webhook_deliveries JOIN event_ids USING (event_id)"
    before = sql(host, rights), sql(host, count)
    _, _, section = (ROOT / "docs/runbooks/restore.md").read_text().partition("## From the daily dump\n")
    commands = re.findall(r"^    (\S.*)$", section.partition("\n## ")[0], re.MULTILINE)
    read, _restore = [command for command in commands if command.startswith("gpg ")]
    host.check_output("install -m 0600 /dev/null /root/key && printf another > /root/key")
    assert "Bad session key" in host.run(read.replace("FILE.dump.gpg", newest(host, "database"))).stderr
    host.check_output("rm /root/key")

    script = "\n".join(commands).replace("FILE.dump.gpg", newest(host, "database"))
    host.check_output(f"bash -o errexit -o pipefail <<'END'\n{script}\nEND")
    assert (sql(host, rights), sql(host, count)) == before
    assert until_taken(site, event) == "duplicate"
    assert site.send(new_event()).json()["status"] == "accepted"
    # What was there is beside it.
    assert sql(host, count, "molam_webhook_before") == before[1]
    host.check_output("runuser -u postgres -- dropdb molam_webhook_before")
