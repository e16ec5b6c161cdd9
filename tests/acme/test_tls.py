"""TLS as another host sees it: testssl.sh's grade and findings, and what is agreed with Debian 13's OpenSSL.

After the tests of the certificate: it takes a minute in which the certificate must not change.
"""

from __future__ import annotations

import shlex

import pytest
from testinfra.host import Host

from tests.host.conftest import WEBHOOK_PATH, Site
from tests.verify.opinions import testssl
from tests.verify.opinions.answers import answered
from tests.verify.opinions.opinion import Opinion

from .conftest import CA_ROOT


@pytest.fixture(scope="module")
def opinion(ca_host: Host, site: Site) -> Opinion:
    """Return what testssl.sh says."""
    result = "/root/testssl.json"
    ca_host.check_output("rm -f %s", result)
    told = ca_host.run(shlex.join(testssl.command("testssl", site.address, site.domain, result, CA_ROOT))).stdout
    found = ca_host.file(result)
    assert found.exists, told
    return answered(testssl.read(found.content_string, ca_host.run("testssl --version").stdout), kinds=())


def test_grade(opinion: Opinion) -> None:
    assert opinion.figure == "grade A+"


def test_nothing_is_found_that_is_not_known(opinion: Opinion) -> None:
    assert opinion.unanswered == []
    # It looked at the host: the CA's certificates always have these.
    always = {"cert_expirationStatus", "cert_notAfter", "cert_revocation", "engine_problem"}
    assert always <= {finding.id for finding in opinion.unfollowed}


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
