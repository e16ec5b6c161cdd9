"""What must hold of the repository itself: no secrets, pinned versions, the contract's data as it was given."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from tests.conftest import Saw

ROOT = Path(__file__).resolve().parents[2]

SECRETS = re.compile(
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[\r\n]"
    r"|\b(?:whsec|sk)_live_[A-Za-z0-9]{8,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
)


def tracked() -> list[Path]:
    """Return the files that are, or would be, in the repository."""
    answer = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in answer.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.checklist("PRE-1")
def test_no_secret_is_in_the_repository(saw: Saw) -> None:
    files = tracked()
    found = [path for path in files if SECRETS.search(path.read_text(errors="ignore"))]
    saw(f"{len(files)} files of the repository, {len(found)} with what looks like a secret")
    assert found == []


def test_no_placeholder_is_left_in_the_docs() -> None:
    assert [path for path in tracked() if path.suffix == ".md" and "@@" in path.read_text()] == []


@pytest.mark.checklist("PRE-2")
@pytest.mark.parametrize("name", [".env", "app/.env", "inventories/production/.env", ".state/ssh/id_ed25519"])
def test_git_ignores_what_holds_secrets(name: str, saw: Saw) -> None:
    saw(name)
    assert subprocess.run(["git", "check-ignore", "--quiet", name], cwd=ROOT, check=False).returncode == 0


def test_collections_are_those_that_the_ansible_package_brings() -> None:
    """Whoever runs ansible-core with Galaxy gets the same versions as whoever installs the locked requirements."""
    wanted = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    brought = Path(str(metadata.distribution("ansible").locate_file("ansible_collections")))
    for collection in wanted:
        manifest = brought.joinpath(*collection["name"].split("."), "MANIFEST.json")
        info = yaml.safe_load(manifest.read_text())["collection_info"]
        assert collection["version"] == info["version"], collection["name"]


def test_every_collection_in_use_is_required() -> None:
    wanted = {entry["name"] for entry in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]}
    sources = [path for path in tracked() if path.suffix in (".yml", ".j2") and path.name != "requirements.yml"]
    used = {
        match
        for path in sources
        for match in re.findall(
            r"\b(community\.\w+|containers\.podman|ansible\.(?:posix|utils))\.\w+", path.read_text()
        )
    }
    assert used == wanted


def test_no_line_break_is_written_where_it_would_be_shown_as_two_characters() -> None:
    """In a YAML block, which knows no escapes, Ansible leaves a backslash of a template's text as it is."""
    tokens = [
        (path, token)
        for path in tracked()
        if path.suffix == ".yml"
        for token in yaml.scan(path.read_text())
        if isinstance(token, yaml.ScalarToken)
    ]
    blocks = [(path, token) for path, token in tokens if token.style in ("|", ">")]
    assert len(blocks) > 100
    assert [str(path) for path, token in blocks if re.search(r"\{\{[^}]*'\\n'", token.value)] == []


@pytest.mark.parametrize(
    "lock",
    ["app/requirements.txt", *(f"requirements/{name}.txt" for name in ("control", "installer", "mitogen", "test"))],
)
def test_locks_pin_and_hash_everything_and_name_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    packages = re.findall(r"^([A-Za-z0-9][^\s\\]*)", text, re.MULTILINE)
    assert packages
    assert all("==" in package for package in packages)
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text
    assert "--index-url" not in text


def test_contract_is_the_one_given() -> None:
    given = ROOT.parent / "shared" / "contract"
    if not given.exists():
        pytest.skip("the contract's own repository is not beside this one")
    for copy in (ROOT / "tests" / "contract").iterdir():
        assert copy.read_bytes() == (given / copy.name).read_bytes(), copy.name
