"""Who can read what: secrets are nowhere but in the memory of whom they are for, the database is closed."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from testinfra.host import Host

from tests.conftest import Saw

from .conftest import Site
from .hunt import inventory_secrets, patterns, seen

KEYRING = "/etc/molam-webhook/settings/keyring.cred"
SECRETS = (
    f"systemd-creds decrypt --name=keyring {KEYRING} - 2>/dev/null | python3 -c "
    "'import json, sys; [print(key[\"secret\"]) for key in json.load(sys.stdin).values()]'"
)


class Place(NamedTuple):
    """Where to look, as whom, and what is there to be found."""

    paths: str
    there: str
    user: str = "root"


FILES = "/etc /opt /usr/local /var /srv /tmp /home /root"
PLACES = {
    "environments": Place("/proc/[0-9]*/environ", "PATH="),
    "command lines": Place("/proc/[0-9]*/cmdline", "molam_webhook"),
    "units": Place("/etc/systemd /run/systemd /usr/lib/systemd/system <(systemctl show --all '*')", "ExecStart="),
    "the journal": Place("<(journalctl --output=export)", "_PID="),
    "what everybody reads": Place(f"{FILES} /run", "root:x:0:0", user="nobody"),
    # The history of root's shell and what Ansible leaves behind among them; but not what root alone has to have as it
    # is: the key that nginx reads, and whom the check tells.
    "what root reads": Place(f"--exclude-dir=molam-tls --exclude=molam-check.json {FILES}", "root:x:0:0"),
}
# The database's own socket: the wrapper that Debian has around psql reads settings that are for the database alone.
SERVER = "--host=/var/run/postgresql"
USERS = ("molam_webhook", "molam_webhook_worker", "molam_webhook_owner", "www-data", "nobody")


@pytest.mark.checklist("KEY-4")
def test_keyring_is_encrypted(host: Host, site: Site) -> None:
    assert site.secret not in host.file(KEYRING).content_string


@pytest.mark.checklist("PRE-4")
def test_the_host_has_the_inventorys_webhook_secret(host: Host, site: Site, saw: Saw) -> None:
    has_it = site.secret in host.check_output(SECRETS).splitlines()
    saw(f"the inventory has a secret for {site.kid}, the host has it{'' if has_it else ' not'}")
    # Compared before: what a host has that the inventory has not is a secret too, and would stand in the report.
    assert has_it


@pytest.mark.checklist("HOOK-6")
@pytest.mark.parametrize("path", [KEYRING, "/etc/molam-tls/privkey.pem"])
@pytest.mark.parametrize("user", USERS)
def test_only_root_reads(host: Host, user: str, path: str) -> None:
    assert host.run(f"test -e {path}").rc == 0
    # Opened and not shown: what fails is reported.
    assert host.run(f"runuser -u {user} -- head --bytes=0 {path}").rc != 0


@pytest.mark.checklist("HOOK-6")
@pytest.mark.parametrize("user", ["molam_webhook_worker", "www-data", "nobody"])
def test_only_the_receiver_reads_its_credential(host: Host, slot: str, user: str) -> None:
    path = f"/run/credentials/molam-webhook@{slot}.service/keyring"
    assert host.run(f"test -e {path}").rc == 0
    # Opened and not shown: what fails is reported.
    assert host.run(f"runuser -u {user} -- head --bytes=0 {path}").rc != 0


@pytest.fixture(scope="module")
def secrets(host: Host) -> dict[str, str]:
    """Return every secret of the inventory, by what it is."""
    return inventory_secrets(host)


@pytest.fixture(scope="module")
def hunted(host: Host, secrets: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Leave what is looked for in a file that root alone reads, of this run's own.

    It goes there as a file: sudo writes down each command line, and whoever looks reads it in the list of processes.
    """
    path = f"/run/molam-hunted-{uuid.uuid4().hex}"
    local = tmp_path_factory.mktemp("hunted") / "patterns"
    local.touch(mode=0o600)
    local.write_text(patterns(secrets))
    host.ansible("copy", f"src={local} dest={path} mode=0600", check=False, become=True)
    local.unlink()
    assert host.file(path).mode == 0o600
    yield path
    host.check_output(f"rm {path}")


@pytest.mark.intrusive
def test_the_test_hosts_have_secrets_of_each_kind(secrets: dict[str, str], site: Site) -> None:
    assert site.secret in secrets.values()
    kinds = {name.partition(" ")[0] for name in secrets}
    assert {"webhook_app_forward_secret", "webhook_app_api_key", "monitoring_webhook_url", "tls_key"} <= kinds


@pytest.mark.checklist("PRE-1", "KEY-2", "HOOK-6")
@pytest.mark.parametrize("name", PLACES)
def test_no_secret_is_anywhere_else(host: Host, hunted: str, name: str, saw: Saw) -> None:
    place = PLACES[name]
    options = "--recursive --files-with-matches --text --fixed-strings --exclude-dir=postgresql"
    search = f"runuser -u {place.user} -- grep {options} --file=- {place.paths}"
    found = host.run(f"bash -c {shlex.quote(f'{search} < {hunted}')}").stdout.split()
    saw(f"{name}: {', '.join(found) or 'none'}")
    assert found == []
    # The search does find what is there.
    assert host.run(f"bash -c {shlex.quote(f'cat {hunted} <(echo {place.there}) | {search}')}").stdout != ""


def test_no_secret_is_in_the_facts(host: Host, secrets: dict[str, str]) -> None:
    facts = json.dumps(host.ansible("setup"))
    assert "ansible_env" in facts
    assert seen(secrets, facts) == []


@pytest.mark.usefixtures("_own_database")
@pytest.mark.checklist("APP-2")
@pytest.mark.parametrize("user", ["nobody", "www-data"])
def test_strangers_do_not_get_into_the_database(host: Host, user: str) -> None:
    answer = host.run(f"runuser -u {user} -- psql {SERVER} --no-psqlrc molam_webhook --command 'SELECT 1'")
    assert answer.rc != 0
    assert "Peer authentication failed" in answer.stderr or "does not exist" in answer.stderr


@pytest.mark.usefixtures("_own_database")
@pytest.mark.checklist("APP-2")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE webhook_deliveries SET state = 'done'",
        "DELETE FROM webhook_deliveries",
        "TRUNCATE webhook_deliveries",
        "SELECT * FROM orders",
        "UPDATE event_ids SET first_received_at = now()",
        "DELETE FROM event_ids",
        "CREATE TABLE mine (id int)",
        "CREATE ROLE mine",
    ],
)
def test_receiver_may_only_take_events_in(host: Host, statement: str) -> None:
    """What it may do after all is taken back, so that on a host that is not as it should be nothing is lost."""
    tried = f"BEGIN; {statement}; ROLLBACK"
    answer = host.run(f'runuser -u molam_webhook -- psql {SERVER} --no-psqlrc molam_webhook --command "{tried}"')
    assert answer.rc != 0
    assert "permission denied" in answer.stderr


def test_socket_is_nginx_and_the_receivers_alone(host: Host, slot: str) -> None:
    folder = host.file("/run/molam-webhook")
    assert (folder.user, folder.group, oct(folder.mode)) == ("molam_webhook", "www-data", "0o2750")
    socket = host.file(f"/run/molam-webhook/{slot}.sock")
    assert (socket.user, socket.group, oct(socket.mode)) == ("molam_webhook", "www-data", "0o660")
