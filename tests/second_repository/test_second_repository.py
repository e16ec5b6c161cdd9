"""A second repository follows the first, gives nothing away, says what is wrong, and brings a lost host back."""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from testinfra.host import Host

from tests.host.conftest import Site, new_event
from tests.host.load import stored
from tests.host.playbooks import ROOT, play
from tests.host.test_backup import archive, measured, sql

from .conftest import REPOSITORY, reached
from .loss import take_away

COPY = "/var/lib/molam-repository/second"
SETTINGS = "/etc/molam-backup/second"
# Where the lost host's name leads to then.
SPARE, MOVED = "10.89.77.83", f"--inventory={ROOT / 'molecule' / 'second_repository' / 'lost'}"
# What was acknowledged so long before the host was lost is in the copy.
AT_MOST_SECONDS = 60
# And its receipt, ten seconds and what a copy takes.
RECEIPT_SECONDS = 20


ARCHIVED_MEANWHILE = """
import sys
sys.path.insert(0, "/usr/local/lib/molam-backup")
from molam_backup import restore, second, system
fetch = second.fetch
def and_then(into, *only):
    fetch(into, *only)
    for number in range(0 if only else 3):
        system.sql(f"CREATE TABLE late_{number} AS SELECT 1 AS one", "molam_webhook")
        system.archived()
second.fetch = and_then
sys.argv = ["molam-restore", "--repository", "2"]
sys.exit(restore.main())
"""

# The timer may have it running. What that began with may be older, and it has no status yet.
RUNS = "systemctl show --property=ActiveState --value molam-backup-second | grep --quiet activating"
IDLE = f"while {RUNS}; do sleep 0.2; done"


def copy_now(host: Host) -> str:
    """Have it copied now; return what is said where that fails."""
    status = "systemctl show --property=ExecMainStatus --value molam-backup-second"
    if host.check_output(f"{IDLE}; systemctl start molam-backup-second; {IDLE}; {status}") == "0":
        return ""
    return str(host.check_output("journalctl --unit=molam-backup-second --lines=30 --output=cat --no-pager"))


@contextmanager
def instead(host: Host, path: str, command: str) -> Iterator[None]:
    """Change a file by a command, with the timer held, and put it back in the end."""
    host.check_output(f"cp --archive {path} /root/kept && {command}")
    try:
        yield
    finally:
        host.check_output(f"cp --archive /root/kept {path} && rm /root/kept")


@pytest.fixture(scope="module", autouse=True)
def _backed_up(host: Host) -> None:
    """Wait for the backup that began when the host was made."""
    wait = "while systemctl list-jobs 'molam-backup*' | grep -q molam; do sleep 0.5; done"
    host.check_output(f'timeout 120 sh -c "{wait}"')


def test_it_follows(host: Host, repository: Host, site: Site) -> None:
    assert site.send(new_event()).status_code == 200
    segment = archive(host)
    assert copy_now(host) == ""
    assert repository.run(f"find {COPY}/archive -name '{segment}-*'").stdout.strip()
    found = measured(host)
    assert 0 <= found["molam_second_repository_age_seconds"] < AT_MOST_SECONDS
    assert found["molam_backup_repository_bytes"] > 1_000_000
    assert 0 < found["molam_second_repository_free_ratio"] <= 1
    assert host.service("molam-backup-second.timer").is_enabled
    listed = [json.loads(host.check_output(f"molam-restore --list --repository {number}")) for number in (1, 2)]
    assert listed[0] == listed[1] != []


def test_what_is_removed_is_kept_apart(host: Host, repository: Host) -> None:
    """And a backup is listed when all of it is there."""
    host.check_output("systemctl start molam-backup-repository molam-backup-database")
    gone = host.check_output("ls -t /var/lib/molam-backup/database | tail -n 1")
    assert copy_now(host) == ""
    assert repository.file(f"{COPY}/database/{gone}").exists
    host.check_output(f"rm /var/lib/molam-backup/database/{gone}")
    host.check_output("systemctl start molam-backup-repository")
    assert copy_now(host) == ""
    assert not repository.file(f"{COPY}/database/{gone}").exists
    assert repository.run(f"ls {COPY}/removed/*/database/{gone}").rc == 0
    newest = json.loads(host.check_output("molam-restore --list --repository 2"))[-1]["label"]
    here = host.check_output(f"cd /var/lib/pgbackrest/backup/molam/{newest} && find . -type f | sort")
    there = repository.check_output(f"cd {COPY}/backup/molam/{newest} && find . -type f | sort")
    assert there == here


def test_the_other_host_cannot_read_it(host: Host, repository: Host, site: Site) -> None:
    event = new_event()
    assert site.send(event).status_code == 200
    archive(host)
    assert copy_now(host) == ""
    sought = f"grep -rlaE '{event['id']}|molam_webhook|CREATE TABLE' {COPY}"
    # But for which events were answered 200.
    (receipts,) = repository.run(sought).stdout.splitlines()
    assert receipts.startswith(f"{COPY}/receipts/")
    (receipt,) = [
        one
        for one in map(json.loads, repository.check_output(f"cat {receipts}").splitlines())
        if one["event_id"] == event["id"]
    ]
    assert receipt.keys() == {"time", "status", "event_id", "kid"}
    key = host.check_output("systemd-creds decrypt --name=backup_key /etc/molam-backup/backup_key.cred -")
    search = f"grep -rlaF '{key}' /etc /var/lib/molam-repository /root"
    assert repository.run(search).stdout == ""


def test_who_copies_can_do_nothing_else(host: Host) -> None:
    ssh = f"ssh -F {SETTINGS}/ssh_config -i {SETTINGS}/key"
    assert host.run(f"{ssh} second id").rc != 0
    for words in ("rsync; id", "free; id", "free id"):
        assert "uid=" not in host.run(f"{ssh} second '{words}'").stdout
    assert re.fullmatch(r"\d+ \d+\n", host.run(f"{ssh} second free").stdout)
    assert host.run(f"! {ssh} -W 127.0.0.1:22 second </dev/null").rc == 0
    escape = f"rsync --rsh='{ssh}' --recursive second:../ /root/escaped"
    host.run(escape)
    host.run(f"rsync --rsh='{ssh}' second:/etc/passwd /root/escaped/")
    assert host.run("find /root/escaped -name passwd -o -name second").stdout == ""


def test_only_who_is_backed_up_gets_to_it(repository: Host) -> None:
    """Administrators come in by the host's own SSH, and not by this one."""
    assert repository.socket("tcp://0.0.0.0:8432").is_listening
    with socket.create_connection((REPOSITORY, 22), 3) as own:
        assert own.recv(4) == b"SSH-"
    with pytest.raises(TimeoutError):
        socket.create_connection((REPOSITORY, 8432), 3)


def test_it_is_closed_in(host: Host, repository: Host) -> None:
    for where, unit in ((host, "molam-backup-second"), (repository, "molam-repository")):
        said = where.check_output(f"systemd-analyze security --no-pager {unit}.service | tail -n 1")
        assert float(re.findall(r"\d+\.\d+", said)[-1]) <= 2.0, said
    assert repository.check_output("ps -C sshd -o user= -o args= | grep molam-repository").startswith("molam_r")


def test_another_host_key_is_not_believed(host: Host) -> None:
    stranger = "ssh-keygen -q -t ed25519 -N '' -f /root/stranger && "
    stranger += f"echo molam-second-repository $(cut -d' ' -f1,2 /root/stranger.pub) > {SETTINGS}/known_hosts"
    with instead(host, f"{SETTINGS}/known_hosts", stranger):
        assert "Host key verification failed" in copy_now(host)
    host.check_output("rm /root/stranger*")
    assert copy_now(host) == ""


def test_anothers_copy_is_not_overwritten(host: Host, repository: Host) -> None:
    with instead(repository, f"{COPY}/molam-id", f"echo another > {COPY}/molam-id"):
        said = copy_now(host)
        assert "the copy of another repository (another), which is not overwritten" in said
        assert "molam-restore --repository 2" in said
    assert copy_now(host) == ""


def test_a_copy_that_was_emptied_is_made_again(host: Host, repository: Host) -> None:
    """As after a new disk there. That all of it was sent before is nothing to it."""
    assert copy_now(host) == ""
    files = f"cd {COPY} && find archive backup database host receipts -type f"
    before = repository.check_output(files).split()
    repository.check_output(f"rm -r {COPY}/*")
    assert copy_now(host) == ""
    assert set(before) <= set(repository.check_output(files).split())
    assert json.loads(host.check_output("molam-restore --list --repository 2")) != []


def test_what_was_archived_while_the_copy_was_fetched_is_there_too(host: Host) -> None:
    """Of a repository that is damaged this is whole, and PostgreSQL itself no longer has it."""
    report = host.check_output(f"python3 - <<'END'\n{ARCHIVED_MEANWHILE}END")
    assert json.loads(report)["aside"]
    late = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'late%'"
    assert sql(host, late) == "3"
    sql(host, "DROP TABLE late_0, late_1, late_2")
    host.check_output("rm -rf /var/lib/postgresql/*/main.before-* /var/lib/pgbackrest/replaced-*")


def test_with_another_key_nothing_is_restored(host: Host) -> None:
    path = "/etc/molam-backup/pgbackrest.conf.cred"
    other = "printf '[global]\\nrepo1-cipher-pass=another-key-that-nobody-guesses\\n' | "
    other += f"systemd-creds encrypt --name=pgbackrest.conf - {path}"
    with instead(host, path, f"rm {path} && {other}"):
        told = host.run("molam-restore --list --repository 2")
    assert told.rc == 1
    assert "encrypted with another key than this host's backup_key" in told.stderr


def test_without_the_other_host_events_are_taken_and_it_is_told(host: Host, repository: Host, site: Site) -> None:
    repository.check_output("systemctl stop molam-repository")
    try:
        assert "Connection refused" in copy_now(host)
        assert site.send(new_event()).status_code == 200
        host.check_output("systemctl stop molam-backup-second.timer")
        sent = "/var/lib/molam-backup/second/sent.json"
        host.check_output(f"jq -c '.log -= 400' {sent} > /run/sent.json && cat /run/sent.json > {sent}")
        measured(host)
        told = host.run("molam-check")
    finally:
        repository.check_output("systemctl start molam-repository")
        host.check_output("systemctl start molam-backup-second.timer")
    assert told.rc == 1
    assert "molam_second_repository_age_seconds is 4" in told.stdout
    assert copy_now(host) == ""
    assert measured(host)["molam_second_repository_age_seconds"] < AT_MOST_SECONDS


def test_a_disk_that_fills_is_told_before_nothing_is_taken_any_more(host: Host, repository: Host) -> None:
    """A small file system in the copy's place, which is put back as it was."""
    host.check_output(f"systemctl stop molam-backup-second.timer; {IDLE}")
    mount = f"mount -t tmpfs -o size=$(($(du -sm {COPY} | cut -f1) * 2 + 20))m small /mnt && "
    mount += f"cp --archive {COPY}/. /mnt/ && "
    mount += "fallocate --length $(($(df --output=avail --block-size=1M /mnt | tail -n 1) - 3))M /mnt/ballast && "
    mount += f"mount --bind /mnt {COPY} && chown --reference=/var/lib/molam-repository {COPY}"
    repository.check_output(mount)
    try:
        sent = "/var/lib/molam-backup/second/sent.json"
        # A minute later.
        host.check_output(f"jq -c '.log -= 60' {sent} > /run/sent.json && cat /run/sent.json > {sent}")
        assert copy_now(host) == ""
        found = measured(host)["molam_second_repository_free_ratio"]
        told = host.run("molam-check")
    finally:
        repository.check_output(f"umount {COPY} && umount /mnt")
        host.check_output("systemctl start molam-backup-second.timer")
    assert found < 0.15
    assert told.rc == 1
    assert "molam_second_repository_free_ratio is 0" in told.stdout


def test_with_another_key_the_copy_begins_anew(request: pytest.FixtureRequest, host: Host, repository: Host) -> None:
    """And what there was of it is put aside, whole, on that host as on this one."""
    before = repository.check_output(f"cat {COPY}/molam-id")
    kept = repository.check_output(f"cd {COPY} && find backup -type f")
    other = f"--extra-vars=backup_key={secrets.token_urlsafe(32)}"
    for key in ([other], []):
        answer = play(request, host, "playbooks/rotate_backup_key.yml", *key)
        assert answer.returncode == 0, answer.stdout[-3000:]
        assert copy_now(host) == ""
        listed = [json.loads(host.check_output(f"molam-restore --list --repository {number}")) for number in (1, 2)]
        assert listed[0] == listed[1] != []
        assert {one["kind"] for one in listed[1][:1]} == {"full"}
    assert repository.check_output(f"cat {COPY}/molam-id") != before
    aside = f"{COPY}/before-{before}"
    assert repository.check_output(f"cat {aside}/molam-id") == before
    assert set(repository.check_output(f"cd {aside} && find backup -type f").split()) == set(kept.split())
    assert repository.check_output(f"find {aside}/archive -name '*-*'")


def test_a_lost_host_is_brought_back_on_another(request: pytest.FixtureRequest, host: Host, site: Site) -> None:
    gone = take_away("molam-second", site, seconds=AT_MOST_SECONDS + 15, pause_seconds=0.1)
    in_time, told, taken = (gone.until(seconds) for seconds in (AT_MOST_SECONDS, RECEIPT_SECONDS, 0))
    assert len(in_time) > 10
    answer = play(request, host, "site.yml", MOVED)
    assert answer.returncode == 0, answer.stdout[-3000:]
    spare, there = reached(SPARE), replace(site, address=SPARE)
    assert "which is not overwritten" in copy_now(spare)
    # As where it was to be a disk of its own, which is there no more.
    spare.check_output("rm -r /var/lib/pgbackrest")

    answer = play(request, host, "playbooks/restore.yml", MOVED, "--extra-vars=confirm=second repository=2")
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert re.search(r"recovered up to +20\d\d-", answer.stdout)
    assert stored(spare, in_time)[0] == len(in_time)
    # Nor is what was put aside there fetched, which needs another key.
    assert spare.run("ls /var/lib/pgbackrest").stdout.count("before-") == 0
    # Nor does any folder of root's become another's.
    for folder in ("/var/lib/molam-backup", "/var/lib/molam-backup/host"):
        assert spare.file(folder).user == "root"

    # What is missing is named, as docs/runbooks/host-lost.md has it, but for the last seconds.
    page = (ROOT / "docs/runbooks/host-lost.md").read_text()
    missing = spare.run(re.findall(r"^ +(.* events reconcile .*)$", page, re.MULTILINE)[0]).stdout.split()
    (counted,) = re.findall(r"acknowledged, missing +(\d+)", answer.stdout)
    assert 0 < int(counted) <= len(missing)
    there_now = set(taken) - set(missing)
    assert set(missing) <= set(taken) - set(in_time)
    assert len(there_now) - stored(spare, taken)[0] <= len(taken) - len(told)
    assert missing, "the load went on longer than the copy: an event was acknowledged and is missing"
    for event_id in taken:
        event = new_event() | {"id": event_id}
        if event_id in missing:
            assert there.send(event).json()["status"] == "accepted"
        elif event_id not in told:
            assert there.send(event).status_code == 200
    assert stored(spare, taken)[0] == len(taken)

    # The host's own files of before, as that page has it.
    ledger = "/var/lib/molam-webhook/ledger.jsonl"
    kept = spare.check_output("ls /var/lib/molam-backup/host | sort | head -n 1").removesuffix(".tar.gpg")
    block = page.partition("       systemd-creds decrypt")
    lines = (block[1] + block[2]).partition("\n\n")[0]
    here = spare.file(ledger).content_string
    spare.check_output(lines.replace("FILE", kept))
    assert spare.file(ledger).content_string != here
    assert not spare.file("/root/key").exists
    # What comes next takes it for its own again.
    spare.run(f"cat > {ledger} <<'END'\n{here}END")

    # The copy goes on, from here.
    assert copy_now(spare) == ""
    assert measured(spare)["molam_second_repository_age_seconds"] < AT_MOST_SECONDS
    again = play(request, host, "site.yml", MOVED, "--limit=second,repository", "--check", "--diff")
    assert re.findall(r"(second|repository) +: ok=\d+ +changed=(\d+)", again.stdout) == [
        ("repository", "0"),
        ("second", "0"),
    ], again.stdout[-3000:]
