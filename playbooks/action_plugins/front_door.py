"""Look at a host's front door from the control machine, as whoever calls it does: TLS, /health, and HTTP's redirect.

- front_door:
    address: 198.18.7.5            # where to connect: this host, wherever its name leads to
    domain: webhooks.your-shop.com
    cacert: /path/to/ca.pem        # roots (PEM) on the control machine; '' for the system's

Returns `proofs`, a list of {proof, passed, answer} like that of `molam-webhook selftest`. What is not as it should be
is told there, and fails nothing.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible.plugins.action import ActionBase
from cryptography import x509

TIMEOUT_SECONDS = 10.0
HTTP, HTTPS = 80, 443


class Proof(NamedTuple):
    """One thing that was looked at: what should hold, whether it does, and what was seen."""

    proof: str
    passed: bool
    answer: str


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """See the module's docstring."""

    _supports_check_mode = True
    _VALID_ARGS = frozenset(("address", "domain", "cacert"))

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look; nothing is changed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        address, domain, cacert = (self._task.args[name] for name in ("address", "domain", "cacert"))
        return result | {"changed": False, "proofs": [proof._asdict() for proof in look(address, domain, cacert)]}


def look(address: str, domain: str, cacert: str, ports: tuple[int, int] = (HTTP, HTTPS)) -> list[Proof]:
    """Return what is to be seen at an address."""
    return [*over_tls(address, domain, cacert, ports[1]), redirect(address, domain, ports[0])]


def over_tls(address: str, domain: str, cacert: str, port: int) -> list[Proof]:
    """Return what there is to say of the certificate, of TLS and of /health."""
    fault = ""
    try:
        try:
            tls = connect(ssl.create_default_context(cafile=cacert or None), address, domain, port)
        except ssl.SSLCertVerificationError as error:
            fault = error.verify_message
            anyones = ssl.create_default_context()
            anyones.check_hostname, anyones.verify_mode = False, ssl.CERT_NONE
            tls = connect(anyones, address, domain, port)
    except OSError as error:
        return [Proof("it answers over TLS", False, f"{address} port {port}: {error}")]
    with tls:
        cipher = tls.cipher()
        # Before the question: a server may close the connection with its answer.
        proofs = [
            Proof("its certificate is the name's", not fault, certificate(tls, fault)),
            Proof("it answers over TLS", True, f"{tls.version()}, {cipher[0] if cipher else 'no cipher'}"),
        ]
        answer = ask(tls, domain)
        return [*proofs, Proof("/health says that it is healthy", answer.startswith("200 "), answer)]


def connect(context: ssl.SSLContext, address: str, domain: str, port: int) -> ssl.SSLSocket:
    """Return a connection to the address, on which the domain was asked for; raise OSError."""
    plain = socket.create_connection((address, port), TIMEOUT_SECONDS)
    try:
        return context.wrap_socket(plain, server_hostname=domain)
    except OSError:
        plain.close()
        raise


def certificate(tls: ssl.SSLSocket, fault: str) -> str:
    """Say whose certificate it is, who signed it, for how long it holds, and what is wrong with it."""
    leaf = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    days = (leaf.not_valid_after_utc - datetime.now(UTC)).days
    said = f"{days} days left, signed by {leaf.issuer.rfc4514_string()}"
    return f"{fault}; {said}" if fault else said


def ask(connected: socket.socket, domain: str) -> str:
    """Return status and text of /health, or why there is no answer."""
    connection = http.client.HTTPConnection(domain)
    connection.sock = connected
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return f"{answer.status} {answer.read().decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error}"


def redirect(address: str, domain: str, port: int) -> Proof:
    """Return whether plain HTTP leads to HTTPS."""
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health", headers={"Host": domain})
        answer = connection.getresponse()
        leads = answer.getheader("Location", "")
        seen = f"{answer.status} {leads}"
    except (OSError, http.client.HTTPException) as error:
        leads, seen = "", f"{address} port {port}: {error}"
    finally:
        connection.close()
    there = urlsplit(leads)
    return Proof("HTTP leads to HTTPS", (there.scheme, there.hostname) == ("https", domain), seen)
