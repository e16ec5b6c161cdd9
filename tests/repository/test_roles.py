"""Each role's argument specs, defaults and README say the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def options(role: str) -> dict[str, dict[str, Any]]:
    """Return the options of a role's main entry point."""
    specs = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())
    found: dict[str, dict[str, Any]] = specs["argument_specs"]["main"]["options"]
    return found


def defaults(role: str) -> dict[str, Any]:
    """Return a role's defaults."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text())
    return found


@pytest.mark.parametrize("role", ROLES)
def test_specs_have_the_defaults_keys_and_values(role: str) -> None:
    # A variable that roles share can't be any one's: what it is where nobody sets it stands in the specs alone.
    own = {name: option for name, option in options(role).items() if name.startswith(f"{role}_")}
    stated = {name: option["default"] for name, option in own.items() if "default" in option}
    assert stated == defaults(role)


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_a_default_or_is_required(role: str) -> None:
    for name, option in options(role).items():
        assert ("default" in option) != option.get("required", False), name


@pytest.mark.parametrize("role", ROLES)
def test_public_variables_bear_the_roles_name(role: str) -> None:
    assert all(name.startswith((f"{role}_", "molam_")) for name in options(role))
    assert all(name.startswith(f"{role}_") for name in defaults(role))


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_explained_where_it_stands(role: str) -> None:
    blocks = (ROOT / "roles" / role / "defaults" / "main.yml").read_text().split("\n\n")
    for block in blocks:
        lines = [line for line in block.splitlines() if line != "---"]
        assert lines[0].startswith("# "), block


def test_readmes_are_made_from_the_specs() -> None:
    answer = subprocess.run(
        [sys.executable, ROOT / "scripts" / "role-readme", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
