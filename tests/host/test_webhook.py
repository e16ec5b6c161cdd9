"""An event on its way: signed, stored once, acted on once; forged, refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from testinfra.host import Host

from tests.conftest import Saw

from .conftest import WEBHOOK_PATH, Site

PSQL = "runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align molam_webhook --command"


def stored(host: Host, event: dict[str, Any]) -> int:
    """Return how many rows the inbox has for an event."""
    query = f"SELECT count(*) FROM webhook_deliveries WHERE event_id = '{event['id']}'"
    return int(host.check_output(f'{PSQL} "{query}"'))


def order_status(host: Host, event: dict[str, Any]) -> str:
    """Return the status of the event's order once the worker has come to it, or '' after 10 s."""
    query = f"SELECT status FROM orders WHERE payment_intent_id = '{event['data']['id']}'"
    deadline = time.monotonic() + 10
    status = ""
    while not status and time.monotonic() < deadline:
        status = host.check_output(f'{PSQL} "{query}"')
    return status


@pytest.mark.intrusive
@pytest.mark.checklist("HOOK-1", "HOOK-4")
def test_signed_event_is_stored_once_and_acted_on(host: Host, site: Site, event: dict[str, Any]) -> None:
    first, second = site.send(event), site.send(event)
    assert (first.status_code, first.json()) == (200, {"status": "accepted", "id": event["id"]})
    assert (second.status_code, second.json()) == (200, {"status": "duplicate", "id": event["id"]})
    assert stored(host, event) == 1
    assert order_status(host, event) == "paid"


@pytest.mark.intrusive
@pytest.mark.checklist("HOOK-1")
def test_forged_event_is_refused_and_not_stored(host: Host, site: Site, event: dict[str, Any]) -> None:
    answer = site.send(event, secret="whsec_not_the_secret_of_this_site")  # noqa: S106  that is the point
    assert (answer.status_code, answer.json()) == (401, {"error": "signature_mismatch"})
    assert stored(host, event) == 0


@pytest.mark.checklist("APP-4")
def test_unsigned_event_is_refused(host: Host, site: Site, event: dict[str, Any], saw: Saw) -> None:
    answer = site.request("POST", WEBHOOK_PATH, content=json.dumps(event), headers={"Content-Type": "application/json"})
    saw(f"from here, unsigned: {answer.status_code} {answer.text.strip()}")
    assert (answer.status_code, answer.json()) == (401, {"error": "missing_signature"})
    assert stored(host, event) == 0


@pytest.mark.intrusive
@pytest.mark.checklist("APP-1")
def test_largest_event_is_taken_and_a_larger_one_is_not(site: Site, event: dict[str, Any]) -> None:
    limit = 256 * 1024
    event["data"]["padding"] = ""
    event["data"]["padding"] = "x" * (limit - len(json.dumps(event)))
    assert site.send(event).status_code == 200
    event["data"]["padding"] += "x"
    answer = site.send(event)
    assert (answer.status_code, answer.json()) == (413, {"error": "too_large"})


def test_other_methods_are_told_which(site: Site) -> None:
    answer = site.request("GET", WEBHOOK_PATH)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"


def test_operator_sees_the_event(host: Host, site: Site, event: dict[str, Any]) -> None:
    assert site.send(event).status_code == 200
    assert order_status(host, event) == "paid"
    shown = json.loads(host.check_output(f"molam-webhook events show {event['id']} --json"))
    assert shown["event_id"] == event["id"]


def test_operator_sees_an_event_whose_payment_id_the_database_cannot_hold(
    host: Host, site: Site, event: dict[str, Any]
) -> None:
    event["data"]["id"] = "p\0"
    assert site.send(event).status_code == 200
    shown = json.loads(host.check_output(f"molam-webhook events show {event['id']} --json"))
    assert (shown["event_id"], shown["order"]) == (event["id"], None)


def test_operator_sees_the_settings_and_no_secret(host: Host, site: Site) -> None:
    shown = host.check_output("molam-webhook check-config")
    assert "KEYRING" in shown
    assert f"{site.kid} (active)" in shown
    assert site.secret not in shown
