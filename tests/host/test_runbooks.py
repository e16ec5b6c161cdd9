"""What the runbooks say to run, runs: what is marked ``sh`` (docs/runbooks/README.md), and tables of commands."""

from __future__ import annotations

import json
import re
import subprocess
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
FINDERS = re.compile(r"molam-webhook (status|events reconcile)\b|molam-check( --json)?( \||$)|find /proc/")

# Ended by `head` before they had said all.
BROKEN_PIPE = 141

RUN = """
import json, subprocess, sys
done = []
for command in json.load(sys.stdin):
    shell = ["bash", "-o", "pipefail", "-c", command]
    ran = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    done.append([command, ran.returncode, ran.stdout[-500:] + ran.stderr[-500:]])
print(json.dumps(done))
"""


def commands(page: str) -> list[str]:
    """Return the page's commands, one a line as they stand there, without what is said of them."""
    lines = [re.sub(r"(^|\s+)# .*$", "", line) for block in PAGES[page] for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks])
def test_what_it_says_to_run_runs(host: Host, site: Site, page: str) -> None:
    event = new_event()
    assert site.send(event).status_code == 200
    own = {"DOMAIN": site.domain, "EVENT": event["id"], "PAYMENT": event["data"]["id"]}
    asked = [re.sub(r"\b(DOMAIN|EVENT|PAYMENT)\b", lambda word: own[word[0]], line) for line in commands(page)]
    done = json.loads(host.check_output(f"timeout 120 python3 -c '{RUN}' <<'END'\n{json.dumps(asked)}\nEND"))
    fine = {True: (0, 1, BROKEN_PIPE), False: (0, BROKEN_PIPE)}
    wrong = [each for each in done if each[1] not in fine[bool(FINDERS.search(each[0]))]]
    assert (len(done), wrong) == (len(commands(page)), [])


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
