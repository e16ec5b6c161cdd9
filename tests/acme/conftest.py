"""Fixtures of the checks of a host whose certificate comes by ACME, and of what the CA is made to do meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import testinfra
import yaml
from cryptography import x509
from testinfra.host import Host

from tests.host.conftest import Site
from tests.host.conftest import site as host_site  # noqa: F401  a fixture, by the name it has here

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "molecule" / "acme" / "inventory"
# The CA's root, on its own host.
CA_ROOT = "/root/ca-root.pem"
# A file that nginx reads, where a test wants one.
BROKEN = "/etc/nginx/conf.d/zz-broken.conf"
# Trusts the placeholder too.
ANYONES = ssl.create_default_context()
ANYONES.check_hostname, ANYONES.verify_mode = False, ssl.CERT_NONE


@pytest.fixture(scope="module")
def ca_address() -> str:
    """Return the CA's address."""
    inventory = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
    return str(inventory["acme_ca"]["hosts"]["acme-ca"]["ansible_host"])


@pytest.fixture(scope="module")
def site(host_site: Site, ca_address: str, tmp_path_factory: pytest.TempPathFactory) -> Site:  # noqa: F811  as above
    """Return the host's site, which is trusted by the CA's root and nothing else."""
    trusted = ssl.create_default_context(cafile=ROOT / ".state" / "pki" / "acme-ca-tls.pem")
    root = tmp_path_factory.mktemp("ca") / "root.pem"
    root.write_text(httpx.get(f"https://{ca_address}:15000/roots/0", verify=trusted).text)
    return dataclasses.replace(host_site, ca=root)


@pytest.fixture(scope="module")
def ca_host(site: Site) -> Host:
    """Return the CA's host, which sees the receiver as any other host does, and has the CA's root at `CA_ROOT`."""
    assert site.ca is not None
    ssh_config = str(ROOT / ".state" / "ssh" / "config")
    found = testinfra.get_host("ansible://acme-ca", ansible_inventory=str(INVENTORY), ssh_config=ssh_config)
    found.check_output("echo %s >%s", site.ca.read_text(), CA_ROOT)
    return found


@pytest.fixture
def ca_down(host: Host, ca_address: str) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return what makes the CA unreachable from the host for a while."""

    @contextlib.contextmanager
    def down() -> Iterator[None]:
        host.check_output(f"ip route add unreachable {ca_address}/32")
        try:
            yield
        finally:
            host.check_output(f"ip route del unreachable {ca_address}/32")

    return down


def run_site(**variables: object) -> subprocess.CompletedProcess[str]:
    """Run the whole playbook against the host, with variables over those of its inventory."""
    return run_play(ROOT / "site.yml", **variables)


def run_play(play: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run a playbook against the host, with variables over those of its inventory."""
    # As people run it. Molecule has settings of its own, and asks for colours in the middle of sentences.
    settings = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
        "ANSIBLE_FORCE_COLOR": "0",
    }
    return subprocess.run(
        ["ansible-playbook", "--inventory", INVENTORY, "--extra-vars", json.dumps(variables), play],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def served(site: Site, name: str = "", *, trust: ssl.SSLContext | None = None) -> x509.Certificate:
    """Return the certificate that the site serves for a name of its own, once it was verified."""
    context = trust or site.trust()
    with (
        socket.create_connection((site.address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name or site.domain) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


def names(certificate: x509.Certificate) -> set[str]:
    """Return the names that a certificate is for."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))


def wait_for_another(site: Site, old: x509.Certificate) -> x509.Certificate:
    """Return the certificate that is served in place of another: nginx reloads in its own time.

    While it does, workers of before and after accept side by side, so one look is not enough.
    """
    seen = 0
    for _ in range(100):
        seen = seen + 1 if served(site, trust=ANYONES) != old else 0
        if seen == 5:  # looks in a row
            return served(site)
        time.sleep(0.1)
    pytest.fail("the same certificate is served for 10 s")


def renew(host: Host) -> int:
    """Run what the timer runs, and return its exit status."""
    # systemd would call five runs in ten seconds too many.
    return int(host.run("systemctl reset-failed certbot.service; systemctl start certbot.service").rc)


def told(host: Host) -> str:
    """Return what the last run of the timer's unit told."""
    run = host.check_output("systemctl show --property=InvocationID --value certbot.service")
    return str(host.check_output(f"journalctl --output=cat --no-pager _SYSTEMD_INVOCATION_ID={run}"))


def due(host: Host) -> None:
    """Make certbot find its certificate due: what it has left is less than what is asked for."""
    renewal = "/etc/letsencrypt/renewal/molam.conf"
    host.check_output(f"sed -i 's/^renew_before_expiry = .*/renew_before_expiry = 365 days/' {renewal}")
