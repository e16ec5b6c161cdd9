"""What a host differs in from what the playbook would make, all of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.check_runs import hide
from tests.collected import ETC, GROUPS, NAMES, OF_ROLES, SOCKETS, VERIFY
from tests.pairs import make
from tests.verify import drift, expiry
from tests.verify.check_mode import Check
from tests.verify.difference import Difference, Drift, Kind

TODAY = datetime.now(UTC).date()
LEAF = make("shop.test", days=(-1, 300))
SAID: dict[str, Any] = {
    "openings": [{"ports": [22]}, {"ports": [80, 443]}],
    "known": [],
    "waivers": [],
    "release": "",
    "address": "192.0.2.1",
    "domain": "shop.test",
    "renewed": False,
    "secret_age_days": 92,
    "certificates": {"nginx_tls_certificate": LEAF.pem, "nginx_tls_ca_bundle": ""},
}
COLLECTED: dict[str, Any] = {
    "sockets": SOCKETS,
    "groups": GROUPS,
    "units": "\n\n".join(f"Id={name}\nFragmentPath={OF_ROLES}" for name in NAMES),
    "unit_files": {},
    "uptime": 4000.0,
    "owners": {},
    "verify": "",
    "own": {},
    "tried": {},
    "secrets": {"keyring/v1": TODAY.isoformat()},
}


@pytest.fixture
def _serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host serve the certificate that is given."""
    monkeypatch.setattr(expiry, "fetch", lambda *_: LEAF.certificate)


def judge(said: dict[str, Any] | None = None, collected: dict[str, Any] | None = None, **check: Any) -> Drift:  # noqa: ANN401
    return drift.judge(Check(said=SAID | (said or {}), **check), COLLECTED | (collected or {}), "v1.2.0", hide)


@pytest.mark.usefixtures("_serves")
def test_of_a_host_that_is_as_it_would_be_made_nothing_is_told() -> None:
    assert judge() == Drift()
    assert judge().none
    assert judge({"release": "v1.2.0"}).none
    assert judge({"release": "latest"}).none


@pytest.mark.usefixtures("_serves")
def test_another_release_is_told_by_its_name() -> None:
    (found,) = judge({"release": "v1.3.0"}).differences
    assert (found.kind, found.words) == (Kind.RELEASE, "serves v1.2.0, and webhook_app_release names v1.3.0")


@pytest.mark.usefixtures("_serves")
def test_what_the_inventory_knows_is_not_told_and_what_the_playbook_changes_is_all_the_same() -> None:
    stray = {"unit_files": {f"{ETC}/agent.service": f"{ETC}/agent.service"}, "verify": VERIFY.splitlines()[1]}
    known = [{"what": "agent.service", "reason": "ours"}, {"what": "/usr/bin/curl", "reason": "a build of our own"}]
    assert len(judge(collected=stray).differences) == 2
    assert judge({"known": known}, stray).none
    setting = Difference(Kind.SETTING, "agent.service", "", "")
    assert judge({"known": known}, stray, differences=[setting]).differences == [setting]


@pytest.mark.usefixtures("_serves")
@pytest.mark.parametrize(
    "known",
    [
        {},
        ["agent.service"],
        [{"what": "a"}],
        [{"what": "a", "reason": ""}],
        [{"what": "a", "reason": None}],
        "agent.service",
    ],
)
def test_what_the_inventory_knows_without_a_reason_is_told(known: object) -> None:
    (words,) = judge({"known": known}).not_seen
    assert "verify_known wants a list of what and reason" in words


@pytest.mark.usefixtures("_serves")
def test_what_could_not_be_looked_at_is_never_called_equal() -> None:
    assert "did not come to its end, so more may differ. role nginx: no" in judge(fault="role nginx: no").not_seen[0]
    nothing = drift.judge(Check(fault="unreachable"), "bash: python3: command not found", "", hide)
    assert len(nothing.not_seen) == 3
    assert "python3: command not found" in nothing.not_seen[2]
    assert "ss is not there" in judge(collected={"sockets": None}).not_seen[0]
    assert "verify_waivers can't be read" in judge({"waivers": [{"id": "A-1"}]}).not_seen[0]
    unread = judge({"certificates": {"certbot_ca_bundle": "no PEM"}}).not_seen[0]
    assert unread.startswith("certbot_ca_bundle holds no certificates that can be read")
    # The other parts are told all the same.
    assert len(drift.judge(Check(fault="x"), COLLECTED | {"verify": VERIFY}, "", hide).differences) == 4


def test_a_front_door_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(expiry, "fetch", refuse)
    assert "192.0.2.1 port 443: [Errno 111] Connection refused" in judge().not_seen[0]
