"""Breaks what the checklist asks for, to see that a verification finds it, and mends it again (sabotages.yml).

For test hosts, and clones that nobody works in. Several sabotages are made at once, and looked at in one verification,
where no line is broken by two of them: each red line is one's own then.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("sabotages.yml")

# Copies of what was changed on the host lie in memory: a boot would not bring back what is there.
ON_HOST = r"""
cd /
umask 022
kept=/run/molam-sabotage
slot=$(basename "$(readlink /opt/molam-webhook/active)")
app=$(echo /opt/molam-webhook/active/venv/lib/python3*/site-packages/molam_webhook)
site=/etc/nginx/conf.d/molam-webhook.conf
keep() {
  local file
  mkdir --parents --mode=700 "$kept"
  for file; do
    file=$(realpath "$file")
    mkdir --parents "$kept/files$(dirname "$file")"
    [ -e "$kept/files$file" ] || cp --archive "$file" "$kept/files$file"
  done
}
# What changes nothing is no sabotage, and fails.
change() {
  keep "$1"
  cp "$1" "$kept/before"
  sed --in-place --follow-symlinks --regexp-extended "$2" "$1"
  ! cmp --silent "$1" "$kept/before"
}
sql() { runuser -u postgres -- psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --command="$1" molam_webhook; }
# Of the slot that serves: another one may be made ready for it.
secret() {
  systemd-creds decrypt --name=keyring "/etc/molam-webhook/slots/$slot/keyring.cred" - 2>/dev/null |
    python3 -c 'import json, sys; print(next(iter(json.load(sys.stdin).values()))["secret"])'
}
"""
PUT_BACK = r"""
if [ -e "$kept/files" ]; then
  cd "$kept/files"
  find . -type f -exec cp --archive {} /{} \;
  cd /
fi
rm --recursive --force "$kept"
"""
IN_CLONE = r"""
on_host() { ssh -F .state/ssh/config "$ADDRESS" "$@"; }
request() { ansible localhost --module-name=community.crypto.openssl_csr --args="$* mode=0600" >/dev/null; }
certificate() {
  ansible localhost --module-name=community.crypto.x509_certificate --args="provider=ownca force=true mode=0600 \
    ownca_path=.state/pki/ca.pem ownca_privatekey_path=.state/pki/ca.key $*" >/dev/null
}
"""
# In this order. A receiver that was told to start has started when systemctl ends; nginx answers as before until its
# new processes do.
THEN = {
    "systemd": "systemctl daemon-reload",
    "receiver": 'systemctl restart "molam-webhook@$slot"',
    "worker": 'systemctl restart "molam-webhook-worker@$slot"',
    "ssh": "systemctl reload ssh",
    "nginx": "nginx -t -q -c /etc/nginx/molam.conf && systemctl reload nginx && sleep 1",
}


class SabotageError(Exception):
    """Something could not be broken, or not be mended again; the text says what."""


@dataclass(frozen=True)
class Sabotage:
    """One slip: the lines that it breaks, with words of what is seen there, and how it is made and taken back."""

    name: str
    breaks: Mapping[str, str]
    host: str = ""
    undo: str = ""
    clone: str = ""
    undo_clone: str = ""
    inventory: Mapping[str, object] = field(default_factory=dict)
    then: Sequence[str] = ()


Batch = Sequence[Sabotage]


@dataclass(frozen=True)
class Place:
    """Where it is done: a clone, an inventory of it, and a test host of that, which nobody else uses."""

    clone: Path
    inventory: str
    host: str

    @cached_property
    def address(self) -> str:
        """Return where SSH reaches the host."""
        command = ["ansible-inventory", f"--inventory=inventories/{self.inventory}", f"--host={self.host}"]
        return str(json.loads(_run(self, command))["ansible_host"])


def read(file: Path = FILE) -> list[Sabotage]:
    """Return all sabotages, in the order in which they stand there."""
    return [Sabotage(name, **entry) for name, entry in yaml.safe_load(file.read_text()).items()]


def batches(sabotages: Iterable[Sabotage]) -> list[Batch]:
    """Return what is made at once: as few batches as there can be, and about as many broken lines in each of them.

    In one batch no two break the same line. Of those that do, who stands first is made, and mended, first. The more
    lines are left whole in a batch, the more is seen of what a sabotage breaks beside its own.
    """
    given = list(sabotages)

    def shared(one: Sabotage, others: Iterable[int]) -> list[int]:
        return [other for other in others if one.breaks.keys() & given[other].breaks.keys()]

    # How many batches have to come after each one's.
    after = [0] * len(given)
    for index in reversed(range(len(given))):
        after[index] = max(
            (after[later] + 1 for later in shared(given[index], range(index + 1, len(given)))), default=0
        )
    made: list[list[Sabotage]] = [[] for _ in range(max(after, default=-1) + 1)]
    chosen: list[int] = []
    for index, one in enumerate(given):
        first = max((chosen[before] + 1 for before in shared(one, range(index))), default=0)
        free = range(first, len(made) - after[index])
        chosen.append(min(free, key=lambda number: sum(len(other.breaks) for other in made[number])))
        made[chosen[index]].append(one)
    return list(made)


@contextmanager
def sabotaged(place: Place, batch: Batch) -> Iterator[None]:
    """Have these slips made for as long as it lasts; raise SabotageError where that, or the way back, fails."""
    try:
        make(place, batch)
        yield
    finally:
        undo(place, batch)


def make(place: Place, batch: Batch) -> None:
    """Make these slips, and have noticed what is looked at only at a start; raise SabotageError."""
    _on_host(place, {one.name: one.host for one in batch})
    for one in batch:
        _in_clone(place, one.clone)
    _on_host(place, _noticed(batch))


def undo(place: Place, batch: Batch) -> None:
    """Take these slips back, made or not; one that can't be keeps no other from it. Raise SabotageError at the end."""
    faults = []
    for one in batch:
        try:
            _in_clone(place, one.undo_clone)
        except SabotageError as error:
            faults.append(str(error))
    shutil.rmtree(_other_inventory(place), ignore_errors=True)
    try:
        # First what was there before: some of what follows reads it.
        _on_host(place, {"put back": PUT_BACK, **{one.name: one.undo for one in batch}, **_noticed(batch)})
    except SabotageError as error:
        faults.append(str(error))
    if faults:
        raise SabotageError("\n".join(faults))


def verify(place: Place, batch: Batch, reports: Path) -> dict[str, Any]:
    """Run the clone's verification, with the inventory as the batch has it, and return its report."""
    inventory = place.clone / "inventories" / place.inventory
    variables = {name: value for one in batch for name, value in one.inventory.items()}
    if variables:
        changed = _other_inventory(place)
        shutil.copytree(inventory, changed, dirs_exist_ok=True)
        # Read after the inventory's own, whatever that is called.
        (changed / "group_vars" / "all" / "zz_sabotage.yml").write_text(yaml.safe_dump(variables))
        inventory = changed
    command = [sys.executable, "-m", "tests.verify.run", f"--inventory={inventory}", f"--limit={place.host}", "--json"]
    said = json.loads(_run(place, [*command, "--lines-only", f"--reports={reports}"], well=(0, 1)))
    report: dict[str, Any] = said[0]
    return report


def _other_inventory(place: Place) -> Path:
    """Beside the place's own: what it names by its folder is the same."""
    return place.clone / "inventories" / f"{place.inventory}-sabotaged"


def _noticed(batch: Batch) -> dict[str, str]:
    wanted = {name for one in batch for name in one.then}
    return {f"then: {name}": command for name, command in THEN.items() if name in wanted}


def _on_host(place: Place, scripts: Mapping[str, str]) -> None:
    """Run scripts on the host, all of them; raise SabotageError with what those said that failed."""
    text = "failed=0\n"
    for name, script in scripts.items():
        if script:
            run = f"bash -euo pipefail -c {shlex.quote(ON_HOST + script)}"
            text += f"said=$({run} 2>&1) || {{ failed=1; printf '%s: %s\\n' {shlex.quote(name)} \"$said\"; }}\n"
    ssh = ["ssh", "-F", ".state/ssh/config", place.address, "bash"]
    _run(place, ssh, text + "exit $failed\n")


def _in_clone(place: Place, script: str) -> None:
    if script:
        named = f"HOST={shlex.quote(place.host)} ADDRESS={shlex.quote(place.address)}\n"
        _run(place, ["bash", "-euo", "pipefail", "-c", named + IN_CLONE + script])


def _run(place: Place, command: Sequence[str], stdin: str = "", *, well: Sequence[int] = (0,)) -> str:
    """Run a command in the clone and return what it printed; raise SabotageError where it does not end well."""
    # The tests that this is called from are not those that a verification runs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment |= {"PYTHONPATH": str(place.clone), "ANSIBLE_CONFIG": str(place.clone / "ansible.cfg")}
    answer = subprocess.run(
        command, cwd=place.clone, env=environment, input=stdin, capture_output=True, text=True, check=False
    )
    if answer.returncode not in well:
        raise SabotageError(f"{shlex.join(command)[:200]}: {answer.stdout[-2000:]}{answer.stderr[-2000:]}")
    return answer.stdout
