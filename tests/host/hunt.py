"""Every secret of the inventory, in every form in which it could be found where it should not be."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

import yaml
from testinfra.host import Host

from tests.host.inventory import ask

ROLES = Path(__file__).resolve().parents[2] / "roles"

# What is shorter would be found by accident.
SHORTEST = 12


def secret_variables() -> list[str]:
    """Return the variables that a role's argument spec calls secret."""
    specs = [yaml.safe_load(path.read_text()) for path in ROLES.glob("*/meta/argument_specs.yml")]
    options = [spec["argument_specs"]["main"]["options"] for spec in specs]
    return sorted(name for part in options for name, option in part.items() if option.get("no_log"))


def secret_expressions() -> dict[str, str]:
    """Return what to ask an inventory for: the secret variables, and a line of the TLS key, by name."""
    key = "nginx_tls_certificate_key"
    tls = f"lookup('ansible.builtin.file', {key}).splitlines()[1] if {key} | default('') else ''"
    return {name: f"{name} | default('')" for name in secret_variables()} | {"tls_key": tls}


def inventory_secrets(host: Host) -> dict[str, str]:
    """Return the secrets that the host's inventory has, by what they are; its TLS key too, by a line of it."""
    return secrets_in(ask(host, secret_expressions()))


def secrets_in(values: dict[str, Any]) -> dict[str, str]:
    """Return the secret texts in the values of secret variables, by what they are."""
    return {f"{name} {number}": text for name, value in values.items() for number, text in enumerate(texts(value))}


def texts(value: Any) -> Iterator[str]:  # noqa: ANN401  any variable's value
    """Yield the secret texts in a variable: keys' secrets, logins' passwords, of a URL also its parts."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from texts(entry) if isinstance(entry, dict) or name == "password" else ()
    elif isinstance(value, list):
        for entry in value:
            yield from texts(entry["secret"])
    elif value:
        yield value
        if "://" in value:
            url = urlsplit(value)
            yield from (part for part in (url.username, url.password, url.path.strip("/")) if part)


def forms(secret: str) -> set[str]:
    """Return what a secret may look like: as it is, quoted for URLs or JSON, in base64 wherever in a text it stands."""
    raw = secret.encode()
    found = {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    for before in range(3):
        # The first and last characters depend on what stands before and after.
        encoded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        found.add(encoded[(0, 2, 3)[before] : len(encoded) - (1 if (before + len(raw)) % 3 else 0)])
    return {form for form in found if len(form) >= SHORTEST}


def patterns(secrets: dict[str, str]) -> str:
    """Return the forms of all secrets, one a line."""
    return "".join(f"{form}\n" for form in sorted(set().union(*map(forms, secrets.values()))))


def seen(secrets: dict[str, str], text: str) -> list[str]:
    """Return which of the secrets stand in a text."""
    return [name for name, secret in secrets.items() if any(form in text for form in forms(secret))]
