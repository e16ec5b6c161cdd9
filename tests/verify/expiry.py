"""What on a host comes to an end: certificates, secrets that are due for a successor, and waivers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.verify.difference import Difference, Expiring, Kind

SOON = timedelta(days=30)
# Of a certificate that renews itself: certbot does that when a third is left, so below a sixth it does not.
RENEWED_BEFORE = 6
TIMEOUT_SECONDS = 10

MEND_CERTIFICATE = "Give another one, then run site.yml: docs/certificates.md."
MEND_RENEWAL = "It was not renewed: journalctl -u certbot, docs/certificates.md."
MEND_ROOT = "Ask who made it for the next one, and name both in one file until all certificates are of the new one."
MEND_AGE = "Give it a successor: docs/runbooks/README.md says how."
MEND_WAIVER = "Mend the line, or say in verify_waivers why it may fail for longer."
MEND_OTHER = "systemctl reload nginx; then look who else terminates TLS before it: docs/certificates.md."


@dataclass(frozen=True)
class Given:
    """A file of certificates that the inventory names, by the variable; `text` is PEM."""

    variable: str
    text: str

    @property
    def read(self) -> list[x509.Certificate]:
        """What stands in it; raise ValueError where that can't be read."""
        return x509.load_pem_x509_certificates(self.text.encode())


def fetch(address: str, domain: str) -> x509.Certificate:
    """Return the certificate that a host serves for a domain, whoever made it; raise OSError."""
    context = ssl.create_default_context()
    context.check_hostname = False
    # It is read, not trusted.
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((address, 443), timeout=TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=domain) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


def certificates(
    served: x509.Certificate | None, given: Iterable[Given], *, renewed: bool, now: datetime
) -> Iterator[Expiring]:
    """Yield the certificates that end soon: the one that is served, and those of the inventory's files."""
    if served:
        horizon = (served.not_valid_after_utc - served.not_valid_before_utc) / RENEWED_BEFORE if renewed else SOON
        mend = MEND_RENEWAL if renewed else MEND_CERTIFICATE
        yield from _ending("the certificate that is served", served, min(horizon, SOON), mend, now)
    for file in given:
        for certificate in file.read:
            if certificate != served:
                what = f"{subject(certificate)} in {file.variable}"
                mend = MEND_CERTIFICATE if file.variable == "nginx_tls_certificate" else MEND_ROOT
                yield from _ending(what, certificate, SOON, mend, now)


def _ending(
    what: str, certificate: x509.Certificate, horizon: timedelta, mend: str, now: datetime
) -> Iterator[Expiring]:
    until = certificate.not_valid_after_utc
    if until - now < horizon:
        yield Expiring(what, until.date(), (until - now).days, mend)


def subject(certificate: x509.Certificate) -> str:
    """Return the name that a certificate bears."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else f"certificate {certificate.serial_number:x}"


def another(served: x509.Certificate | None, given: Iterable[Given]) -> Iterator[Difference]:
    """Yield that another certificate is served than the one that the inventory gives."""
    leaf = next((file.read[0] for file in given if file.variable == "nginx_tls_certificate"), None)
    if served and leaf and served != leaf:
        words = f"is another one than the inventory gives: it ends on {served.not_valid_after_utc:%Y-%m-%d}, "
        words += f"and that one on {leaf.not_valid_after_utc:%Y-%m-%d}"
        yield Difference(Kind.CERTIFICATE, "the certificate that is served", words, MEND_OTHER)


def secrets(since: Mapping[str, str], age_days: int, today: date) -> Iterator[Expiring]:
    """Yield the secrets that have been in use for almost as long as one may be (monitoring_secret_age_days)."""
    for name, created in sorted(since.items()):
        yield from _due(f"the secret {name}, in use since {created}", date.fromisoformat(created), age_days, today)


def _due(what: str, created: date, age_days: int, today: date) -> Iterator[Expiring]:
    until = created + timedelta(days=age_days)
    if until - today <= SOON:
        yield Expiring(what, until, (until - today).days, MEND_AGE)


def waivers(entries: Iterable[Mapping[str, Any]], today: date) -> Iterator[Expiring]:
    """Yield the waivers that end soon, or have."""
    for entry in entries:
        until = date.fromisoformat(str(entry["until"]))
        if until - today <= SOON:
            yield Expiring(f"the waiver of {entry['id']}", until, (until - today).days, MEND_WAIVER)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)
