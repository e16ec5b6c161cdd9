"""The keys a sender may sign with, by key id (contract, "What is sent" and "Self-test")."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

KID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SELFTEST_KID = "selftest"
MIN_SECRET_CHARACTERS = 16

# What people leave in place of a secret; compared in lower case.
_PLACEHOLDER = re.compile(r"x{5,}|change[-_ ]?me|example|placeholder|your[-_]|replace[-_ ]?(me|this)")


class KeyringError(ValueError):
    """The keys are not fit for use. `faults` has one sentence for each reason, none of which shows a
    secret.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Key:
    """One key: the secret's UTF-8 bytes as they stand, and whether it still verifies."""

    secret: bytes = field(repr=False)
    active: bool


@dataclass(frozen=True, slots=True)
class Keyring:
    """All configured keys by kid (as bytes, the way they arrive), and the kid of a signature that names
    none.
    """

    keys: Mapping[bytes, Key]
    default_kid: bytes


def from_secret(secret: str, default_kid: str, *, setting: str, production: bool) -> Keyring:
    """Keyring of a single active key. Raises KeyringError, whose faults name `setting`."""
    return _build({default_kid: (secret, "active")}, default_kid, [], setting=setting, production=production)


def from_json(text: str, default_kid: str, *, setting: str, production: bool) -> Keyring:
    """Keyring from `{"<kid>": {"secret": "...", "state": "active" | "revoked"}}`.

    Raises KeyringError, whose faults name `setting` and the kid.
    """
    try:
        document = json.loads(text, object_pairs_hook=_refuse_repeats)
    except (ValueError, RecursionError):
        # The parser's own words may quote the text, which is secret.
        raise KeyringError([f"{setting}: is not JSON, or names a thing twice"]) from None
    if not isinstance(document, dict) or not document:
        raise KeyringError([f'{setting}: must be like {{"v1": {{"secret": "...", "state": "active"}}}}'])
    entries: dict[str, tuple[str, str]] = {}
    misshapen: list[str] = []
    for kid, entry in document.items():
        match entry:
            case {"secret": str(secret), "state": "active" | "revoked" as state} if len(entry) == 2:
                entries[kid] = (secret, state)
            case _:
                misshapen.append(f'{setting}, kid {kid!r}: must have a "secret" and a "state", active or revoked')
    return _build(entries, default_kid, misshapen, setting=setting, production=production)


def _build(
    entries: Mapping[str, tuple[str, str]],
    default_kid: str,
    misshapen: list[str],
    *,
    setting: str,
    production: bool,
) -> Keyring:
    faults = misshapen + [
        f"{setting}, kid {kid!r}: {fault}"
        for kid, (secret, _) in entries.items()
        for fault in _faults(kid, secret, production)
    ]
    if not any(state == "active" for kid, (_, state) in entries.items() if kid != SELFTEST_KID):
        faults.append(f"{setting}: has no active key, so no event could be accepted")
    if faults:
        raise KeyringError(faults)
    keys = {kid.encode(): Key(secret.encode(), state == "active") for kid, (secret, state) in entries.items()}
    return Keyring(keys, default_kid.encode())


def _faults(kid: str, secret: str, production: bool) -> Iterator[str]:
    if not KID.fullmatch(kid):
        yield "a key id is 1 to 64 of A-Z a-z 0-9 _ . -"
    yield from secret_faults(secret, production=production)


def secret_faults(secret: str, *, production: bool) -> Iterator[str]:
    """Each reason why a secret is not fit for use; none of them shows it."""
    if not secret.strip():
        yield "the secret is empty"
    elif len(secret) < MIN_SECRET_CHARACTERS:
        yield f"the secret is shorter than {MIN_SECRET_CHARACTERS} characters"
    if secret != secret.strip():
        yield "the secret begins or ends with white space"
    if any("\ud800" <= character <= "\udfff" for character in secret):
        yield "the secret is not valid Unicode"
    if secret and (len(set(secret)) == 1 or _PLACEHOLDER.search(secret.lower())):
        yield "the secret is a placeholder"
    if production and "_test_" in secret:
        yield 'a test secret ("_test_") is refused when MOLAM_ENVIRONMENT=production'


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated name")
    return members
