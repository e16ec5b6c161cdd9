"""A certificate that comes by ACME: issued, renewed under load, extended, and kept when the CA or nginx refuses.

Each test begins and ends with a host that serves a certificate of the CA. They run in this order.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from testinfra.host import Host

from tests.host.conftest import Site, exposures, new_event, slot_in_use
from tests.host.test_log_rotation import a_day_later, run_logrotate

from .conftest import ANYONES, BROKEN, ROOT, due, names, renew, run_site, served, told, wait_for_another

CaDown = Callable[[], AbstractContextManager[None]]
CA_BUNDLE = "/etc/molam-certificate-ca.pem"


def account(host: Host) -> str:
    """Return the sum of the account and its key."""
    return str(host.check_output("cd /etc/letsencrypt/accounts && find . -type f | sort | xargs sha256sum"))


def test_issued_and_served(host: Host, site: Site) -> None:
    certificate = served(site)
    assert names(certificate) == {site.domain}
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert site.send(new_event()).status_code == 200
    assert host.file("/etc/molam-tls").mode == 0o700
    assert host.check_output("find -L /etc/molam-tls -type f ! -perm 0600") == ""


def test_renewal_is_closed_as_far_as_it_works(host: Host) -> None:
    assert exposures(host, "echo certbot.service")["certbot"] <= 2.3


def test_six_days_are_not_due_on_the_first(host: Host, site: Site) -> None:
    certificate = served(site)
    assert "renew_before_expiry = 48 hours" in host.file("/etc/letsencrypt/renewal/molam.conf").content_string
    assert host.service("certbot.timer").is_running
    assert host.service("certbot.timer").is_enabled
    assert renew(host) == 0
    assert served(site) == certificate


def test_what_is_served_is_measured(host: Host) -> None:
    host.check_output("systemctl start molam-check.service")
    measured = host.file("/var/lib/prometheus/node-exporter/molam.prom").content_string
    assert "molam_front_door_ready 1\n" in measured
    ratio = re.search(r"^molam_certificate_remaining_ratio (\S+)$", measured, re.MULTILINE)
    assert ratio is not None
    assert 0.9 < float(ratio[1]) < 1


@pytest.mark.checklist("PRE-5")
def test_renewed_under_load_without_a_failed_request(host: Host, site: Site) -> None:
    slot = slot_in_use(host)
    units = f"nginx.service molam-webhook@{slot}.service molam-webhook-worker@{slot}.service"
    processes = f"systemctl show --property=MainPID --value {units}"
    old, ids, key = served(site), host.check_output(processes), account(host)
    answers: list[int | str] = []
    enough = threading.Event()

    def load() -> None:
        while not enough.is_set():
            try:
                answers.append(site.send(new_event()).status_code)
            except httpx.HTTPError as error:
                answers.append(repr(error))

    senders = [threading.Thread(target=load) for _ in range(4)]
    for sender in senders:
        sender.start()
    try:
        due(host)
        assert renew(host) == 0
        new = wait_for_another(site, old)
        before = len(answers)
        while len(answers) < before + 20:
            time.sleep(0.05)
    finally:
        enough.set()
        for sender in senders:
            sender.join()
    assert set(answers) == {200}
    assert names(new) == names(old)
    # Reloaded, not restarted, and nobody else was touched.
    assert host.check_output(processes) == ids
    assert account(host) == key
    assert "renew_before_expiry = 48 hours" in host.file("/etc/letsencrypt/renewal/molam.conf").content_string


def test_certbots_log_is_rotated_and_nothing_of_it_is_lost(host: Host) -> None:
    log = "/var/log/letsencrypt/letsencrypt.log"
    assert renew(host) == 0
    before = host.check_output(f"cat {log}").splitlines()
    run_logrotate(host)
    a_day_later(host)
    assert renew(host) == 0
    assert host.check_output(f"zcat --force $(ls {log}-* | sort | tail -n 1)").splitlines() == before
    assert host.file(log).content_string not in ("", "\n".join(before))


def test_a_new_host_takes_up_what_a_lost_one_had(host: Host, site: Site) -> None:
    """Its account and its certificate, by the commands of docs/runbooks/host-lost.md."""
    old, key = served(site), account(host)
    keep = "tar --create --directory=/ --file=/root/host.tar etc/letsencrypt"
    host.check_output(f"{keep} && rm -r /etc/letsencrypt && molam-certificate issue")
    another = wait_for_another(site, old)
    assert account(host) != key
    page = (ROOT / "docs/runbooks/host-lost.md").read_text()
    begin = "mv /etc/letsencrypt /etc/letsencrypt.new"
    host.check_output(begin + page.partition(begin)[2].partition("\n\n")[0])
    assert wait_for_another(site, another) == old
    assert account(host) == key
    host.check_output("rm -r /root/host.tar /etc/letsencrypt.new")


def test_a_certificate_that_nginx_refuses_is_taken_back(host: Host, site: Site) -> None:
    old = served(site)
    due(host)
    host.check_output(f"echo 'no_such_directive;' > {BROKEN}")
    try:
        assert renew(host) != 0
        assert "nginx keeps the certificate that it had" in told(host)
        assert "no_such_directive" in told(host)
        assert served(site) == old
        on_disk = host.check_output("cat /etc/molam-tls/fullchain.pem").encode()
        assert x509.load_pem_x509_certificate(on_disk) == old
    finally:
        host.check_output(f"rm -f {BROKEN}")
    # The next run of the timer finishes it, with the certificate that is there.
    assert renew(host) == 0
    new = wait_for_another(site, old)
    latest = host.check_output("cat /etc/letsencrypt/live/molam/cert.pem").encode()
    assert x509.load_pem_x509_certificate(latest) == new


def test_a_deployment_that_was_cut_off_is_done_again(host: Host) -> None:
    workers = "pgrep --parent $(cat /run/nginx.pid)"
    before = set(host.check_output(workers).split())
    assert host.check_output("molam-certificate deploy") == "nothing to do."
    # The links were turned, and nginx not reloaded any more: the folder before is still there.
    host.check_output("cp -r /etc/molam-tls/live/ /etc/molam-tls/pair-before")
    assert host.check_output("molam-certificate deploy") == "done."
    assert host.check_output("ls -d /etc/molam-tls/pair-* | wc -l") == "1"
    for _ in range(50):
        if set(host.check_output(workers).split()).isdisjoint(before):
            break
        time.sleep(0.1)
    else:
        pytest.fail("nginx was not reloaded")


def test_with_the_ca_down_the_old_one_is_served_and_the_unit_fails(host: Host, site: Site, ca_down: CaDown) -> None:
    old = served(site)
    due(host)
    with ca_down():
        assert renew(host) != 0
        assert "The CA is not reached. Open HTTPS to the outside" in told(host)
        assert served(site) == old
        assert site.send(new_event()).status_code == 200
        assert "certbot.service" in host.check_output("systemctl list-units --failed --no-legend --plain")
        assert "molam_failed_units is 1" in host.run("molam-check").stdout
    due(host)
    assert renew(host) == 0
    assert names(wait_for_another(site, old)) == names(old)


def test_changed_names_profile_and_address_reach_the_ca(host: Host, site: Site, ca_address: str) -> None:
    old, key = served(site), account(host)
    # Debian 12's certbot knows no profiles.
    profile = {} if host.system_info.release.startswith("12") else {"certbot_profile": "shortlived"}
    # And what somebody had changed is mended, and told.
    host.check_output("chmod 0700 /var/lib/molam-acme")
    answer = run_site(molam_domain_aliases=["also.acme.test"], certbot_email="else@acme.test", **profile)
    assert answer.returncode == 0, answer.stdout
    assert "mended: /var/lib/molam-acme was 0:0 0700" in answer.stdout
    new = wait_for_another(site, old)
    assert names(new) == {site.domain, "also.acme.test"}
    assert served(site, "also.acme.test") == new
    assert account(host) == key
    assert host.check_output("ls /etc/letsencrypt/renewal") == "molam.conf"
    known = host.check_output(
        f"REQUESTS_CA_BUNDLE={CA_BUNDLE} certbot show_account --server https://{ca_address}:14000/dir"
    )
    assert "Email contact: else@acme.test" in known
    # Debian's pebble gives the same certificate for any profile: what it was asked for, and will be.
    asked = host.run(r"grep --only-matching '\"profile\": \"[^\"]*\"' /var/log/letsencrypt/letsencrypt.log*").stdout
    renewal = host.file("/etc/letsencrypt/renewal/molam.conf").content_string
    assert ('"profile": "shortlived"' in asked, "preferred_profile = shortlived\n" in renewal) == (bool(profile),) * 2
    # Nothing is asked for again.
    assert host.check_output("molam-certificate issue") == "nothing to do."


def test_a_first_issue_that_fails_leaves_a_receiver_with_its_placeholder(
    host: Host, site: Site, ca_down: CaDown
) -> None:
    key = account(host)
    host.check_output("certbot delete --non-interactive --cert-name molam && rm -r /etc/molam-tls")
    with ca_down():
        answer = run_site()
    message = " ".join(answer.stdout.split())
    assert answer.returncode == 2, message
    assert f"Asked for is one for {site.domain} from https://" in message
    assert "molam-certificate issue" in message
    assert "No route to host" in message
    # The play went to its end all the same.
    assert message.index("monitoring : activate") < message.index("its certificate is not settled")
    placeholder = served(site, trust=ANYONES)
    assert placeholder.issuer == placeholder.subject
    # What the message says to do.
    assert host.check_output("molam-certificate issue") == "done."
    assert names(wait_for_another(site, placeholder)) == {site.domain}
    assert site.send(new_event()).status_code == 200
    assert account(host) == key
