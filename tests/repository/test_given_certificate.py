"""A given certificate is looked into before anything is changed: what nginx or a caller would refuse is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pairs import Pair, make

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "nginx" / "files" / "check-certificate"
NAME = "webhooks.shop.test"
ROOT, LONG_AGO = make("Root"), (-90, -1)
BETWEEN = make("Between", issuer=ROOT)
GOOD = make(NAME, issuer=BETWEEN)
OLD_BETWEEN = make("Old", issuer=ROOT, days=LONG_AGO)


def check(
    folder: Path, chain: list[Pair], *names: str, key: str = "", stored: str = "", mode: int = 0o600
) -> tuple[int, str]:
    """Return what the program says of a chain and a key: that of its first certificate, stored as it is, or others."""
    text = key or chain[0].key_pem()
    files = {"certificate": "".join(pair.pem for pair in chain), "key": stored or text}
    files["roots"] = f"# Not a root.\n{make('Another').pem}{ROOT.pem}"
    for name, content in files.items():
        (folder / name).write_text(content)
    (folder / "key").chmod(mode)
    command = [sys.executable, PROGRAM, *(f"--{name}={folder / name}" for name in files), *(names or [NAME])]
    answer = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return answer.returncode, answer.stderr


@pytest.mark.parametrize(
    "chain",
    [
        [GOOD, BETWEEN],
        [GOOD, BETWEEN, ROOT],
        # What nobody needs does no harm.
        [GOOD, OLD_BETWEEN, BETWEEN],
        [make(NAME, issuer=ROOT)],
        [make("shop.test", "*.shop.test", issuer=ROOT)],
    ],
    ids=["whole chain", "with its root", "with more", "from the root", "for any name"],
)
def test_accepted(tmp_path: Path, chain: list[Pair]) -> None:
    assert check(tmp_path, chain) == (0, "")


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ([make(NAME, issuer=ROOT, days=LONG_AGO)], ["nginx_tls_certificate wants a valid one", "ran out on"]),
        ([make(NAME, issuer=ROOT, days=(1, 9))], ["begins on", "clock"]),
        ([make(NAME, issuer=OLD_BETWEEN), OLD_BETWEEN], ["'CN=Old' ran out on"]),
        ([make("stranger.example", issuer=ROOT)], ["it is for stranger.example, not for webhooks.shop.test"]),
        ([make("*.test", issuer=ROOT)], ["not for webhooks.shop.test"]),
        ([GOOD], ["the whole chain", "'CN=webhooks.shop.test' is missing: 'CN=Between'", "nginx_tls_ca_bundle"]),
        ([GOOD, make("Between")], ["the whole chain", "'CN=Between'"]),
        ([make(NAME)], ["the whole chain"]),
        ([BETWEEN, GOOD], ["it is for Between"]),
    ],
    ids=[
        "expired",
        "not yet valid",
        "expired in between",
        "foreign",
        "too wide a star",
        "incomplete",
        "with another of that name",
        "self-signed",
        "in the wrong order",
    ],
)
def test_refused(tmp_path: Path, chain: list[Pair], words: list[str]) -> None:
    status, told = check(tmp_path, chain)
    assert status == 1
    assert [word for word in words if word not in told] == []


def test_one_for_some_of_the_names_is_refused(tmp_path: Path) -> None:
    told = check(tmp_path, [GOOD, BETWEEN], NAME, "pay.shop.test")[1]
    assert "it is for webhooks.shop.test, not for pay.shop.test" in told


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (make("x").key_pem(), ["nginx_tls_certificate_key wants the key of the first certificate", "another's"]),
        (GOOD.key_pem("secret"), ["without a passphrase"]),
        (GOOD.pem, ["a private key (PEM)"]),
    ],
    ids=["of another", "with a passphrase", "none"],
)
def test_key_is_refused(tmp_path: Path, key: str, words: list[str]) -> None:
    status, told = check(tmp_path, [GOOD, BETWEEN], key=key)
    assert status == 1
    assert [word for word in words if word not in told] == []
    assert "PRIVATE" not in told


def test_key_that_others_read_is_refused_unless_it_is_encrypted(tmp_path: Path) -> None:
    status, told = check(tmp_path, [GOOD, BETWEEN], mode=0o644)
    assert status == 1
    assert f"its mode is 0644: chmod 600 {tmp_path / 'key'}" in told
    assert check(tmp_path, [GOOD, BETWEEN], mode=0o640) == (0, "")
    assert check(tmp_path, [GOOD, BETWEEN], mode=0o644, stored="$ANSIBLE_VAULT;1.1;AES256\n00\n") == (0, "")
