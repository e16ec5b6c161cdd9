"""What can be wrong with a certificate, the CA, the DNS or nginx: told with what to do, and the site is as it was.

Each test begins and ends with a host that serves a certificate of the CA.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.host.conftest import NGINX_ALONE, Site, new_event
from tests.pairs import Pair, make

from .conftest import BROKEN, due, names, renew, run_play, run_site, served, told, wait_for_another

SITE = "/etc/nginx/conf.d/molam-webhook.conf"
SETTINGS = "/etc/molam-certificate.json"
LONG_AGO = (-90, -1)
STRANGERS = make("stranger.example")


@contextlib.contextmanager
def untouched(host: Host, site: Site) -> Iterator[None]:
    """Look that the site is the same afterwards, and that nginx would start again with what is on the disk."""
    state = f"systemctl show --property=MainPID nginx.service && sha256sum {SITE} /etc/nginx/molam.conf"
    old, before = served(site), host.check_output(state)
    yield
    assert served(site) == old
    assert site.send(new_event()).status_code == 200
    assert host.check_output(state) == before
    host.check_output("nginx -t -q -c /etc/nginx/molam.conf")


@contextlib.contextmanager
def limited(ca_host: Host) -> Iterator[None]:
    """Have the CA refuse new orders."""
    ca_host.check_output("touch /run/acme-limited")
    try:
        yield
    finally:
        ca_host.check_output("rm /run/acme-limited")


@contextlib.contextmanager
def unknown_to_the_dns(ca_host: Host, name: str) -> Iterator[None]:
    """Have the CA's name server not know a name."""
    ask = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], sys.argv[2].encode()).close()"
    command = f"python3 -c '{ask}' http://127.0.0.1:8055/%s-servfail {shlex.quote(json.dumps({'host': name}))}"
    ca_host.check_output(command % "set")
    try:
        yield
    finally:
        ca_host.check_output(command % "clear")


@contextlib.contextmanager
def asked_for(host: Host, **settings: object) -> Iterator[None]:
    """Have the host ask for another certificate than the playbook told it."""
    old = host.file(SETTINGS).content_string
    host.check_output("echo %s >%s", json.dumps(json.loads(old) | settings), SETTINGS)
    try:
        yield
    finally:
        host.check_output("echo %s >%s", old.strip(), SETTINGS)


def put(host: Host, folder: str, pair: Pair, *, in_place_of_links: bool) -> None:
    """Put a pair where another one is, over the links that lead to it or through them."""
    if in_place_of_links:
        host.check_output(f"rm {folder}/fullchain.pem {folder}/privkey.pem")
    host.check_output(
        f"umask 077 && echo %s >{folder}/fullchain.pem && echo %s >{folder}/privkey.pem", pair.pem, pair.key_pem()
    )


def test_limit_of_the_ca(host: Host, site: Site, ca_host: Host) -> None:
    due(host)
    with limited(ca_host), untouched(host, site):
        assert renew(host) != 0
        assert "The CA's limit is reached. Wait until the time that it names" in told(host)
        assert "retry after 2030-01-01" in told(host)
        assert "nginx goes on with the certificate that it has, which ends on" in told(host)


def test_name_that_the_dns_does_not_know(host: Host, site: Site, ca_host: Host) -> None:
    due(host)
    with unknown_to_the_dns(ca_host, site.domain), untouched(host, site):
        assert renew(host) != 0
        assert "A name does not lead here in the public DNS. Set its A record" in told(host)
        assert f"Domain: {site.domain}" in told(host)


def test_ca_that_the_hosts_dns_does_not_know(host: Host, site: Site) -> None:
    with asked_for(host, directory_url="https://ca.invalid/dir"), untouched(host, site):
        answer = host.run(
            "molam-certificate issue; status=$?; rm -rf /etc/letsencrypt/accounts/ca.invalid*; exit $status"
        )
    assert answer.rc == 1
    assert "This host does not find the CA by its name. Mend its name servers" in answer.stderr


def test_name_that_nginx_does_not_serve(host: Host, site: Site, ca_host: Host) -> None:
    orders = "grep --count POST./order-plz /var/log/nginx/access.log"
    before = ca_host.check_output(orders)
    with asked_for(host, names=[site.domain, "unserved.acme.test"]), untouched(host, site):
        assert renew(host) != 0
        assert "nginx itself does not serve its question for unserved.acme.test" in told(host)
        assert "Run the playbook" in told(host)
    # Which costs none of the failures that the CA allows.
    assert ca_host.check_output(orders) == before


@pytest.mark.parametrize(
    ("other", "in_place_of_links"),
    [(make("webhooks.acme.test", days=LONG_AGO), False), (STRANGERS, False), (STRANGERS, True)],
    ids=["expired", "foreign", "foreign, over certbot's links"],
)
def test_other_certificate_where_certbot_has_its_own(
    host: Host, site: Site, ca_host: Host, other: Pair, *, in_place_of_links: bool
) -> None:
    good = served(site)
    put(host, "/etc/letsencrypt/live/molam", other, in_place_of_links=in_place_of_links)
    with limited(ca_host), untouched(host, site):
        assert renew(host) != 0
        assert "nginx is not given what is in /etc/letsencrypt/live/molam" in told(host)
        assert "The CA's limit is reached" in told(host)
    assert renew(host) == 0, told(host)
    assert names(wait_for_another(site, good)) == {site.domain}
    assert host.check_output("ls /etc/letsencrypt/renewal") == "molam.conf"


@pytest.mark.parametrize("other", [make("webhooks.acme.test", days=LONG_AGO), STRANGERS], ids=["expired", "foreign"])
def test_other_certificate_where_nginx_has_its_own(host: Host, site: Site, other: Pair) -> None:
    good = served(site)
    put(host, "/etc/molam-tls", other, in_place_of_links=other is STRANGERS)
    host.check_output("systemctl reload nginx")
    with pytest.raises(ssl.SSLError):
        wait_for_another(site, good)
    if other is not STRANGERS:
        assert "molam_certificate_remaining_ratio is -0.0" in host.run("molam-check").stdout
    assert host.check_output("molam-certificate issue") == "done."
    # The same that certbot had: the CA was not asked.
    assert wait_for_another(site, other.certificate) == good


def test_foreign_key_where_certbot_has_its_own(host: Host, site: Site) -> None:
    good = served(site)
    host.check_output("echo %s >/etc/letsencrypt/live/molam/privkey.pem", STRANGERS.key_pem())
    assert renew(host) == 0, told(host)
    assert names(wait_for_another(site, good)) == {site.domain}


def test_wrong_permissions_are_mended_and_told(host: Host, site: Site) -> None:
    good = served(site)
    changed = {
        "/var/lib/molam-acme": "0700",
        "/etc/molam-tls": "0755",
        "/etc/molam-tls/privkey.pem": "0644",
        "/etc/letsencrypt/archive": "0777",
        "/etc/letsencrypt/live/molam/privkey.pem": "0004",
    }
    for path, mode in changed.items():
        host.check_output(f"chmod {mode} {path} && chown nobody:nogroup {path}")
    due(host)
    assert renew(host) == 0, told(host)
    wait_for_another(site, good)
    for path, mode in changed.items():
        # That one is a folder of the unit's own: systemd has mended it before the program looks.
        assert path == "/var/lib/molam-acme" or f"mended: {path} was 65534:65534 {mode}" in told(host)
    right = host.check_output(f"stat --dereference --format='%a %u' {' '.join(changed)}").splitlines()
    assert right == ["755 0", "700 0", "600 0", "700 0", "600 0"]


def test_given_certificate_that_no_caller_accepts(host: Host, site: Site, tmp_path: Path) -> None:
    pair = make("stranger.example", days=LONG_AGO)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_text(pair.pem)
    key.write_text(make("another").key_pem())
    key.chmod(0o644)
    with untouched(host, site):
        answer = run_site(
            certbot_enabled=False, nginx_tls_certificate=str(certificate), nginx_tls_certificate_key=str(key)
        )
    message = " ".join(answer.stdout.split())
    assert answer.returncode == 2, message
    assert "Nothing was changed, and the host serves with the certificate that it has" in message
    for words in ("ran out on", "it is for stranger.example", "the whole chain", f"{key} is another's", "mode is 0644"):
        assert words in message
    assert "Set up the receiver" not in message


@pytest.mark.parametrize(
    ("variables", "foreign", "words"),
    [
        ({"__nginx_ecdh_curves": ["no_such_curve"]}, "", 'SSL_CTX_set1_curves_list("no_such_curve") failed'),
        ({"nginx_hsts_seconds": 1}, "no_such_directive;", f'unknown directive "no_such_directive" in {BROKEN}:1'),
    ],
    ids=["by itself", "beside another's"],
)
def test_template_that_nginx_refuses(
    host: Host, site: Site, tmp_path: Path, variables: dict[str, object], foreign: str, words: str
) -> None:
    play = tmp_path / "play.yml"
    play.write_text(NGINX_ALONE)
    with untouched(host, site):
        host.check_output(f"echo '{foreign}' >{BROKEN}")
        try:
            answer = run_play(play, **variables)
        finally:
            host.check_output(f"rm {BROKEN}")
    message = " ".join(answer.stdout.split())
    assert answer.returncode == 2, message
    assert words in message.replace("\\", "")
    assert f"nginx refuses {SITE} as it would be, so it is as it was" in message
