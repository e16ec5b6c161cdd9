"""What the playbook would change on a host: its check mode, read from Ansible's events and put into words."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.verify.checklist import ROOT
from tests.verify.difference import Difference, Kind
from tests.verify.result import shortened
from tests.verify.target import Target

PLAYBOOK = ROOT / "tests" / "verify" / "drift.yml"
# The task of that playbook whose message is what the inventory says.
SAID = "What they say"
SECONDS_AT_MOST = 600
FAILED = 1
# The one task that changes something in check mode: apt's lists (role base).
LISTS = "package_lists"
# Of a file so many lines are told, each so long: more is read in `site.yml --check --diff`.
DIFF_LINES = 6
DIFF_CHARACTERS = 120

Hide = Callable[[str], str]
Json = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """What a check run found.

    `said` is what the inventory says, {} where it did not come to that; `paths` are the files that tasks looked at, and
    `fault` is why it did not come to its end, '' where it did.
    """

    differences: list[Difference] = field(default_factory=list)
    said: Json = field(default_factory=dict)
    paths: frozenset[str] = frozenset()
    fault: str = ""


def run(of: Target, hide: Hide) -> Check:
    """Run the playbook in check mode against one host; ``hide`` takes secrets out of a text."""
    command = [
        "ansible-playbook",
        f"--inventory={of.inventory}",
        f"--limit={of.name}",
        "--check",
        "--diff",
        f"--skip-tags={LISTS}",
        str(PLAYBOOK),
    ]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl",
    }
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
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        output = said if isinstance(said, str) else said.decode(errors="replace")
        return read(output, FAILED, hide, f"it did not end within {SECONDS_AT_MOST} s")
    return read(answer.stdout, answer.returncode, hide, hide(answer.stderr))


def read(output: str, status: int, hide: Hide, complaint: str = "") -> Check:
    """Read what a check run printed, and how it ended. Secrets are taken out first: what is cut hides half of one."""
    said: Json = {}
    fault = ""
    ended = False
    differences: list[Difference] = []
    paths: set[str] = set()
    for event in events(output):
        kind, task = event.get("_event"), event.get("task", {})
        ended = ended or kind == "v2_playbook_on_stats"
        for result in event.get("hosts", {}).values():
            if kind == "v2_runner_on_ok" and task.get("name") == SAID and isinstance(result.get("msg"), dict):
                said = result["msg"]
            elif kind in ("v2_runner_on_failed", "v2_runner_on_unreachable"):
                fault = f"{named(task)}: {reason(masked(result, hide))}"
            elif kind == "v2_runner_on_ok" and not is_handler(task):
                differences += of_task(task, masked(result, hide))
                paths |= {path_of(part) for part in parts(result)} - {""}
    if status == 0 and ended:
        # What failed on the way was mended by the playbook itself.
        return Check(differences, said, frozenset(paths))
    return Check(
        differences, said, frozenset(paths), fault or shortened(complaint) or f"ansible-playbook ended with {status}"
    )


def events(output: str) -> Iterator[Json]:
    """Yield the events among the lines of a run; what else it printed is none."""
    for line in output.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def masked(value: Any, hide: Hide) -> Any:  # noqa: ANN401  any JSON value
    """Return a result with no secret in any text of it."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {key: masked(part, hide) for key, part in value.items()}
    if isinstance(value, list):
        return [masked(part, hide) for part in value]
    return value


def is_handler(task: Mapping[str, Any]) -> bool:
    """Say whether a task only follows from one that changed something."""
    return "/handlers/" in str(task.get("path", ""))


def named(task: Mapping[str, Any]) -> str:
    """Return where a task stands, as a log names it: role and name."""
    name = str(task.get("name") or "a task without a name")
    role = role_of(task)
    return f"role {role}, {name.removeprefix(f'{role} : ')}" if role else name


def role_of(task: Mapping[str, Any]) -> str:
    """Return the role that a task stands in, or ''."""
    found = re.search(r"/roles/([^/]+)/", str(task.get("path", "")))
    return found[1] if found else ""


def reason(result: Json) -> str:
    """Return why a task failed, in its own words."""
    items = [item for item in result.get("results", []) if isinstance(item, dict) and item.get("failed")]
    texts = [str(part.get(key) or "") for part in (*items, result) for key in ("stderr", "msg")]
    return shortened(next((text for text in texts if text.strip()), "it failed and says no more"))


def of_task(task: Mapping[str, Any], result: Json) -> Iterator[Difference]:
    """Yield what a task would change: of a loop, each of its items that it would."""
    for part in parts(result):
        if part.get("changed") and not part.get("skipped") and not part.get("failed"):
            yield difference(task, {"action": result.get("action", "")} | part)


def parts(result: Json) -> list[Json]:
    """Return the results of a loop's items, or the one result where there is no loop."""
    given = result.get("results")
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    return items if any("ansible_loop_var" in item for item in items) else [result]


def difference(task: Mapping[str, Any], result: Json) -> Difference:
    """Put into words what a task would change of one thing."""
    what, words = in_words(result)
    role = role_of(task)
    others = f" (on {result['_ansible_delegated_vars']['ansible_host']})" if delegated(result) else ""
    mend = "Run site.yml on it, which makes it so. Is what is there meant? Then say so in the inventory first"
    mend += f": roles/{role}/README.md." if role else "."
    return Difference(Kind.SETTING, what or named(task), f"{words}{others} [{named(task)}]", mend, diff_of(result))


def delegated(result: Json) -> bool:
    """Say whether a task looked at another host than the one it was run for."""
    other = result.get("_ansible_delegated_vars")
    return isinstance(other, dict) and bool(other.get("ansible_host"))


def in_words(result: Json) -> tuple[str, str]:
    """Return what a changed result is about ('' where that is not known), and what is there and would be."""
    action = str(result.get("action", "")).rpartition(".")[2]
    asked = asked_of(result)
    if "censored" in result:
        return "", "differs; a secret is in it, so what differs is not shown"
    if action in ("systemd", "systemd_service", "service"):
        return of_unit(result, asked)
    if action == "apt":
        return of_packages(result, asked)
    if action == "unarchive":
        return str(
            result.get("dest") or asked.get("dest") or ""
        ), "holds other files than the playbook would unpack there"
    if action in ("command", "shell"):
        made = asked.get("creates") or asked.get("removes") or ""
        is_there = "is still there" if asked.get("removes") else "is not there"
        line = result.get("cmd")
        # Options say how it is run, in check mode otherwise than else.
        words = [str(word) for word in line if not str(word).startswith("-")] if isinstance(line, list) else [str(line)]
        if made:
            return str(made), f"{is_there}: a command would be run"
        return shortened(" ".join(words)) if line else "", "would be run, and change something"
    if action.startswith("postgresql_"):
        name = asked.get("name") or asked.get("db") or asked.get("privs")
        return f"PostgreSQL: {name}" if name else "PostgreSQL", f"would be changed: {shortened(queries(result))}"
    path = path_of(result)
    return path, of_file(result) if path else shortened(str(result.get("msg") or "would be changed"))


def queries(result: Json) -> str:
    """Return what would be said to PostgreSQL."""
    return "; ".join(str(query) for query in result.get("queries", [])) or "it is not as asked for"


def asked_of(result: Json) -> Json:
    """Return what a module was asked for."""
    invocation = result.get("invocation")
    asked = invocation.get("module_args") if isinstance(invocation, dict) else None
    return asked if isinstance(asked, dict) else {}


def path_of(result: Json) -> str:
    """Return the path of the file that a result is about, or ''."""
    asked = asked_of(result)
    for diff in diffs(result):
        after = diff.get("after")
        path = after.get("path") if isinstance(after, dict) else None
        if path:
            return str(path)
    return str(result.get("dest") or result.get("path") or asked.get("dest") or asked.get("path") or "")


def diffs(result: Json) -> list[Json]:
    """Return the differences that a module gave, as a list whichever form they have."""
    given = result.get("diff")
    return [part for part in (given if isinstance(given, list) else [given]) if isinstance(part, dict)]


def of_file(result: Json) -> str:
    """Say how a file or folder differs."""
    told: list[str] = []
    for diff in diffs(result):
        before, after = diff.get("before"), diff.get("after")
        if isinstance(before, dict) and isinstance(after, dict):
            told += [
                state_words(before[key], value)
                if key == "state"
                else f"its {key} is {before[key]} and would be {value}"
                for key, value in after.items()
                if key in before and before[key] != value and key not in ("path", "atime", "mtime")
            ]
        elif isinstance(before, str) and isinstance(after, str) and before != after:
            told.append("has other content" if before else "is not there, or empty, and would be made")
    return "; ".join(told) or "is not as the playbook would make it"


def state_words(before: object, after: object) -> str:
    """Say what becomes of a path."""
    if before == "absent":
        return f"is not there and would be made ({after})"
    return f"is there ({before}) and would be removed" if after == "absent" else f"is a {before} and would be a {after}"


def of_unit(result: Json, asked: Json) -> tuple[str, str]:
    """Say how a unit stands, and how it would."""
    status: Json = result["status"] if isinstance(result.get("status"), dict) else {}
    now = [str(status.get(key) or "") for key in ("ActiveState", "UnitFileState")]
    would = []
    if asked.get("state"):
        would.append(str(asked["state"]))
    if asked.get("enabled") is not None:
        would.append("enabled at boot" if asked["enabled"] else "not enabled at boot")
    is_now = " and ".join(word for word in now if word) or "not as asked for"
    return str(
        result.get("name") or asked.get("name") or ""
    ), f"is {is_now}; would be {' and '.join(would) or 'changed'}"


def of_packages(result: Json, asked: Json) -> tuple[str, str]:
    """Say which packages are missing, or are there and should not be."""
    plan = str(result.get("stdout") or "")
    names = sorted(set(re.findall(r"(?m)^(?:Inst|Remv) (\S+)", plan)))
    if not names:
        given = asked.get("name") or asked.get("package") or []
        names = [str(name) for name in (given if isinstance(given, list) else [given])]
    gone = asked.get("state") == "absent"
    words = "would be removed" if gone else "would be installed, and what else would change is known when that is there"
    return shortened(f"packages: {', '.join(names)}"), words


def diff_of(result: Json) -> tuple[str, ...]:
    """Return a few lines of what differs in the texts of a file."""
    lines: list[str] = []
    for diff in diffs(result):
        before, after = diff.get("before"), diff.get("after")
        if isinstance(before, str) and isinstance(after, str):
            lines += changed_lines(before, after)
    return cut(lines)


def changed_lines(before: str, after: str) -> list[str]:
    """Return the lines that are not in both texts, marked ``-`` and ``+``."""
    compared = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))
    return [line for line in compared[2:] if not line.startswith("@@")]


def cut(lines: list[str]) -> tuple[str, ...]:
    """Return no more lines, and no more of each, than somebody reads; what is not printed is shown as `?`."""
    told = ["".join(letter if letter.isprintable() else "?" for letter in line.replace("\t", " ")) for line in lines]
    told = [line if len(line) <= DIFF_CHARACTERS else f"{line[: DIFF_CHARACTERS - 1]}…" for line in told]
    rest = len(told) - DIFF_LINES
    return (*told[:DIFF_LINES], *([f"… and {rest} more lines"] if rest > 0 else []))
