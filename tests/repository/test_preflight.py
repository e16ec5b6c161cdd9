"""A fault in the inventory is told before anything is changed: which variable, in which file, and what is wanted."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pairs import Pair, make

# Most of them run a playbook or a build.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_q8Vw3LmZr5Kt1Yh7Nd0b"  # noqa: S105  made up for this test

GOOD: dict[str, Any] = {
    "ansible_connection": "local",
    "molam_environment": "production",
    "molam_domain": "webhooks.shop.test",
    "molam_administrator_networks": ["198.18.7.0/24", "fd00:7::/64"],
    "molam_sender_networks": [],
    "webhook_app_keys": [{"kid": "v1", "secret": SECRET, "state": "active"}],
    "backup_key": "K2bq7Zt0vXr5Wm9Yd4Hs1Jn8",
}

# Variables in place of the good ones, and what the message must say. What else each role checks is in tests/templates.
FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wrong type": (
        {"nginx_stranger_requests_per_second": "fast", "webhook_app_pool_max": "many"},
        ["nginx_stranger_requests_per_second", "webhook_app_pool_max", "int", "main.yml"],
    ),
    "missing variable": ({"molam_domain": None}, ["molam_domain", "main.yml"]),
    "unknown environment": (
        {"molam_environment": "prod"},
        ["molam_environment", "production, staging, demo"],
    ),
    "example's host": ({"ansible_host": "webhook-1.example.com"}, ["ansible_host", "hosts.yml"]),
    "no keys": ({"webhook_app_keys": None}, ["webhook_app_keys"]),
    "placeholder secret": (
        {"webhook_app_keys": [{"kid": "v1", "secret": "whsec_xxxxxxxxxxxxxxxx", "state": "active"}]},
        ["secret in webhook_app_keys", "vault.yml", "placeholder"],
    ),
    "white space around a secret": (
        {"webhook_app_keys": [{"kid": "v1", "secret": f" {SECRET}", "state": "active"}]},
        ["Nothing was changed", "webhook_app_keys in vault.yml", "KEYRING"],
    ),
    "placeholder that the receiver alone knows": (
        {"webhook_app_keys": [{"kid": "v1", "secret": "whsec_replace-me_with_yours", "state": "active"}]},
        ["Nothing was changed", "webhook_app_keys in vault.yml", "KEYRING"],
    ),
}


def preflight(
    folder: Path, variables: dict[str, Any], *arguments: str, playbook: str = "preflight.yml", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a playbook, or the preflight alone, against this machine with an inventory of its own below ``folder``."""
    known = {name: value for name, value in (GOOD | variables).items() if value is not None}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"webhook": {"hosts": {"host": known}}}))
    return subprocess.run(
        ["ansible-playbook", "--inventory", folder / "hosts.yml", ROOT / "playbooks" / playbook, *arguments],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_BECOME_EXE": "/usr/bin/env", "COLUMNS": "400"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def host_with(folder: Path, os_release: str) -> dict[str, str]:
    """Return the variables of a host whose Python sees other release files than this machine's.

    Only the interpreter that runs Ansible's modules sees it: in a mount namespace of its own.
    """
    (folder / "os-release").write_text(os_release)
    (folder / "debian_version").write_text("".join(re.findall(r'VERSION_ID="(.*)"', os_release)) + ".0\n")
    interpreter = folder / "python"
    interpreter.write_text(
        "#!/bin/sh\n"
        "exec unshare --mount --map-root-user sh -c '\n"
        "cd " + str(folder) + "\n"
        'mount --bind os-release "$(readlink -f /etc/os-release)"\n'
        "mount --bind debian_version /etc/debian_version\n"
        'cd "$OLDPWD" && exec python3 "$@"\' sh "$@"\n'
    )
    interpreter.chmod(0o755)
    return {"ansible_python_interpreter": str(interpreter)}


DEBIAN = 'PRETTY_NAME="Debian GNU/Linux {0}"\nNAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="{0}"\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04 LTS"\nNAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'


@pytest.mark.parametrize(("variables", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_is_told(tmp_path: Path, variables: dict[str, Any], words: list[str]) -> None:
    answer = preflight(tmp_path, variables)
    assert answer.returncode == 2, answer.stdout
    message = " ".join(answer.stdout.split())
    assert "Nothing was changed" in message
    assert [word for word in words if word not in message] == []
    assert SECRET not in message
    # The fault is found on the control machine: nothing was asked of the host.
    assert "Read the facts" not in message


def given(folder: Path, pair: Pair) -> dict[str, Any]:
    """Return the variables of a pair that is given, its key encrypted with the password in ``password``."""
    password, key = folder / "password", folder / "key.pem"
    password.write_text("long enough")
    key.write_text(pair.key_pem())
    subprocess.run(
        ["ansible-vault", "encrypt", "--vault-password-file", password, key], check=True, capture_output=True
    )
    certificate = folder / "certificate.pem"
    certificate.write_text(pair.pem)
    return {
        "nginx_tls_certificate": str(certificate),
        "nginx_tls_certificate_key": str(key),
        "nginx_tls_ca_bundle": str(certificate),
    }


def test_certificate_that_no_caller_accepts_is_told(tmp_path: Path) -> None:
    variables = given(tmp_path, make("stranger.example", days=(-90, -1)))
    answer = preflight(tmp_path, variables, ANSIBLE_VAULT_PASSWORD_FILE=str(tmp_path / "password"))
    assert answer.returncode == 2, answer.stdout
    message = " ".join(answer.stdout.split())
    assert "Nothing was changed, and the host serves with the certificate that it has" in message
    assert "main.yml: nginx_tls_certificate wants a valid one; 'CN=stranger.example' ran out on" in message
    assert "it is for stranger.example, not for webhooks.shop.test" in message
    assert "Read the facts" not in message


def test_certificate_with_an_encrypted_key_passes(tmp_path: Path) -> None:
    variables = given(tmp_path, make(GOOD["molam_domain"])) | host_with(tmp_path, DEBIAN.format(13))
    answer = preflight(tmp_path, variables, ANSIBLE_VAULT_PASSWORD_FILE=str(tmp_path / "password"))
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("release", [12, 13])
def test_good_inventory_passes_on_a_supported_release(tmp_path: Path, release: int) -> None:
    answer = preflight(tmp_path, host_with(tmp_path, DEBIAN.format(release)))
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("os_release", [DEBIAN.format(11), UBUNTU], ids=["Debian 11", "Ubuntu"])
def test_other_operating_system_is_refused(tmp_path: Path, os_release: str) -> None:
    answer = preflight(tmp_path, host_with(tmp_path, os_release))
    assert answer.returncode == 2, answer.stdout
    assert "supported are Debian 12 and 13" in " ".join(answer.stdout.split())


def test_more_memory_than_the_host_has_is_refused(tmp_path: Path) -> None:
    """PostgreSQL would not start again, and take the receiver with it."""
    variables = host_with(tmp_path, DEBIAN.format(13)) | {"postgresql_shared_buffers": "900GB"}
    answer = preflight(tmp_path, variables)
    assert answer.returncode == 2, answer.stdout
    message = " ".join(answer.stdout.split())
    assert "Nothing was changed" in message
    assert "postgresql_shared_buffers is 900GB" in message


def test_test_key_is_fine_in_staging(tmp_path: Path) -> None:
    keys = [{"kid": "v1", "secret": f"whsec_test_{SECRET[6:]}", "state": "active"}]
    variables = host_with(tmp_path, DEBIAN.format(13)) | {
        "molam_environment": "staging",
        "webhook_app_keys": keys,
    }
    assert preflight(tmp_path, variables).returncode == 0


def test_example_inventory_names_every_place_to_edit() -> None:
    """The production inventory as it is cloned: told whole, without a connection to the example's host."""
    answer = subprocess.run(
        ["ansible-playbook", "--inventory", ROOT / "inventories" / "production", ROOT / "site.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "UNREACHABLE" not in answer.stdout
    for place in ("ansible_host", "molam_domain", "molam_administrator_networks", "molam_sender_networks"):
        assert f"{place} wants" in " ".join(answer.stdout.split())
