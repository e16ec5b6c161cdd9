"""Who can read what: the webhook secret is nowhere but in the receiver's memory, the database is closed."""

from __future__ import annotations

import shlex

import pytest
from testinfra.host import Host

from .conftest import Site

KEYRING = "/etc/molam-webhook/settings/keyring.cred"
SECRETS = (
    f"systemd-creds decrypt --name=keyring {KEYRING} - 2>/dev/null | python3 -c "
    "'import json, sys; [print(key[\"secret\"]) for key in json.load(sys.stdin).values()]'"
)
USERS = ("molam_webhook", "molam_webhook_worker", "molam_webhook_owner", "www-data", "nobody")


def test_keyring_is_encrypted(host: Host, site: Site) -> None:
    assert site.secret not in host.file(KEYRING).content_string
    assert host.check_output(SECRETS) == site.secret


@pytest.mark.parametrize("path", [KEYRING, "/etc/molam-tls/privkey.pem"])
@pytest.mark.parametrize("user", USERS)
def test_only_root_reads(host: Host, user: str, path: str) -> None:
    assert host.run(f"test -e {path}").rc == 0
    assert host.run(f"runuser -u {user} -- cat {path}").rc != 0


@pytest.mark.parametrize("user", ["molam_webhook_worker", "www-data", "nobody"])
def test_only_the_receiver_reads_its_credential(host: Host, slot: str, user: str) -> None:
    path = f"/run/credentials/molam-webhook@{slot}.service/keyring"
    assert host.run(f"test -e {path}").rc == 0
    assert host.run(f"runuser -u {user} -- cat {path}").rc != 0


@pytest.mark.parametrize(
    "place",
    [
        "/proc/[0-9]*/environ",
        "/proc/[0-9]*/cmdline",
        "/etc /opt /usr/local /var/lib/molam-webhook /var/log /var/tmp /tmp /root /home",
        "<(journalctl --output=export)",
    ],
)
def test_secret_is_nowhere_else(host: Host, site: Site, place: str) -> None:
    """The search takes what it looks for from the keyring itself, so that it is in no command line."""
    assert host.check_output(SECRETS) == site.secret
    search = f"{SECRETS} | grep --recursive --files-with-matches --text --fixed-strings --file=- {place}"
    assert host.run(f"bash -c {shlex.quote(search)}").stdout == ""
    # The search does find what is there.
    found = host.run(f"bash -c {shlex.quote(search + f' <({SECRETS})')}").stdout
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("user", ["nobody", "www-data"])
def test_strangers_do_not_get_into_the_database(host: Host, user: str) -> None:
    assert host.run(f"runuser -u {user} -- psql --no-psqlrc molam_webhook --command 'SELECT 1'").rc != 0


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
    answer = host.run(f'runuser -u molam_webhook -- psql --no-psqlrc molam_webhook --command "{statement}"')
    assert answer.rc != 0
    assert "permission denied" in answer.stderr


def test_socket_is_nginx_and_the_receivers_alone(host: Host, slot: str) -> None:
    folder = host.file("/run/molam-webhook")
    assert (folder.user, folder.group, oct(folder.mode)) == ("molam_webhook", "www-data", "0o2750")
    socket = host.file(f"/run/molam-webhook/{slot}.sock")
    assert (socket.user, socket.group, oct(socket.mode)) == ("molam_webhook", "www-data", "0o660")
