"""Render a role's template as Ansible would on a host, without a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).resolve().parents[2] / "roles"

# Collections' filters and tests are found only after this.
init_plugin_loader()


def trusted(value: Any) -> Any:  # noqa: ANN401  any YAML value
    """Return a value whose strings Ansible agrees to treat as templates, as it does for those of a role."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(part) for key, part in value.items()}
    if isinstance(value, list):
        return [trusted(part) for part in value]
    return value


def templar(role: str, debian: int, variables: dict[str, Any]) -> Templar:
    """Return what makes text of a role's templates, with the role's defaults and ``variables`` over them."""
    known: dict[str, Any] = {
        "ansible_managed": "Managed by Ansible",
        "ansible_facts": {"distribution_major_version": str(debian)},
        "inventory_hostname": "host",
        "role_path": str(ROLES / role),
        "molam_environment": "production",
        "molam_domain": "webhooks.shop.test",
        "molam_administrator_networks": [],
        "molam_sender_networks": [],
    }
    for part in ("defaults", "vars"):
        known |= yaml.safe_load((ROLES / role / part / "main.yml").read_text())
    known |= variables
    loader = DataLoader()
    loader.set_basedir(str(ROLES / role / "templates"))
    return Templar(loader=loader, variables=trusted(known))


def render(role: str, template: str, debian: int = 13, **variables: object) -> str:
    """Return a template's text for a Debian release."""
    text = (ROLES / role / "templates" / template).read_text()
    # As the template action does: block lines leave no trace.
    source = trust_as_template("#jinja2: trim_blocks: True\n" + text)
    return str(templar(role, debian, variables).template(source))


def faults(role: str, **variables: object) -> list[str]:
    """Return what a role's preflight would say of the variables: each fault's file, variable and what is wanted."""
    source = trust_as_template("{{ __" + role + "_checks | rejectattr('ok') }}")
    found: list[dict[str, str]] = templar(role, 13, variables).template(source)
    return [f"{fault['file']}: {fault['variable']} wants {fault['wants']}" for fault in found]
