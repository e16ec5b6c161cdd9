"""Which keys a host has: live ones where it is production, none that is old, none in the clear in the inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.conftest import Saw, not_applicable

from .conftest import Site
from .hunt import inventory_secrets
from .playbooks import ROOT

SETTINGS = "/etc/molam-webhook/settings/environment"
# A quarter.
DAYS_AT_MOST = 92
TEST_KEY = "whsec_test_4pV8kQ2mX7tR9zL3"


@pytest.fixture
def production(host: Host, inventory: dict[str, Any]) -> None:
    """Leave out what holds of production alone."""
    if inventory["molam_environment"] != "production":
        not_applicable(f"molam_environment is {inventory['molam_environment']}")
    assert "MOLAM_ENVIRONMENT=production" in host.file(SETTINGS).content_string.splitlines()


@pytest.mark.checklist("PRE-3")
@pytest.mark.usefixtures("production")
def test_a_test_key_is_refused(host: Host, saw: Saw) -> None:
    """The release that serves is asked whether it would start with one; nothing is started."""
    settings = f"MOLAM_ENVIRONMENT=production MOLAM_WEBHOOK_SECRET={TEST_KEY} DATABASE_URL=postgresql:///x"
    command = f"runuser -u nobody -- env -i {settings} /opt/molam-webhook/active/run check-config"
    answer = host.run(command)
    saw(f"with a test key the release ends with status {answer.rc}")
    assert answer.rc == 78
    assert "test" in answer.stderr
    assert TEST_KEY not in answer.stderr


@pytest.mark.checklist("PRE-3", "KEY-1")
@pytest.mark.usefixtures("production")
def test_keys_are_live_keys(host: Host, inventory: dict[str, Any], saw: Saw) -> None:
    secrets = inventory_secrets(host)
    tests = [name for name, secret in secrets.items() if secret.startswith(("whsec_test_", "sk_test_", "pk_test_"))]
    api = [secret for name, secret in secrets.items() if name.startswith("webhook_app_api_key ")]
    public = inventory["sdk_hosting_public_key"]
    saw(f"{len(secrets)} secrets of the inventory, {len(tests)} of them for tests; public key: {public[:8] or 'none'}")
    assert tests == []
    assert all(key.startswith("sk_live_") for key in api)
    assert public.startswith("pk_live_") or not public


@pytest.mark.checklist("KEY-3")
def test_each_key_has_an_age_and_none_is_old(host: Host, saw: Saw) -> None:
    keys = json.loads(host.check_output("molam-webhook keys list --json"))
    ages = {key["kid"]: key["age_days"] for key in keys if key["state"] == "active" and key["kid"] != "selftest"}
    limit = json.loads(host.check_output("cat /etc/molam-check.json"))["limits"]["secret_age_days"]
    saw(f"{', '.join(f'{kid} is {days} days old' for kid, days in ages.items())}; alarm after {limit}")
    assert ages
    assert None not in ages.values()
    assert max(ages.values()) <= DAYS_AT_MOST
    assert limit <= DAYS_AT_MOST


@pytest.mark.checklist("PRE-1", "KEY-4")
def test_the_inventory_has_no_secret_in_the_clear(
    request: pytest.FixtureRequest, host: Host, inventory: dict[str, Any], saw: Saw
) -> None:
    if inventory["molam_environment"] == "demo":
        not_applicable("molam_environment is demo, whose secrets are made on this machine")
    place = ROOT / Path(request.config.getoption("--ansible-inventory"))
    folder = place if place.is_dir() else place.parent
    secrets = inventory_secrets(host)
    files = [path for path in folder.rglob("*") if path.is_file()]
    clear = [
        f"{path.relative_to(folder)}: {name}"
        for path in files
        for name, secret in secrets.items()
        if secret.encode() in path.read_bytes()
    ]
    saw(f"{len(files)} files of the inventory, {len(secrets)} secrets, {len(clear)} in the clear")
    assert clear == []


@pytest.mark.checklist("KEY-4")
def test_the_host_keeps_credentials_encrypted_only(host: Host, site: Site, saw: Saw) -> None:
    kept = host.check_output("find /etc/molam-webhook -type f -name '*.cred'").splitlines()
    # systemd's own form, in base64.
    odd = host.run(f"grep --files-without-match --extended-regexp '^[A-Za-z0-9+/=]+$' {' '.join(kept)}").stdout
    readable = host.check_output("find /etc/molam-webhook -type f -name '*.cred' -perm /077")
    saw(
        f"{len(kept)} credentials; not encrypted: {odd.split() or 'none'}; read by others: {readable.split() or 'none'}"
    )
    assert kept
    assert (odd, readable) == ("", "")
    assert site.secret not in host.check_output(f"cat {' '.join(kept)}")
