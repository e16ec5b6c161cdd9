"""What ends soon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.pairs import make
from tests.verify import expiry

TODAY = datetime.now(UTC).date()


def ending(days: tuple[int, int], *, renewed: bool = False) -> list[int]:
    served = make("shop.test", days=days).certificate
    return [entry.days_left for entry in expiry.certificates(served, [], renewed=renewed, now=datetime.now(UTC))]


def test_a_certificate_that_ends_soon_is_told() -> None:
    assert ending((-60, 31)) == []
    assert ending((-60, 29)) == [28]
    assert ending((-60, -2)) == [-3]
    # One that renews itself does that when a third is left.
    assert ending((-60, 29), renewed=True) == []
    assert ending((-80, 10), renewed=True) == [9]
    assert ending((-4, 2), renewed=True) == []


def test_certificates_of_the_inventory_are_told_by_their_variables() -> None:
    served, root, leaf = make("shop.test"), make("A root", days=(-1, 5)), make("shop.test", days=(-1, 300))
    given = [
        expiry.Given("nginx_tls_certificate", served.pem),
        expiry.Given("nginx_tls_ca_bundle", leaf.pem + root.pem),
    ]
    told = list(expiry.certificates(served.certificate, given, renewed=False, now=datetime.now(UTC)))
    assert [entry.what for entry in told] == ["the certificate that is served", "A root in nginx_tls_ca_bundle"]
    assert list(expiry.another(served.certificate, given)) == []
    (other,) = expiry.another(leaf.certificate, given)
    assert "another one than the inventory gives" in other.words
    assert list(expiry.another(None, given)) == list(expiry.another(leaf.certificate, [])) == []


def test_secrets_and_waivers_that_are_due_are_told() -> None:
    since = {"keyring/v1": (TODAY - timedelta(days=70)).isoformat(), "keyring/v2": TODAY.isoformat()}
    (due,) = expiry.secrets(since, 92, TODAY)
    assert (due.days_left, due.until) == (22, TODAY + timedelta(days=22))
    assert "keyring/v1" in due.what
    entries = [{"id": "A-1", "until": (TODAY + timedelta(days=days)).isoformat()} for days in (31, 30, -1)]
    assert [entry.days_left for entry in expiry.waivers(entries, TODAY)] == [30, -1]
