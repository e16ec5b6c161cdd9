"""What the runbooks say to run, runs: what is marked ``sh`` (docs/runbooks/README.md), and tables of commands."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from pathlib import Path

import pytest
from testinfra.host import Host

from .conftest import Site, new_event

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def blocks(text: str) -> list[str]:
    """Return what a page has of commands: blocks, and of tables the column that is headed so."""
    rows = "".join(re.findall(r"^\| what \| command \|\n\|---\|---\|\n((?:\|.*\|\n)+)", text, re.MULTILINE))
    in_tables = re.findall(r"`([^`]+)`", re.sub(r"(?m)^\| .*? \|", "", rows))
    return [*re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL), *in_tables]


PAGES = {str(path.relative_to(DOCS)): blocks(path.read_text()) for path in sorted(DOCS.rglob("*.md"))}

# They exit 1 where they find something, or what they look at goes away meanwhile, which is no fault of theirs.
FINDERS = re.compile(r"molam-webhook (status|events reconcile)\b|molam-check( --json)?( \||$)|find /proc/|^du ")

# A part of a command, and what it has to show when an event and a forged one were sent: a command that names a field
# which is no more shows nothing, and ends well all the same.
SHOWS = {
    "[.time, .outcome, .kid, .request_id]": "signature_mismatch",
    '"\\(.outcome) \\(.kid)"': "signature_mismatch v1",
    "[.time, .address, .status, .event_id]": "EVENT",
    'select(.path == "/molam/webhook" and .status == 401)': ".",
    "SELECT event_type, state, count(*)": "payment.succeeded",
    "grep ^molam_webhooks_total": 'molam_webhooks_total{event_type="payment.succeeded",status="accepted"',
    "| .event_type' | sort": "payment.succeeded",
    "molam-webhook events list --payment": "EVENT",
    "molam-webhook events list --since 2h": "EVENT",
    "molam-webhook events show": "payload",
    'fromjson? | select(.payment_id == "': "EVENT",
    "jq -c 'select(.event_id == \"": "EVENT",
    "molam-webhook keys list": "v1",
    "systemctl show --property=Id,NRestarts,MemoryMax": "MemoryMax=536870912",
    'jq -s \'[.[] | select(.event_id != "")]': '"answers"',
    "molam_webhook_(commit_seconds|batch_size": "molam_webhook_commit_seconds_sum",
    "pg_blocking_pids": "waits_for",
    "--dump-header": "access-control-allow-origin: *",
    "events reconcile": "answers of 200",
}

OF_A_FORGED_ONE = ("troubleshooting.md", "runbooks/signature-failures.md")

# Ended by `head` before they had said all.
BROKEN_PIPE = 141

RUN = """
import json, subprocess, sys
done = []
for command in json.load(sys.stdin):
    shell = ["bash", "-o", "pipefail", "-c", command]
    ran = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    done.append([command, ran.returncode, ran.stdout[-9000:] + ran.stderr[-500:]])
print(json.dumps(done))
"""


def commands(page: str) -> list[str]:
    """Return the page's commands, one a line as they stand there, without what is said of them."""
    lines = [re.sub(r"(^|\s+)# .*$", "", line) for block in PAGES[page] for line in block.splitlines()]
    return [line for line in lines if line]


def forge(site: Site) -> None:
    """Send a forged event that is looked at, once those of other tests are no more held against us."""
    deadline = time.monotonic() + 130
    while (status := site.send(new_event(), secret=secrets.token_urlsafe(32)).status_code) != 401:
        assert status == 429
        assert time.monotonic() < deadline
        time.sleep(5)


@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks])
def test_what_it_says_to_run_runs(host: Host, site: Site, page: str) -> None:
    event = new_event()
    assert site.send(event).status_code == 200
    if page in OF_A_FORGED_ONE:
        forge(site)
    own = {"DOMAIN": site.domain, "EVENT": event["id"], "PAYMENT": event["data"]["id"]}
    asked = [re.sub(r"\b(DOMAIN|EVENT|PAYMENT)\b", lambda word: own[word[0]], line) for line in commands(page)]
    done = json.loads(host.check_output(f"timeout 120 python3 -c '{RUN}' <<'END'\n{json.dumps(asked)}\nEND"))
    fine = {True: (0, 1, BROKEN_PIPE), False: (0, BROKEN_PIPE)}
    for command, _, shown in done:
        for part in (part for part in SHOWS if part in command):
            assert SHOWS[part].replace("EVENT", event["id"]).lower() in shown.lower(), command
    wrong = [each for each in done if each[1] not in fine[bool(FINDERS.search(each[0]))]]
    assert (len(done), wrong) == (len(commands(page)), [])


def test_what_has_to_show_something_is_there() -> None:
    every = [command for page in PAGES for command in commands(page)]
    assert [part for part in SHOWS if not any(part in command for command in every)] == []


def test_the_table_of_a_full_disk_is_read() -> None:
    """Else it would be tried no more."""
    assert "apt-get clean" in commands("runbooks/disk-full.md")
    assert "molam-webhook events prune --older-than 400d" in commands("runbooks/disk-full.md")


@pytest.mark.intrusive
def test_who_came_in_by_a_leaked_ssh_key_is_out(host: Host, site: Site) -> None:
    keys = "/root/.ssh/authorized_keys"
    before = host.file(keys).content_string
    host.check_output(f"echo 'ssh-ed25519 AAAA somebody@laptop' >> {keys}")
    block = (DOCS / "runbooks/key-leaked.md").read_text().partition("```sh")[0]
    remove, end = re.findall(r"^((?:find|loginctl) .*?)(?:\s+# .*)?$", block, re.MULTILINE)
    host.check_output(remove.replace("COMMENT-OF-THE-KEY", "somebody@laptop"))
    assert host.file(keys).content_string == before

    ssh = ["ssh", "-F", str(ROOT / ".state" / "ssh" / "config"), "-o", "ControlPath=none", site.address, "sleep 8787"]
    with subprocess.Popen(ssh, stdin=subprocess.DEVNULL) as open_yet:
        wait = "timeout 20 sh -c 'until pgrep -fx \"sleep 8787\"; do sleep 0.2; done'"
        pid = host.check_output(wait).split()[0]
        groups = host.check_output(f"cat /proc/{pid}/cgroup")
        host.check_output(end.replace("SESSION", re.findall(r"session-(\w+)[.]scope", groups)[0]))
        assert open_yet.wait(20) != 0
    assert host.run("pgrep -fx 'sleep 8787'").rc == 1
