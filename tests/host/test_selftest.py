"""What the receiver says to requests of the self-test's key, whose events no handler reads: safe at any time.

They are made on the host itself, by the front door: the key is nowhere else.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

from tests.conftest import Saw

from .conftest import WEBHOOK_PATH, Site, slot_in_use

# Each request is made from an address of the loopback's that is this run's own: so many refusals count for that one.
PROGRAM = r"""
import hashlib, hmac, http.client, json, os, random, socket, ssl, time, uuid
secret = open(os.environ["CREDENTIALS_DIRECTORY"] + "/selftest_secret", "rb").read()
here = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"
trust = ssl.create_default_context(); trust.check_hostname = False; trust.verify_mode = ssl.CERT_NONE
plain = socket.create_connection(("127.0.0.1", 443), 10, (here, 0))
door = http.client.HTTPSConnection("@DOMAIN@", timeout=10)
door.sock = trust.wrap_socket(plain, server_hostname="@DOMAIN@")
name = "selftest_" + uuid.uuid4().hex
data = {"id": name, "amount": 0, "currency": "XOF", "status": "succeeded", "metadata": {"order_id": name}}
event = {"id": name, "type": "payment.succeeded", "created": int(time.time()), "data": data}
# As no serialiser would write it.
body = b"  " + json.dumps(event, indent=3).encode() + b"\n"
twice = json.dumps(event)[:-1].encode() + b',"id":"evt_another"}'
def sign(raw, late=0):
    at = str(int(time.time() * 1000) + late).encode()
    return f"t={at.decode()},v1={hmac.new(secret, at + b'.' + raw, hashlib.sha256).hexdigest()},kid=selftest"
def ask(raw, signature):
    headers = {"Content-Type": "application/json"} | ({"Molam-Signature": signature} if signature else {})
    door.request("POST", "@PATH@", raw, headers)
    answer = door.getresponse()
    return [answer.status, json.loads(answer.read()), dict(answer.getheaders())]
forged = sign(b"something else")
print(json.dumps({
    "signed": ask(body, sign(body)),
    "the same again": ask(body, sign(body)),
    "other bytes of the same meaning": ask(json.dumps(event).encode(), sign(body)),
    "forged": ask(body, forged),
    "forged, and no JSON": ask(b"{" * 5000, forged),
    "unsigned": ask(body, None),
    "six minutes old": ask(body, sign(body, -360_000)),
    "six minutes ahead": ask(body, sign(body, 360_000)),
    "no JSON": ask(b"{", sign(b"{")),
    "a member twice": ask(twice, sign(twice)),
    "no event": ask(b'{"id":""}', sign(b'{"id":""}')),
}))
"""

Answers = dict[str, list[Any]]


@pytest.fixture(scope="module")
def answers(host: Host, site: Site) -> Answers:
    """Return status, body and header fields of each request, by what it is. They take part in no test's own events."""
    program = PROGRAM.replace("@DOMAIN@", site.domain).replace("@PATH@", WEBHOOK_PATH)
    credential = f"selftest_secret:/etc/molam-webhook/slots/{slot_in_use(host)}/selftest_secret.cred"
    run = "systemd-run --quiet --collect --wait --pipe --unit=molam-door-verify-$$ --property=User=molam_webhook"
    said = host.check_output(f"{run} --property=LoadCredentialEncrypted={credential} python3 - <<'END'\n{program}\nEND")
    found: Answers = json.loads(said)
    return found


def told(answers: Answers, request: str) -> tuple[int, str]:
    """Return the status, and the word that stands for what became of it."""
    status, body, _ = answers[request]
    return status, body.get("error") or body["status"]


def check(answers: Answers, saw: Saw, wanted: dict[str, tuple[int, str]]) -> None:
    """Compare answers with what is wanted, and leave them for the report."""
    found = {request: told(answers, request) for request in wanted}
    saw("; ".join(f"{request}: {status} {word}" for request, (status, word) in found.items()))
    assert found == wanted


@pytest.mark.checklist("PRE-4", "HOOK-1", "APP-4")
def test_only_what_is_rightly_signed_is_taken(answers: Answers, saw: Saw) -> None:
    wanted = {
        "signed": (200, "accepted"),
        "forged": (401, "signature_mismatch"),
        "unsigned": (401, "missing_signature"),
    }
    check(answers, saw, wanted)


@pytest.mark.checklist("HOOK-2")
def test_time_is_looked_at_on_both_sides(answers: Answers, saw: Saw) -> None:
    refused = (401, "timestamp_out_of_window")
    check(answers, saw, {"six minutes old": refused, "six minutes ahead": refused})


@pytest.mark.checklist("HOOK-4")
@pytest.mark.usefixtures("_own_database")
def test_the_same_event_again_is_one_row(host: Host, answers: Answers, saw: Saw) -> None:
    check(answers, saw, {"signed": (200, "accepted"), "the same again": (200, "duplicate")})
    name = answers["signed"][1]["id"]
    rows = f"SELECT count(*) FROM selftest_events WHERE event_id = '{name}'"
    # No trace is in the merchant's data.
    rows += f" UNION ALL SELECT count(*) FROM webhook_deliveries WHERE event_id = '{name}'"
    rows += f" UNION ALL SELECT count(*) FROM orders WHERE last_event_id = '{name}'"
    assert host.check_output(f'runuser -u postgres -- psql --no-psqlrc -Atc "{rows}" molam_webhook').split() == [
        *("1", "0", "0")
    ]


@pytest.mark.checklist("HOOK-5")
def test_bytes_are_verified_before_they_are_read(answers: Answers, saw: Saw) -> None:
    refused = (401, "signature_mismatch")
    wanted = {"signed": (200, "accepted"), "other bytes of the same meaning": refused, "forged, and no JSON": refused}
    check(answers, saw, wanted)


@pytest.mark.checklist("APP-1")
def test_what_is_signed_is_looked_at_all_the_same(answers: Answers, saw: Saw) -> None:
    wanted = {
        "no JSON": (400, "invalid_json"),
        "a member twice": (400, "invalid_event"),
        "no event": (400, "invalid_event"),
    }
    check(answers, saw, wanted)


@pytest.mark.checklist("APP-6")
def test_a_refusal_is_one_word(answers: Answers, saw: Saw) -> None:
    refusals = {request: answer for request, answer in answers.items() if answer[0] >= 400}
    saw(f"{len(refusals)} refusals have one word each, and no field that names a program's version")
    assert {tuple(body) for _, body, _ in refusals.values()} == {("error",)}
    assert {fields["Server"] for _, _, fields in refusals.values()} == {"nginx"}
    assert [fields for _, _, fields in refusals.values() if "X-Powered-By" in fields] == []


@pytest.mark.checklist("PRE-4", "HOOK-1")
def test_each_key_is_what_it_is_said_to_be(host: Host, site: Site, saw: Saw) -> None:
    """Of the sender's keys what is signed is no event: verified, and not stored."""
    door = f"--url=https://{site.domain}{WEBHOOK_PATH} --connect-to=127.0.0.1:443"
    ca = f"--cacert=- <<'END'\n{site.ca.read_text()}\nEND" if site.ca else ""
    told = json.loads(host.run(f"molam-webhook selftest {door} --json {ca}").stdout)["proofs"]
    # Its others are of events, which the tests above send.
    proofs = [proof for proof in told if proof["proof"].startswith("a signature of ")]
    saw("; ".join(f"{proof['proof']}: {'yes' if proof['passed'] else 'NO'}" for proof in proofs))
    assert f"a signature of {site.kid} holds" in [proof["proof"] for proof in proofs]
    assert [proof for proof in proofs if not proof["passed"]] == []
