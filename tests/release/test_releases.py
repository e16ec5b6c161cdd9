"""Deploys and rollbacks under load; releases that are no good; and what is cut off half-way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable

import pytest
from testinfra.host import Host

from .clone import Clone, Play
from .conftest import ledger, processes, serving


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


def test_to_and_fro(host: Host, releases: Clone, load: list[tuple[str, int]]) -> None:
    """Forward twice, back twice, and to an older tag, all under load."""
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
    host: Host, releases: Clone, load: list[tuple[str, int]], release: str, reason: str
) -> None:
    before = processes(host), serving(host)
    play = releases.deploy(release)
    assert play.status != 0
    assert reason in play.said, play.said[-3000:]
    assert (processes(host), serving(host)) == before
    assert len(load) > 0


def test_a_tag_that_was_moved(host: Host, releases: Clone, at: Callable[[str], None]) -> None:
    at("v9.1.0")
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
    hooks = releases.path / "molecule/release/inventory/hooks"
    hooks.mkdir()
    moments = [f"{when}_{stage}" for stage in ("build", "install", "switch", "smoke") for when in ("before", "after")]
    for moment in moments:
        write = f"- name: Write\n  ansible.builtin.shell: echo {moment} >>/run/moments\n  changed_when: true\n"
        (hooks / f"{moment}.yml").write_text(write)
    assert releases.deploy("v9.2.0").status == 0
    assert host.check_output("cat /run/moments").split() == moments
    (hooks / "after_swich.yml").write_text("")
    play = releases.deploy("v9.1.0")
    assert play.status != 0
    assert "after_swich.yml, which would never run" in play.said
    assert serving(host) == "v9.2.0"
    shutil.rmtree(hooks)


@pytest.mark.parametrize("step", ["start", "serve"])
def test_the_host_reboots(host: Host, releases: Clone, at: Callable[[str], None], step: str) -> None:
    """In the middle of a switch: it serves again by itself, and the same command finishes."""
    at("v9.1.0")
    host.check_output("molam-webhook-switch mark v9.2.0 --good")
    read = f'while read -r line; do case $line in *": {step}"*) systemctl reboot --force ;; esac; done'
    host.check_output(
        "systemd-run --collect --unit=test-reboot sh -c %s", f"molam-webhook-switch deploy v9.2.0 2>&1 | {read}"
    )
    time.sleep(3)
    for _ in range(60):
        if (
            host.run("systemctl is-active nginx molam.service").rc == 0
            and host.run("molam-webhook-switch ask selftest\\ --uds\\ /run/molam-webhook/current.sock").rc == 0
        ):
            break
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
    assert (processes(host), serving(host)) == (before, "v9.7.0")
    assert len(load) > 0
