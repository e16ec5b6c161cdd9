"""Events that were acknowledged and then lost are named, by the front door's log."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from .conftest import WEBHOOK_PATH, Site, new_event

LOG = "/var/log/nginx/molam-webhook.log"

# As after a restore: neither the event nor its id is there.
FORGET = "DELETE FROM webhook_deliveries WHERE event_id = '{0}'; DELETE FROM event_ids WHERE event_id = '{0}'"


def reconcile(host: Host) -> tuple[int, list[str]]:
    """Ask which acknowledged events of the last minutes are missing; return the exit status and their ids."""
    told = host.run(f"molam-webhook events reconcile --since 5m --ids - <{LOG}")
    return told.rc, told.stdout.splitlines()


def selftest(host: Host, site: Site) -> str:
    """Have the host send itself a self-test event by the front door; return its id."""
    assert site.ca is not None
    door = f"--url https://{site.domain}{WEBHOOK_PATH} --connect-to 127.0.0.1:443"
    told = host.check_output(f"molam-webhook selftest {door} --cacert - --json <<'END'\n{site.ca.read_text()}\nEND")
    stored = json.loads(told)["proofs"][0]["answer"].removeprefix("200 ")
    return str(json.loads(stored)["id"])


@pytest.mark.intrusive
def test_an_acknowledged_event_that_was_lost_is_named_until_it_came_again(host: Host, site: Site) -> None:
    kept, lost = new_event(), new_event()
    for event in (kept, kept, lost):
        assert site.send(event).status_code == 200
    # What the host sends to itself is never asked for.
    tested = selftest(host, site)
    for name in (kept["id"], lost["id"], tested):
        host.check_output(f"timeout 10 sh -c 'until grep --quiet {name} {LOG}; do sleep 0.1; done'")
    assert {kept["id"], lost["id"], tested}.isdisjoint(reconcile(host)[1])

    forget = f'runuser -u postgres -- psql --no-psqlrc --command "{FORGET.format(lost["id"])}" molam_webhook'
    assert host.check_output(forget).endswith("DELETE 1")
    status, missing = reconcile(host)
    assert status == 1
    assert {kept["id"], lost["id"], tested} & set(missing) == {lost["id"]}

    answer = site.send(lost)
    assert answer.json()["status"] == "accepted"
    assert lost["id"] not in reconcile(host)[1]
