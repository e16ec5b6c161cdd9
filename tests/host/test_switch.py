"""A change of keys, settings or release: no request is dropped, and what fails leaves the old slot serving."""

from __future__ import annotations

import json
import shlex
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from .conftest import Site, new_event, slot_in_use
from .hunt import inventory_secrets, secret_variables, seen, texts
from .load import load, stored, until_taken
from .playbooks import play

pytestmark = pytest.mark.intrusive

SETTINGS = "/etc/molam-webhook/settings/environment"
STEPS = ("fill", "migrate", "start", "self-test", "serve")


def release_in_use(host: Host) -> str:
    return str(host.check_output("basename $(readlink -f /opt/molam-webhook/active)"))


def receiver(host: Host) -> Any:  # noqa: ANN401  systemd's own word
    """Return the process that serves."""
    return host.service(f"molam-webhook@{slot_in_use(host)}").systemd_properties["MainPID"]


@pytest.fixture
def change(host: Host) -> Iterator[Callable[[str], None]]:
    """Add a line to the settings that the next switch takes; what was there is put in use again at the end."""
    good = host.check_output(f"cat {SETTINGS}")

    def write(line: str) -> None:
        host.check_output(f"echo '{line}' >> {SETTINGS}")

    yield write
    host.check_output(f"cat > {SETTINGS} <<'END'\n{good}\nEND")
    host.check_output("molam-webhook-switch apply")


def test_no_request_is_dropped(host: Host, site: Site, change: Callable[[str], None]) -> None:
    """Three switches, to and fro, under load."""
    release = release_in_use(host)
    before = slot_in_use(host)
    with load(site) as answers:
        for number in range(3):
            change(f"DATABASE_POOL_IDLE_SECONDS={31 + number}")
            assert host.check_output("molam-webhook-switch apply").splitlines()[-1].endswith(f"serves {release}")
    assert slot_in_use(host) != before
    assert len(answers) > 20
    assert [answer for answer in answers if answer[1] != 200] == []
    assert stored(host, [event_id for event_id, _ in answers])[0] == len(answers)
    # The other slot stops by itself.
    for unit in (f"molam-webhook@{before}", f"molam-webhook-worker@{before}"):
        host.check_output(
            f"timeout 20 sh -c 'until systemctl is-active {unit} | grep -qx inactive; do sleep 0.2; done'"
        )


def test_a_new_key_overlaps_with_the_old_one(host: Host, site: Site) -> None:
    secret = f"whsec_{uuid.uuid4().hex}"
    old = {site.kid: {"secret": site.secret, "state": "active"}}
    new = {"v-new": {"secret": secret, "state": "active"}}

    def put_in_use(keys: dict[str, Any]) -> None:
        wanted = json.dumps({"keyring": json.dumps(keys, sort_keys=True)})
        host.check_output(f"molam-webhook-credentials <<'END'\n{wanted}\nEND")
        host.check_output("molam-webhook-switch apply")

    assert site.send(new_event(), kid="v-new", secret=secret).json() == {"error": "unknown_key"}
    try:
        with load(site) as answers:
            put_in_use(old | new)
        assert {status for _, status in answers} == {200}
        # For half a second nginx has connections to the slot before, which does not know it.
        time.sleep(1)
        assert site.send(new_event(), kid="v-new", secret=secret).status_code == 200
    finally:
        put_in_use(old)
    assert site.send(new_event(), kid="v-new", secret=secret).status_code == 503


def test_the_same_again_changes_nothing(host: Host) -> None:
    serving = receiver(host)
    assert host.check_output("molam-webhook-switch apply") == "unchanged"
    assert receiver(host) == serving


@pytest.mark.parametrize(
    "line", ["LOG_LEVEL=loud", "DATABASE_POOL_MAX=0", "MOLAM_WEBHOOK_SECRET=whsec_a_second_place_1"]
)
def test_settings_that_the_receiver_refuses(host: Host, change: Callable[[str], None], line: str) -> None:
    serving = receiver(host)
    change(line)
    answer = host.run("molam-webhook-switch apply")
    assert answer.rc == 1
    assert line.partition("=")[0] in answer.stderr
    assert "goes on with release" in answer.stderr
    assert receiver(host) == serving


def test_a_release_that_does_not_start(host: Host, site: Site) -> None:
    serving = receiver(host)
    broken = "/opt/molam-webhook/releases/broken"
    program = "#!/bin/sh\ncase $1 in check-config|migrate) ;; *) echo this release is broken >&2; exit 1 ;; esac"
    try:
        host.check_output(f"mkdir {broken} && touch {broken}/complete && echo '{program}' > {broken}/run")
        host.check_output(f"chmod +x {broken}/run")
        answer = host.run("molam-webhook-switch deploy broken")
        assert answer.rc == 1
        assert "this release is broken" in answer.stderr
        assert receiver(host) == serving
        assert site.send(new_event()).status_code == 200
    finally:
        host.run(f"rm -r {broken}")
    assert host.run("molam-webhook-switch deploy broken").rc == 1


def test_units_that_a_failed_switch_left_do_not_reach_the_slot_that_serves(host: Host, site: Site) -> None:
    """It starts again as it was, after a crash or a reboot."""
    template = "/etc/systemd/system/molam-webhook@.service.d/50-reach.conf"
    good = host.check_output(f"cat {template}")
    before = slot_in_use(host)
    host.check_output(f"echo 'LoadCredentialEncrypted=new:/etc/molam-webhook/slots/%i/new.cred' >> {template}")
    try:
        answer = host.run("molam-webhook-switch apply")
        assert answer.rc == 1
        assert f"goes on with release {release_in_use(host)}" in answer.stderr
        host.check_output(f"systemctl daemon-reload && systemctl restart molam-webhook@{before}")
        assert slot_in_use(host) == before
        # It opens its connections once it is up.
        assert until_taken(site, new_event()) == "accepted"
    finally:
        host.check_output(f"cat > {template} <<'END'\n{good}\nEND")
    assert host.check_output("molam-webhook-switch apply") == "unchanged"


def test_a_migration_that_waits_for_a_lock(host: Host, site: Site, change: Callable[[str], None]) -> None:
    serving = receiver(host)
    change("DATABASE_POOL_IDLE_SECONDS=41")
    session = "runuser -u postgres -- psql --no-psqlrc molam_webhook --command"
    hold = "BEGIN; LOCK TABLE alembic_version; SELECT pg_sleep(60)"
    host.check_output(f'systemd-run --quiet {session} "{hold}"')
    try:
        answer = host.run("molam-webhook-switch apply")
        assert answer.rc == 1
        assert "migrat" in answer.stderr
        assert receiver(host) == serving
        assert site.send(new_event()).status_code == 200
    finally:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)'"
        host.check_output(f'{session} "{end}"')


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(STEPS[::2], marks=pytest.mark.debian("13")),
        pytest.param(STEPS[1::2], marks=pytest.mark.debian("12")),
    ],
    ids=" and ".join,
)
def test_killed_half_way(host: Host, site: Site, change: Callable[[str], None], steps: tuple[str, ...]) -> None:
    """At each step in turn: it serves all the while, and the same command run again finishes."""
    release = release_in_use(host)
    with load(site) as answers:
        for number, at in enumerate(steps):
            before = slot_in_use(host)
            change(f"DATABASE_POOL_IDLE_SECONDS={50 + number}")
            # Killed by a reader of its own output, as soon as it names the step.
            kill = "pkill --signal KILL --full '^/usr/bin/python3 .*molam-webhook-switch'"
            read = f'while read -r line; do case $line in *": {at}"*) {kill} ;; esac; done'
            command = f"molam-webhook-switch apply | {read}; exit ${{PIPESTATUS[0]}}"
            assert host.run(f"bash -c {shlex.quote(command)}").rc == 128 + signal.SIGKILL, at
            again = host.check_output("molam-webhook-switch apply").splitlines()[-1]
            assert again == "unchanged" or again.endswith(f"serves {release}")
            assert slot_in_use(host) != before, at
            assert not host.service(f"molam-webhook@{before}").is_running, at
    assert [answer for answer in answers if answer[1] != 200] == []


@pytest.mark.checklist("HOOK-6")
@pytest.mark.debian("12")
def test_no_run_prints_a_secret(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> None:
    """At the highest verbosity that people use, with differences, and with secrets that are new to the host.

    What the play prints that puts new keys in use is read by test_rotation.py.
    """
    keys = [{"kid": kid, "secret": f"whsec_new_{kid}_Zq4Xv9Tn2Lw7Rb", "state": "active"} for kid in ("v1", "v2")]
    new = {
        "webhook_app_forward_secret": "forward_new_Hs6Kp1Wz8Ym3",
        "webhook_app_api_key": "api_new_Tb5Gd9Jx2Nq7",
        "webhook_app_sentry_dsn": "http://sentry_new_Vc8Rf4Lk1@127.0.0.1:9097/1",
        "monitoring_webhook_url": "http://127.0.0.1:9099/chat_new_Mw3Pz7Bq5",
    }
    variables = tmp_path / "secrets.json"
    variables.write_text(json.dumps({"webhook_app_keys": keys, "webhook_app_receiver_networks": ["127.0.0.0/8"]} | new))
    answer = play(request, host, "site.yml", f"--extra-vars=@{variables}", "--check", "--diff", "-vvv")
    assert answer.returncode == 0, answer.stdout[-2000:]
    # They were compared with the host's, and found new.
    task = answer.stdout.partition("Encrypted for this host alone")[2].partition("TASK [")[0]
    assert "changed: [" in task
    # Those of a database elsewhere are looked for in tests/remote_database; what is backed up keeps its key.
    elsewhere = {"webhook_app_database_admin", "webhook_app_database_logins", "backup_key"}
    assert {*secret_variables()} - elsewhere == {"webhook_app_keys", *new}
    secrets = {name: secret for name, value in new.items() for secret in texts(value)}
    secrets |= {key["kid"]: key["secret"] for key in keys} | inventory_secrets(host)
    assert seen(secrets, answer.stdout + answer.stderr) == []
