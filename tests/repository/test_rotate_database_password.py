"""What rotate_database_password.yml refuses before it touches a host, writes into a vault, and tells PostgreSQL."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
import yaml

from .test_preflight import DEBIAN, ROOT, host_with, preflight

# Most of them run a playbook or a build.
pytestmark = pytest.mark.slow

PASSWORD = "q8Vw3LmZr5Kt1Yh7Nd0b"  # noqa: S105  made up for this test
JOBS = ("receiver", "worker", "owner")
LOGINS = {job: {"user": f"molam_{job}_a", "password": f"{PASSWORD}{job}"} for job in JOBS}
DATABASE: dict[str, Any] = {
    "webhook_app_database_url": "postgresql://db.shop.test/molam?sslmode=verify-full",
    "webhook_app_database_networks": ["198.18.7.9/32"],
    "webhook_app_database_logins": LOGINS,
    "webhook_app_database_admin": {"user": "dba", "password": PASSWORD},
}
SAME = {job: {"user": "molam_a", "password": PASSWORD} for job in JOBS}
NO_LETTER = LOGINS | {"worker": {"user": "molam_worker", "password": PASSWORD}}

# The inventory's variables, and what the answer must say.
REQUESTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "on the host itself": ({}, ["on the host itself", "no password"]),
    "nobody who may make roles": (DATABASE | {"webhook_app_database_admin": {}}, ["-e @FILE", "vaulted", "runbooks"]),
    "one user for all jobs": (DATABASE | {"webhook_app_database_logins": SAME}, ["have to be three", "molam_a"]),
    "user that has no other one": (DATABASE | {"webhook_app_database_logins": NO_LETTER}, ["_a or _b", "molam_worker"]),
}


@pytest.mark.parametrize(("variables", "words"), REQUESTS.values(), ids=REQUESTS.keys())
def test_request_is_refused(tmp_path: Path, variables: dict[str, Any], words: list[str]) -> None:
    known = host_with(tmp_path, DEBIAN.format(13)) | variables
    answer = preflight(tmp_path, known, playbook="rotate_database_password.yml")
    assert answer.returncode == 2, answer.stdout
    message = " ".join(answer.stdout.split())
    assert "Nothing was changed" in message
    assert [word for word in words if word not in message] == []
    assert PASSWORD not in message
    assert "What the inventory would change" not in message


def test_postgresql_is_told_what_it_would_have_made_itself() -> None:
    """As in RFC 7677, section 3: what server and client prove to each other there is proved with this verifier."""
    loader = SourceFileLoader("scram", str(ROOT / "playbooks" / "filter_plugins" / "scram.py"))
    spec = spec_from_loader("scram", loader)
    assert spec is not None
    scram = module_from_spec(spec)
    loader.exec_module(scram)
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    verifier = scram.scram_sha_256("pencil", base64.b64decode(salt))
    kind, numbers, keys = verifier.split("$")
    assert (kind, numbers) == ("SCRAM-SHA-256", f"4096:{salt}")
    stored, server = map(base64.b64decode, keys.split(":"))
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    said = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}".encode()
    signature = base64.b64encode(hmac.digest(server, said, "sha256")).decode()
    assert signature == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored, said, "sha256"), strict=True))
    assert hashlib.sha256(client).digest() == stored
    assert scram.scram_sha_256("pencil") != scram.scram_sha_256("pencil")


def write_logins(folder: Path, text: str, *, encrypted: bool = True) -> tuple[subprocess.CompletedProcess[str], str]:
    """Have the action plugin change a file with this text; return its answer and the text that stands there then."""
    path, password = folder / "vault.yml", folder / "password"
    path.write_text(text)
    password.write_text("a password of this test\n")
    vault = f"--vault-id=prod@{password}"
    if encrypted:
        subprocess.run(["ansible-vault", "encrypt", vault, path], check=True, capture_output=True)
    arguments = {"path": str(path), "users": {job: f"molam_{job}_b" for job in JOBS}}
    answer = subprocess.run(
        [
            *("ansible", "localhost", vault, "--playbook-dir", ROOT / "playbooks"),
            *("--module-name", "vaulted_logins", "--args", json.dumps(arguments)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if encrypted:
        subprocess.run(["ansible-vault", "decrypt", vault, path], check=True, capture_output=True)
    return answer, path.read_text()


# Ways to write them that a person might have.
FLOW = "".join(f"  {job}: {json.dumps(login)}  # of it\n" for job, login in LOGINS.items())
BLOCK = "".join(f"  {job}:\n    user: '{job}_a'\n    # Why.\n    password: !unsafe x{{{{y\n" for job in JOBS)
FILES = {
    "flow": f"---\n# Ours.\nwebhook_app_database_logins:\n{FLOW}\nother: 1\n",
    "block": "a: ä\nwebhook_app_database_logins:\n" + BLOCK.replace("!unsafe x{{y", "abc") + "# The end.\n",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_a_file_is_changed_as_by_hand(tmp_path: Path, text: str) -> None:
    answer, changed = write_logins(tmp_path, text)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    logins = after.pop("webhook_app_database_logins")
    before.pop("webhook_app_database_logins")
    assert after == before
    assert {job: login["user"] for job, login in logins.items()} == {job: f"molam_{job}_b" for job in JOBS}
    made = {login["password"] for login in logins.values()}
    assert len(made) == 3
    assert min(map(len, made)) >= 32
    assert [line.partition("#")[2] for line in text.splitlines()] == [
        line.partition("#")[2] for line in changed.splitlines()
    ]
    assert [password for password in made if password in answer.stdout + answer.stderr] == []


@pytest.mark.parametrize(
    ("text", "encrypted", "reason"),
    [
        ("other: 1\n", True, "has no webhook_app_database_logins"),
        (FILES["flow"], False, "is not encrypted"),
        (
            "webhook_app_database_logins:\n" + BLOCK.replace("!unsafe x{{y", "\"{{ lookup('pipe', 'x') }}\""),
            True,
            "by hand",
        ),
        (
            "webhook_app_database_logins:\n  receiver: &a {user: a_a, password: b}\n  worker: *a\n  owner: *a\n",
            True,
            "by hand",
        ),
    ],
    ids=["elsewhere", "plain", "lookups", "one for all"],
)
def test_a_file_that_only_a_person_can_change_stays(tmp_path: Path, text: str, encrypted: bool, reason: str) -> None:
    answer, after = write_logins(tmp_path, text, encrypted=encrypted)
    assert answer.returncode != 0
    assert reason in answer.stdout + answer.stderr
    assert after == text
