"""TLS as another host sees it: testssl.sh's grade and findings, and what is agreed with Debian 13's OpenSSL.

After the tests of the certificate: it takes a minute in which the certificate must not change.
"""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.host.conftest import WEBHOOK_PATH, Site

from .conftest import CA_ROOT

# All that the grade takes. Without the simulation of clients, which takes a quarter of the time and grades nothing, and
# without the DNS, which is the scenario's own.
CHECKS = "--protocols --std --fs --server-preference --server-defaults --headers --vulnerable --nodns none"

# What is found at a host that is in order, and why.
EXPECTED = {
    "cert_expirationStatus": "the CA's certificates last six days",
    "cert_notAfter": "the same",
    "cert_revocation": "the CA has no revocation list; what lasts six days needs none",
    "engine_problem": "Debian's OpenSSL has no GOST, which is not asked for",
}
# What is found in some runs alone.
UNSTEADY = {
    "cert_serialNumberLen": "the CA draws serial numbers, and one of 256 begins with a zero, which is not written",
    "sessionresumption_ticket": "testssl.sh may hang up before the ticket of TLS 1.3 has come",
}


@pytest.fixture(scope="module")
def findings(ca_host: Host, site: Site) -> dict[str, str]:
    """Return what testssl.sh finds, each with its severity, by id; the grade is one of them."""
    result = "/root/testssl.json"
    told = ca_host.run(
        f"testssl --quiet --color 0 --warnings off {CHECKS} --add-ca {CA_ROOT} --ip {site.address} "
        f"--jsonfile {result} --overwrite {site.domain}"
    ).stdout
    found = json.loads(ca_host.file(result).content_string)
    assert found, told
    return {entry["id"]: f"{entry['severity']}: {entry['finding']}" for entry in found}


def test_grade(findings: dict[str, str]) -> None:
    assert findings["overall_grade"] == "OK: A+"


def test_nothing_is_found_that_is_not_known(findings: dict[str, str]) -> None:
    found = {name: text for name, text in findings.items() if not text.startswith(("OK:", "INFO:"))}
    assert {name: text for name, text in found.items() if name not in EXPECTED | UNSTEADY} == {}
    assert EXPECTED.keys() - found.keys() == set()


def test_key_exchange_withstands_quantum_computers(host: Host, ca_host: Host, site: Site) -> None:
    # Debian 12's OpenSSL has no such key exchange: the best of those that it has.
    old = host.system_info.release.startswith("12")
    answer = ca_host.check_output(
        f"openssl s_client -connect {site.address}:443 -servername {site.domain} -verify_hostname {site.domain} "
        f"-CAfile {CA_ROOT} -verify_return_error </dev/null"
    )
    assert "New, TLSv1.3" in answer
    assert ("Peer Temp Key: X25519," if old else "Negotiated TLS1.3 group: X25519MLKEM768\n") in answer


def test_unknown_name_is_refused_at_the_handshake(ca_host: Host, site: Site) -> None:
    answer = ca_host.run(f"openssl s_client -connect {site.address}:443 -servername stranger.example </dev/null")
    assert answer.rc != 0
    assert "unrecognized name" in answer.stderr
    assert "BEGIN CERTIFICATE" not in answer.stdout


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_http_is_redirected_without_a_page(site: Site, method: str) -> None:
    with site.client("http") as client:
        answer = client.request(method, f"{WEBHOOK_PATH}?a=b")
    assert (answer.status_code, answer.content) == (301, b"")
    assert answer.headers["Location"] == f"https://{site.domain}{WEBHOOK_PATH}?a=b"
