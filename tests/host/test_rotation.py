"""A webhook key gets a successor and is revoked, by the playbook and under load, and no event is lost."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from .conftest import Site, new_event, slot_in_use
from .hunt import inventory_secrets, seen
from .load import load, stored
from .playbooks import play

pytestmark = [pytest.mark.intrusive, pytest.mark.debian("13")]

Rotate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def vault(tmp_path: Path, site: Site) -> Path:
    """Return a vaulted file with the host's key, of an inventory that has nothing else."""
    folder = tmp_path / "group_vars" / "all"
    folder.mkdir(parents=True)
    (tmp_path / "password").write_text("a password of this test\n")
    (tmp_path / "hosts.yml").write_text("webhook:\n")
    path = folder / "vault.yml"
    keys = f"webhook_app_keys:\n  # The first one.\n  - kid: {site.kid}\n    secret: {site.secret}\n    state: active\n"
    path.write_text(f"---\n{keys}\n# Of something else.\nother: 1\n")
    ansible_vault("encrypt", path)
    return path


def ansible_vault(command: str, path: Path) -> str:
    password = path.parents[2] / "password"
    arguments = ["ansible-vault", command, f"--vault-password-file={password}", str(path)]
    return str(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def keys_in(vault: Path) -> dict[str, dict[str, str]]:
    return {key["kid"]: key for key in yaml.safe_load(ansible_vault("view", vault))["webhook_app_keys"]}


@pytest.fixture
def rotate(request: pytest.FixtureRequest, host: Host, vault: Path, site: Site) -> Iterator[Rotate]:
    """Run the playbook at the highest verbosity that people use; the host has its one key again at the end."""

    def run(*asked: str) -> subprocess.CompletedProcess[str]:
        inventory = vault.parents[2]
        return play(
            request,
            host,
            "playbooks/rotate_key.yml",
            f"--inventory={inventory / 'hosts.yml'}",
            f"--vault-password-file={inventory / 'password'}",
            f"--extra-vars=vault={vault}",
            *(f"--extra-vars={variable}" for variable in asked),
            "-vvv",
            "--diff",
        )

    yield run
    keyring = json.dumps({site.kid: {"secret": site.secret, "state": "active"}})
    host.check_output(f"molam-webhook-credentials <<'END'\n{json.dumps({'keyring': keyring})}\nEND")
    host.check_output("molam-webhook-switch apply")


def changes(answer: subprocess.CompletedProcess[str]) -> int:
    """Return how much a play changed, after it went well."""
    assert answer.returncode == 0, answer.stdout[-3000:]
    (number,) = re.findall(r"changed=(\d+)", answer.stdout)
    return int(number)


def ages(host: Host) -> dict[str, Any]:
    return {row["kid"]: row["age_days"] for row in json.loads(host.check_output("molam-webhook keys list --json"))}


@pytest.mark.checklist("KEY-3")
def test_rotation_under_load(host: Host, site: Site, vault: Path, rotate: Rotate) -> None:
    began = datetime.now(UTC).date()
    with load(site, senders=1) as with_old:
        added = rotate("kid=v2", "generate=true")
    assert changes(added) > 0
    assert {status for _, status in with_old} == {200}
    assert stored(host, [event_id for event_id, _ in with_old])[0] == len(with_old)
    key = keys_in(vault)["v2"]
    assert key["state"] == "active"
    new = replace(site, kid="v2", secret=key["secret"])
    known = ages(host)
    assert set(known) == {site.kid, "v2", "selftest"}
    assert known["selftest"] is None
    assert 0 <= known["v2"] <= (datetime.now(UTC).date() - began).days

    # Both are in use, so the old one is kept.
    assert new.send(new_event()).status_code == 200
    refused = rotate(f"revoke={site.kid}")
    assert refused.returncode == 2
    assert f"{site.kid} is still taken" in refused.stdout
    assert "was signed with it at" in refused.stdout
    assert keys_in(vault)[site.kid]["state"] == "active"

    with load(new, senders=1) as with_new, load(site, senders=1) as with_old:
        revoked = rotate(f"revoke={site.kid}", "force=true")
    assert changes(revoked) > 0
    assert {status for _, status in with_new} == {200}
    # Taken, and then refused: as revoked, and after so many in a minute as one too many.
    assert {status for _, status in with_old} - {429} == {200, 401}
    for answers in (with_new, with_old):
        taken = [event_id for event_id, status in answers if status == 200]
        assert stored(host, taken)[0] == len(taken)
    assert re.search(rf"a signature of {site.kid} is refused +revoked_key .* yes", revoked.stdout)
    assert site.send(new_event()).json()["error"] in ("revoked_key", "rate_limited")
    assert new.send(new_event()).status_code == 200

    # Once more, it changes nothing; and the inventory says what the host has.
    assert changes(rotate(f"revoke={site.kid}")) == 0
    assert {kid: key["state"] for kid, key in keys_in(vault).items()} == {site.kid: "revoked", "v2": "active"}
    assert "# The first one.\n" in ansible_vault("view", vault)
    output = "".join(run.stdout + run.stderr for run in (added, refused, revoked))
    assert seen(inventory_secrets(host) | {"the new key": key["secret"]}, output) == []


@pytest.mark.checklist("KEY-3")
def test_an_old_key_is_told(host: Host) -> None:
    """As an inventory says that knows when a key was made."""
    dates = "/etc/molam-webhook/secret-dates.json"
    good = host.check_output(f"cat {dates}")
    try:
        host.check_output(f'sed --in-place \'s/"created": "[0-9-]*"/"created": "2026-01-31"/\' {dates}')
        told = host.run("molam-check")
        assert told.rc == 1
        assert 'molam_secret_age_days{secret="keyring/v1"} is ' in told.stdout
        assert "above its limit of 92" in told.stdout
        assert "docs/runbooks/rotate-key.md" in told.stdout
        listed = json.loads(host.check_output("molam-webhook keys list --json"))
        assert listed[0]["created"] == "2026-01-31"
        assert listed[0]["age_days"] > 92
    finally:
        host.check_output(f"cat > {dates} <<'END'\n{good}\nEND")


def test_another_secret_under_a_known_id_is_refused(host: Host, site: Site, vault: Path, rotate: Rotate) -> None:
    before = slot_in_use(host)
    text = ansible_vault("view", vault)
    vault.write_text(text.replace(site.secret, "whsec_another_one_b7Kq2Xw9"))
    ansible_vault("encrypt", vault)
    answer = rotate(f"kid={site.kid}")
    assert answer.returncode == 2
    assert f"{site.kid} is there with another secret" in answer.stdout
    assert slot_in_use(host) == before
    assert site.send(new_event()).status_code == 200
