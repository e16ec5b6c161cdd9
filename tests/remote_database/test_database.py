"""A receiver whose PostgreSQL is on another host works as any, and neither side believes a stranger."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.host.conftest import (
    Site,
    new_event,
    slot,  # noqa: F401  as above
    slot_in_use,
)
from tests.host.load import stored

# The same hunt, for what is secret here.
from tests.host.test_secrets import (  # noqa: F401  fixtures and tests, by the names they have there
    hunted,
    secrets,
    test_no_secret_is_anywhere_else,
    test_no_secret_is_in_the_facts,
)

from .conftest import JOBS, Database

# To the other slot, with the release in use and the settings that are there now.
SWITCH = "molam-webhook-switch apply"


def test_an_event_is_stored_there_and_acted_on(host: Host, site: Site, database: Database) -> None:
    event = new_event()
    assert site.send(event).status_code == 200
    assert stored(database.host, [event["id"]], "molam")[0] == 1
    # Asked on the receiver's host, as a person would.
    host.check_output(f"until molam-webhook events show {event['id']} | grep -q 'status  *paid'; do sleep 0.1; done")


def test_each_job_logs_in_as_itself_over_tls(database: Database) -> None:
    assert database.present() == {database.logins[job]["user"] for job in ("receiver", "worker")}
    query = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL"
    assert database.sql(query) == "t"
    assert (
        database.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "molam_webhook_owner"
    )


@pytest.mark.parametrize("statement", ["DELETE FROM event_ids", "SELECT * FROM orders", "CREATE TABLE mine (id int)"])
def test_receiver_may_only_take_events_in(database: Database, statement: str) -> None:
    login = database.logins["receiver"]
    assert database.refusal(**login) == ""
    assert database.refusal(**login, statement=statement) == "InsufficientPrivilegeError"
    assert database.refusal(**login, statement="SET ROLE molam_webhook_owner") == "InsufficientPrivilegeError"


def test_each_unit_has_its_own_credential(host: Host, database: Database) -> None:
    active = slot_in_use(host)
    for unit, user, job in (
        ("molam-webhook", "molam_webhook", "receiver"),
        ("molam-webhook-worker", "molam_webhook_worker", "worker"),
    ):
        path = f"/run/credentials/{unit}@{active}.service/database_url"
        assert database.logins[job]["password"] in host.check_output(f"runuser -u {user} -- cat {path}")
        for other in {"molam_webhook", "molam_webhook_worker", "www-data"} - {user}:
            assert host.run(f"runuser -u {other} -- cat {path}").rc != 0


def test_the_host_has_no_database_and_is_well(host: Host) -> None:
    assert not host.package("postgresql").is_installed
    assert host.run("ls -d /var/lib/postgresql /etc/postgresql").stdout == ""
    told = json.loads(host.check_output("molam-check --json"))
    assert told["crossed"] == {}
    assert {f'molam_secret_age_days{{secret="database_url.{job}"}}' for job in JOBS} <= told["measured"].keys()
    assert "all is well" in host.check_output("molam-webhook status")


def test_a_database_with_another_ca_is_not_believed(host: Host, site: Site) -> None:
    before = slot_in_use(host)
    ca = "/etc/molam-webhook/settings/database-ca.pem"
    host.check_output(f"cp --preserve {ca} /root/database-ca.pem")
    host.check_output(
        f"openssl req -x509 -newkey ed25519 -noenc -subj '/CN=CA of a stranger' -keyout /dev/null -out {ca}"
    )
    try:
        answer = host.run(SWITCH)
        assert answer.rc == 1
        assert "CERTIFICATE_VERIFY_FAILED" in answer.stderr or "certificate verify failed" in answer.stderr
        assert slot_in_use(host) == before
        assert site.send(new_event()).status_code == 200
    finally:
        host.check_output(f"mv /root/database-ca.pem {ca}")


def test_a_database_with_another_name_is_not_believed(host: Host, site: Site, database: Database) -> None:
    """Its certificate is of the right CA, and for its address."""
    before, login = slot_in_use(host), database.logins["owner"]

    def name(address: str) -> None:
        url = f"postgresql://{login['user']}:{login['password']}@{address}/molam?sslmode=verify-full"
        host.check_output(f"molam-webhook-credentials <<'END'\n{json.dumps({'database_url.owner': url})}\nEND")

    host.check_output(f"echo '{database.address} database.test' >> /etc/hosts")
    try:
        name("database.test")
        answer = host.run(SWITCH)
        assert answer.rc == 1
        assert "certificate is not valid for 'database.test'" in answer.stderr
        assert login["password"] not in answer.stderr
        assert slot_in_use(host) == before
        assert site.send(new_event()).status_code == 200
    finally:
        name(database.address)
        host.check_output(SWITCH)
        host.check_output(
            "sed '/database.test/d' /etc/hosts > /root/hosts; cat /root/hosts > /etc/hosts; rm /root/hosts"
        )


def test_without_its_database_the_sender_is_told_to_come_again(host: Host, site: Site, database: Database) -> None:
    event = new_event()
    cut = f"ip route add unreachable {database.address}/32"
    host.check_output(cut)
    try:
        answer = site.send(event)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        host.check_output(cut.replace("add", "del"))
    host.check_output("timeout 60 sh -c 'until molam-webhook status >/dev/null; do sleep 0.2; done'")
    assert site.send(event).status_code == 200
