"""What the runbooks say to run, runs: each command of a block marked ``sh`` (docs/runbooks/README.md)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from testinfra.host import Host

from .conftest import Site, new_event

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {
    str(path.relative_to(DOCS)): re.findall(r"^```sh\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    for path in sorted(DOCS.rglob("*.md"))
}

# They exit 1 where they find something, which is no fault of theirs.
FINDERS = re.compile(r"molam-webhook (status|events reconcile)\b|molam-check( --json)?( \||$)")

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
