"""Deploys and rollbacks under load; releases that are no good; and what is cut off half-way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from tests.host.recorder import Recorder

from .clone import Clone, Play
from .conftest import ledger, processes, serving, subjects

# A byte in the midst of the bundle that was just built.
DAMAGE = """
- name: Damage
  ansible.builtin.shell: >-
    printf X | dd of={{ (__webhook_app_build.stdout | from_json).path }} bs=1 seek=3000000 conv=notrunc
  delegate_to: localhost
  become: false
  changed_when: true
  vars:
    ansible_connection: local
"""


@contextmanager
def hooks(clone: Clone, **files: str) -> Iterator[None]:
    """Give the inventory tasks of the user's own."""
    folder = clone.path / "molecule/release/inventory/hooks"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.yml").write_text(text)
    try:
        yield
    finally:
        shutil.rmtree(folder)


def health(host: Host) -> dict[str, object]:
    """Return what the receiver that serves says of itself."""
    slot = host.check_output("basename $(readlink /opt/molam-webhook/active)")
    ask = "import http.client, socket; c = http.client.HTTPConnection('x'); c.sock = socket.socket(socket.AF_UNIX); "
    ask += f"c.sock.connect('/run/molam-webhook-admin/receiver-{slot}.sock'); c.request('GET', '/health'); "
    ask += "print(c.getresponse().read().decode())"
    answer: dict[str, object] = json.loads(host.check_output(f'python3 -c "{ask}"'))
    return answer


def test_a_bare_host_gets_the_latest_release(host: Host, first: Play) -> None:
    assert first.status == 0, first.said[-3000:]
    assert serving(host) == "v9.0.0"
    (entry,) = ledger(host)["entries"]
    assert (entry["action"], entry["from_release"], entry["result"]) == ("deploy", None, "done")


def test_to_and_fro(host: Host, releases: Clone, load: list[tuple[str, int]], chat: Recorder) -> None:
    """Forward twice, back twice, and to an older tag, all under load; and the team is told of each."""
    began = len(ledger(host)["entries"])
    for release in ("v9.1.0", "v9.2.0"):
        play = releases.deploy(release)
        assert play.status == 0, play.said[-3000:]
        assert serving(host) == release
        assert health(host)["built_for"] == "tests"
    for release in ("v9.1.0", "v9.0.0"):
        play = releases.play("playbooks/rollback.yml")
        assert play.status == 0, play.said[-3000:]
        assert serving(host) == release
    assert "built_for" not in health(host)
    # Those that were left are not gone back to by themselves, and before this one there was none.
    assert {*ledger(host)["bad"]} == {"v9.1.0", "v9.2.0"}
    play = releases.play("playbooks/rollback.yml")
    assert play.status != 0
    assert "there is no release to go back to by itself" in play.said
    for release in ("v9.2.0", "v9.1.0"):
        assert releases.deploy(release).status == 0
    entries = ledger(host)["entries"][began:]
    assert [(entry["action"], entry["to_release"], entry["result"]) for entry in entries] == [
        ("deploy", "v9.1.0", "done"),
        ("deploy", "v9.2.0", "done"),
        ("rollback", "v9.1.0", "done"),
        ("rollback", "v9.0.0", "done"),
        ("deploy", "v9.2.0", "done"),
        ("deploy", "v9.1.0", "done"),
    ]
    assert subjects(chat) == [
        "release: Deploy of v9.1.0 is done",
        "release: Deploy of v9.2.0 is done",
        "release: Rollback to v9.1.0 is done",
        "release: Rollback to v9.0.0 is done",
        "release: Deploy of v9.2.0 is done",
        "release: Deploy of v9.1.0 is done",
    ]
    assert {entry["commit"] for entry in entries} == {releases.commit(f"v9.{number}.0") for number in range(3)}
    assert len(load) > 100


def test_the_same_again_changes_nothing(host: Host, releases: Clone) -> None:
    before = processes(host), len(ledger(host)["entries"])
    play = releases.deploy(serving(host))
    assert play.status == 0, play.said[-3000:]
    assert re.search(r"^release .* changed=0 ", play.said, re.MULTILINE), play.said[-3000:]
    assert (processes(host), len(ledger(host)["entries"])) == before


def test_a_run_that_names_no_release_keeps_the_one_that_serves(host: Host, releases: Clone) -> None:
    before = processes(host)
    assert serving(host) == "v9.1.0"
    play = releases.play("site.yml")
    assert play.status == 0, play.said[-3000:]
    assert re.search(r"^release .* changed=0 ", play.said, re.MULTILINE), play.said[-3000:]
    assert processes(host) == before


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ("v9.3.0", "no_such_thing"),
        ("v9.4.0", "is not ready"),
        ("v9.5.0", "a forged event is refused"),
        ("v9.6.0", "division by zero"),
        ("v9.9.9", "there is no tag v9.9.9"),
        ("9.1.0", "a tag of this clone"),
    ],
)
def test_a_release_that_is_no_good(
    host: Host, releases: Clone, load: list[tuple[str, int]], chat: Recorder, release: str, reason: str
) -> None:
    before = processes(host), serving(host)
    play = releases.deploy(release)
    assert play.status != 0
    assert reason in play.said, play.said[-3000:]
    assert "The switch itself was made" not in play.said
    assert (processes(host), serving(host)) == before
    # Nothing is left that an alarm would be of.
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""
    # What is no tag is refused before any host is asked.
    assert subjects(chat) == ([f"release: Deploy of {release} FAILED"] if release.startswith("v") else [])
    assert len(load) > 0


@pytest.mark.parametrize("serves", ["v9.2.0", "v9.1.0"])
def test_a_tag_that_was_moved(host: Host, releases: Clone, at: Callable[[str], None], serves: str) -> None:
    at("v9.2.0")
    at(serves)
    before = processes(host)
    commit = releases.commit("v9.2.0")
    releases.move("v9.2.0", "v9.0.0")
    try:
        play = releases.deploy("v9.2.0")
    finally:
        releases.move("v9.2.0", commit)
    assert play.status != 0
    assert "must not be moved" in play.said or "it is no release" in play.said, play.said[-3000:]
    assert processes(host) == before


def test_a_bundle_that_is_damaged_on_its_way(
    host: Host, releases: Clone, load: list[tuple[str, int]], at: Callable[[str], None]
) -> None:
    at("v9.1.0")
    before = processes(host)
    host.check_output("rm -rf /opt/molam-webhook/releases/v9.2.0")
    with hooks(releases, after_build=DAMAGE):
        play = releases.deploy("v9.2.0")
    assert play.status != 0
    assert "computed checksum did NOT match" in play.said, play.said[-3000:]
    assert (processes(host), serving(host)) == (before, "v9.1.0")
    assert len(load) > 0
    # Nothing of it is kept, here or there, that a second run would take for good.
    at("v9.2.0")


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("/opt/molam-webhook/releases", "No space left on device"), ("/var/lib/molam-webhook", "make room")],
)
def test_a_full_disk(
    host: Host, releases: Clone, load: list[tuple[str, int]], at: Callable[[str], None], folder: str, reason: str
) -> None:
    at("v9.1.0")
    before = processes(host)
    host.check_output("rm -rf /opt/molam-webhook/releases/v9.2.0")
    # A disk of its own, with all that is there and some MiB.
    host.check_output(
        f"mkdir /run/disk && size=$(($(du -sm {folder} | cut -f1) + 8)) && "
        f"mount -t tmpfs -o mode=0755,size=${{size}}m tmpfs /run/disk && "
        f"cp -a {folder}/. /run/disk && mount --bind /run/disk {folder} && umount /run/disk && rmdir /run/disk"
    )
    try:
        play = releases.deploy("v9.2.0")
    finally:
        host.check_output(f"umount --lazy {folder}")
    assert play.status != 0
    assert reason in play.said, play.said[-3000:]
    assert (processes(host), serving(host)) == (before, "v9.1.0")
    assert len(load) > 0
    at("v9.2.0")


@pytest.mark.parametrize("moment", ["Build, unless", "Unpack the bundle", "Wait until the release is", "To the slot"])
def test_the_control_machine_dies(
    host: Host, releases: Clone, load: list[tuple[str, int]], at: Callable[[str], None], moment: str
) -> None:
    """At each stage; the same command run again finishes."""
    at("v9.1.0")
    host.check_output("rm -rf /opt/molam-webhook/releases/v9.2.0")
    releases.forget_bundles()
    process = releases.start("playbooks/deploy.yml", release="v9.2.0")
    assert process.stdout is not None
    assert any(line.startswith("TASK") and moment in line for line in process.stdout)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert serving(host) in {"v9.1.0", "v9.2.0"}
    play = releases.deploy("v9.2.0")
    assert play.status == 0, play.said[-3000:]
    assert serving(host) == "v9.2.0"
    assert ledger(host)["begun"] is None
    assert len(load) > 0


def test_a_release_that_is_no_longer_on_the_host_is_built_again(
    host: Host, releases: Clone, load: list[tuple[str, int]], at: Callable[[str], None]
) -> None:
    at("v9.2.0")
    host.check_output("rm -rf /opt/molam-webhook/releases/v9.0.0")
    play = releases.play("playbooks/rollback.yml", release="v9.0.0")
    assert play.status == 0, play.said[-3000:]
    assert serving(host) == "v9.0.0"
    assert len(load) > 0


def test_hooks_run_in_their_order(host: Host, releases: Clone, at: Callable[[str], None]) -> None:
    at("v9.1.0")
    moments = [f"{when}_{stage}" for stage in ("build", "install", "switch", "smoke") for when in ("before", "after")]
    write = "- name: Write\n  ansible.builtin.shell: echo {} >>/run/moments\n  changed_when: true\n"
    with hooks(releases, **{moment: write.format(moment) for moment in moments}):
        assert releases.deploy("v9.2.0").status == 0
    assert host.check_output("cat /run/moments").split() == moments
    with hooks(releases, after_swich=""):
        play = releases.deploy("v9.1.0")
    assert play.status != 0
    assert "after_swich.yml, which would never run" in play.said
    assert serving(host) == "v9.2.0"


def succeeds(host: Host, command: str) -> bool:
    """Run a command on a host that may not let anybody in yet."""
    try:
        return bool(host.run(command).rc == 0)
    except RuntimeError:
        return False


@pytest.mark.parametrize("step", ["start", "serve"])
def test_the_host_reboots(host: Host, releases: Clone, at: Callable[[str], None], step: str) -> None:
    """In the middle of a switch: it serves again by itself, and the same command finishes."""
    at("v9.2.0")
    at("v9.1.0")
    started = "systemctl show --value --property=UserspaceTimestampMonotonic"
    before = host.check_output(started)
    read = f'while read -r line; do case $line in *": {step}"*) systemctl reboot --force ;; esac; done'
    host.check_output(
        "systemd-run --collect --unit=test-reboot sh -c %s", f"molam-webhook-switch deploy v9.2.0 2>&1 | {read}"
    )
    serves = f'test "$({started})" != {before} && '
    serves += "molam-webhook-switch ask 'selftest --uds /run/molam-webhook/current.sock'"
    deadline = time.monotonic() + 90
    while not succeeds(host, serves):
        assert time.monotonic() < deadline
        time.sleep(1)
    play = releases.deploy("v9.2.0")
    assert play.status == 0, play.said[-3000:]
    assert serving(host) == "v9.2.0"


def test_a_release_that_the_schema_does_not_allow(
    host: Host, releases: Clone, load: list[tuple[str, int]], at: Callable[[str], None]
) -> None:
    """What a contract took away cannot be gone back to. This comes last, for that reason."""
    at("v9.1.0")
    at("v9.7.0")
    host.check_output(
        "set -a; . /etc/molam-webhook/settings/environment; cd /; "
        "runuser -u molam_webhook_owner -- /opt/molam-webhook/active/run migrate --contract"
    )
    before = processes(host)
    play = releases.play("playbooks/rollback.yml")
    assert play.status != 0
    assert re.search(r"revision \d+ took\s+away what this release uses", play.said), play.said[-3000:]
    assert "run the same again with -e release=v9.1.0" in " ".join(play.said.split())
    assert (processes(host), serving(host)) == (before, "v9.7.0")
    assert len(load) > 0
