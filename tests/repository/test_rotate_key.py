"""What rotate_key.yml refuses before it touches a host, and what it writes into a vault."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from .test_preflight import DEBIAN, ROOT, SECRET, host_with, preflight

# Most of them run a playbook or a build.
pytestmark = pytest.mark.slow

V1 = {"kid": "v1", "secret": SECRET, "state": "active"}
V0 = {"kid": "v0", "secret": f"{SECRET}0", "state": "revoked"}

# What is asked, the keys that there are, and what the answer must say.
REQUESTS: dict[str, tuple[str, list[dict[str, str]], list[str]]] = {
    "both at a time": ("kid=v2 revoke=v1", [V1], ["-e kid=v2 puts it in use", "one of them at a time"]),
    "a key that nobody made": ("kid=v2", [V1], ["no key v2", "has v1", "generate=true", "ansible-vault edit"]),
    "a key that was revoked": ("kid=v0", [V1, V0], ["v0 was revoked", "another one"]),
    "to revoke the only active key": ("revoke=v1 force=true", [V1, V0], ["only active key", "-e kid=v2"]),
}


@pytest.mark.parametrize(("asked", "keys", "words"), REQUESTS.values(), ids=REQUESTS.keys())
def test_request_is_refused(tmp_path: Path, asked: str, keys: list[dict[str, str]], words: list[str]) -> None:
    variables = host_with(tmp_path, DEBIAN.format(13)) | {"webhook_app_keys": keys}
    answer = preflight(tmp_path, variables, "--extra-vars", asked, playbook="rotate_key.yml")
    assert answer.returncode == 2, answer.stdout
    message = " ".join(answer.stdout.split())
    assert "Nothing was changed" in message
    assert [word for word in words if word not in message] == []
    assert SECRET not in message
    assert "The keys that it has" not in message


def test_a_secret_may_come_from_pass(tmp_path: Path) -> None:
    """As docs/secrets.md has it: the store, its key and the lookup, for real."""
    environment = {"GNUPGHOME": str(tmp_path / "gnupg"), "PASSWORD_STORE_DIR": str(tmp_path / "store")}

    def run(*command: str, text: str = "") -> None:
        subprocess.run(command, input=text, env=environment | {"PATH": "/usr/bin:/bin"}, text=True, check=True)

    (tmp_path / "gnupg").mkdir(mode=0o700)
    try:
        run("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "ops@shop.test", "default")
        run("pass", "init", "ops@shop.test")
        run("pass", "insert", "--echo", "molam/webhook/v1", text=f"{SECRET}\n")
        (documented,) = [
            line.partition("secret: ")[2]
            for line in (ROOT / "docs" / "secrets.md").read_text().splitlines()
            if "passwordstore" in line and "secret:" in line
        ]
        known = host_with(tmp_path, DEBIAN.format(13))
        key = V1 | {"secret": yaml.safe_load(documented)}
        answer = preflight(tmp_path, known | {"webhook_app_keys": [key]}, "-vvv", "--diff", **environment)
        assert answer.returncode == 0, answer.stdout
        assert SECRET not in answer.stdout + answer.stderr
    finally:
        run("gpgconf", "--kill", "all")


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    """Return the action plugin as a module."""
    path = ROOT / "playbooks" / "action_plugins" / "vaulted_key.py"
    loader = SourceFileLoader("vaulted_key", str(path))
    spec = spec_from_loader("vaulted_key", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module
    loader.exec_module(module)
    return module


# Ways to write the list that a person might have, the next variable and its comment behind it.
BELOW = "\n# Of something else.\nother:\n  - state: active\n"
FILES = {
    "indented": "---\nwebhook_app_keys:\n  - kid: v1\n    secret: !unsafe a{{b\n    # Why.\n    state: active  # now\n",
    "not indented": "webhook_app_keys: # the keys\n- state: 'active'\n  secret: abc\n  kid: \"v1\"\n",
    "two of them": "webhook_app_keys:\n\n  - {a}\n    kid: v0\n    state: revoked\n  - kid: v1\n    state: active\n",
}


@pytest.mark.parametrize("below", ["", BELOW], ids=["at the end", "before others"])
@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_a_file_is_changed_as_by_hand(plugin: ModuleType, text: str, below: str) -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]

    def read(text: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.load(text, Loader)  # noqa: S506  a safe loader
        return found

    text = text.replace("{a}", "secret: abc") + below
    before = read(text)
    key = {"kid": "v2", "secret": "def", "state": "active", "created": "2026-01-31"}
    added = plugin.with_key(text, key)
    assert read(added) == before | {"webhook_app_keys": [*before["webhook_app_keys"], key]}
    assert set(text.splitlines()) <= set(added.splitlines())
    revoked = plugin.with_state(added, "v1", "revoked")
    states = {key["kid"]: key["state"] for key in read(revoked)["webhook_app_keys"]}
    assert states == {key["kid"]: key["state"] for key in before["webhook_app_keys"]} | {
        "v1": "revoked",
        "v2": "active",
    }
    assert len(set(added.splitlines()) - set(revoked.splitlines())) <= 1
    assert read(revoked).get("other") == before.get("other")


@pytest.mark.parametrize(
    ("text", "encrypted", "reason"),
    [
        ("webhook_app_keys: [{kid: v1, secret: abc, state: active}]\n", True, "edit it by hand"),
        ("other: 1\n", True, "has no webhook_app_keys"),
        ("webhook_app_keys:\n  - {kid: v1, secret: abc, state: active}\n", False, "is not encrypted"),
    ],
    ids=["on one line", "elsewhere", "plain"],
)
def test_a_file_that_only_a_person_can_change_stays(tmp_path: Path, text: str, encrypted: bool, reason: str) -> None:
    path, password = tmp_path / "vault.yml", tmp_path / "password"
    path.write_text(text)
    password.write_text("a password of this test\n")
    vault = f"--vault-id=prod@{password}"
    if encrypted:
        subprocess.run(["ansible-vault", "encrypt", vault, path], check=True, capture_output=True)
    before = path.read_bytes()
    answer = subprocess.run(
        [
            *("ansible", "localhost", vault, "--playbook-dir", ROOT / "playbooks", "--module-name", "vaulted_key"),
            *("--args", f"path={path} kid=v2 state=active"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode != 0
    assert reason in answer.stdout + answer.stderr
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [password, path]
