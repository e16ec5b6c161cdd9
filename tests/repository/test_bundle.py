"""The release bundle: whole, made of locked wheels, the same each time it is built."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = "roles/webhook_app/files/release/run"


def run(cache: Path, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script for a Debian 13 host."""
    command: list[str | Path] = [sys.executable, ROOT / "scripts" / "build-bundle", f"--cache={cache}", *options]
    command += ["--python=3.13", "--machine=x86_64"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def build(cache: Path, *options: str) -> dict[str, str]:
    """Build the bundle into ``cache`` and return what the script printed."""
    answer = run(cache, *options)
    assert answer.returncode == 0, answer.stderr
    printed: dict[str, str] = json.loads(answer.stdout)
    return printed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an unpacked bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    printed = build(folder / "cache")
    with tarfile.open(printed["path"]) as tar:
        tar.extractall(folder, filter="data")
    return folder / printed["release"]


def test_sums_cover_every_file(bundle: Path) -> None:
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {str(path.relative_to(bundle)): path for path in bundle.rglob("*") if path.is_file()}
    assert set(sums) == set(files) - {"SHA256SUMS"}
    assert all(sums[name] == hashlib.sha256(files[name].read_bytes()).hexdigest() for name in sums)


def test_wheels_are_those_of_the_lock_and_the_app(bundle: Path) -> None:
    locked = set(re.findall(r"sha256:([0-9a-f]{64})", (ROOT / "app" / "requirements.txt").read_text()))
    wheels = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (bundle / "wheels").iterdir()}
    ours = [name for name, digest in wheels.items() if digest not in locked]
    assert [name.split("-")[0] for name in ours] == ["molam_webhook"]
    listed = dict(
        re.findall(r"^\./wheels/(\S+) --hash=sha256:(\S+)$", (bundle / "install.txt").read_text(), re.MULTILINE)
    )
    assert listed == wheels


def test_installer_is_the_locked_pip(bundle: Path) -> None:
    (pip,) = (bundle / "installer").iterdir()
    assert hashlib.sha256(pip.read_bytes()).hexdigest() in (ROOT / "requirements" / "installer.txt").read_text()


def test_host_files_are_those_of_the_role(bundle: Path) -> None:
    """Root's, with the modes that programs and units need, and no folder whose mode could change one of the host's."""
    source = ROOT / "roles" / "webhook_app" / "files" / "host"
    with tarfile.open(next((bundle.parent / "cache").glob("host-files-*.tar"))) as tar:
        members = {member.name: member for member in tar.getmembers()}
        packed = {name: tar.extractfile(member).read() for name, member in members.items()}  # type: ignore[union-attr]
    assert packed == {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    for name, member in members.items():
        assert (member.uid, member.gid) == (0, 0)
        assert member.mode == (0o755 if "bin/" in name else 0o644), name


def test_two_builds_are_the_same(bundle: Path, tmp_path: Path) -> None:
    first = next((bundle.parent / "cache").glob("molam-webhook-*.tar"))
    second = Path(build(tmp_path)["path"])
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_damaged_bundle_is_not_installed(bundle: Path, tmp_path: Path) -> None:
    """The release's own installer stops at the first file that is not what was built."""
    for path in bundle.rglob("*"):
        target = tmp_path / path.relative_to(bundle)
        target.mkdir(parents=True, exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    wheel = next((tmp_path / "wheels").glob("molam_webhook-*.whl"))
    wheel.write_bytes(wheel.read_bytes()[:-1])
    answer = subprocess.run(["sh", tmp_path / "install"], capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert wheel.name in answer.stdout + answer.stderr
    assert not (tmp_path / "complete").exists()
    assert not (tmp_path / "venv").exists()


def test_no_index_is_told_plainly(tmp_path: Path) -> None:
    """Without a package index nothing is left behind, and the message says what to look at."""
    answer = run(tmp_path, env={"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"})
    assert answer.returncode == 1
    assert "Is the package index reachable" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.glob("*.tar")) == []


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone of what the working tree has, with tag v0.1.0 on it, v0.3.0 by mistake, and changes after that."""
    folder = tmp_path_factory.mktemp("clone")
    for part in ("app", "requirements", "roles/webhook_app/files/release"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)

    git("init", "--initial-branch=main")
    git("add", ".")
    git("commit", "--message=A release")
    for tag in ("v0.1.0", "v0.3.0"):
        git("tag", tag)
    (folder / "app" / "src" / "molam_webhook" / "__init__.py").write_text("raise RuntimeError\n")
    (folder / RUN).write_text("exit 1\n")
    git("commit", "--all", "--message=After it")
    return folder


def test_a_tag_is_built_as_it_is_there_whatever_came_after_it(clone: Path, bundle: Path, tmp_path: Path) -> None:
    printed = build(tmp_path, "--release=v0.1.0", f"--repository={clone}")
    tagged = subprocess.run(["git", "-C", clone, "rev-parse", "v0.1.0"], capture_output=True, text=True, check=True)
    with tarfile.open(printed["path"]) as tar:
        tar.extractall(tmp_path, filter="data")
    manifest = json.loads((tmp_path / "v0.1.0" / "manifest.json").read_text())
    assert manifest["release"] == printed["release"] == "v0.1.0"
    assert manifest["commit"] == printed["commit"] == tagged.stdout.strip()
    # Nothing is known of the release but what is in it: the same wheels as those of the same content elsewhere.
    for name in ("SHA256SUMS", "install.txt"):
        mine, theirs = ((folder / name).read_text().splitlines() for folder in (tmp_path / "v0.1.0", bundle))
        assert [line for line in mine if "manifest" not in line] == [line for line in theirs if "manifest" not in line]
    assert not build(tmp_path, "--release=v0.1.0", f"--repository={clone}")["built"]


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ("v0.2.0", "there is no tag v0.2.0 in {clone}. The latest there: v0.3.0, v0.1.0."),
        ("v0.3.0", "tag v0.3.0 is on a commit whose version is 0.1.0"),
        ("main", "'main' is no release: name a tag such as v1.2.0, or 'worktree'."),
        ("--upload-pack=x", "'--upload-pack=x' is no release"),
    ],
)
def test_what_is_no_release_is_told_plainly(clone: Path, tmp_path: Path, release: str, reason: str) -> None:
    answer = run(tmp_path, f"--release={release}", f"--repository={clone}")
    assert answer.returncode == 1
    assert reason.format(clone=clone) in answer.stderr
    assert list(tmp_path.glob("*.tar")) == []


def test_a_host_needs_no_more_than_the_control_machine_would() -> None:
    """pip judges a lock's conditions by the Python that it runs on, and not by the host's."""
    lock = (ROOT / "app" / "requirements.txt").read_text()
    assert "==" in lock
    assert re.findall(r"^\S+ ; .*python.*version.*$", lock, re.MULTILINE) == []
