"""The release bundle: whole, made of locked wheels, the same each time it is built."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

# Most of them run a playbook or a build.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RUN = "roles/webhook_app/files/release/run"
VERSION = tomllib.loads((ROOT / "app" / "pyproject.toml").read_text())["project"]["version"]
TAG = f"v{VERSION}"
HOST = ("--python=3.13", "--machine=x86_64")

NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(
    cache: Path, *options: str, env: Mapping[str, str] = MappingProxyType({}), umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """Run the script with more in its environment."""
    command: list[str | Path] = [sys.executable, ROOT / "scripts" / "build-bundle", f"--cache={cache}", *options]
    return subprocess.run(
        command, env={**os.environ, **env}, umask=umask, capture_output=True, text=True, check=False, cwd=ROOT.parent
    )


def build(
    cache: Path,
    release: str = "worktree",
    *options: str,
    env: Mapping[str, str] = MappingProxyType({}),
    umask: int = -1,
) -> dict[str, Any]:
    """Build a bundle for a Debian 13 host into ``cache`` and return what the script printed."""
    answer = run(cache, f"--release={release}", *HOST, *options, env=env, umask=umask)
    assert answer.returncode == 0, answer.stderr
    printed: dict[str, Any] = json.loads(answer.stdout)
    return printed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an unpacked bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    printed = build(folder / "cache")
    with tarfile.open(printed["path"]) as tar:
        tar.extractall(folder, filter="data")
    return folder / str(printed["release"])


def test_sums_cover_every_file(bundle: Path) -> None:
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {str(path.relative_to(bundle)): path for path in bundle.rglob("*") if path.is_file()}
    assert set(sums) == set(files) - {"SHA256SUMS"}
    assert all(sums[name] == sha256(files[name]) for name in sums)


def test_wheels_are_those_of_the_lock_and_the_app(bundle: Path) -> None:
    locked = set(re.findall(r"sha256:([0-9a-f]{64})", (ROOT / "app" / "requirements.txt").read_text()))
    wheels = {path.name: sha256(path) for path in (bundle / "wheels").iterdir()}
    ours = [name for name, digest in wheels.items() if digest not in locked]
    assert [name.split("-")[0] for name in ours] == ["molam_webhook"]
    listed = dict(
        re.findall(r"^\./wheels/(\S+) --hash=sha256:(\S+)$", (bundle / "install.txt").read_text(), re.MULTILINE)
    )
    assert listed == wheels


def test_installer_is_the_locked_pip(bundle: Path) -> None:
    (pip,) = (bundle / "installer").iterdir()
    assert sha256(pip) in (ROOT / "requirements" / "installer.txt").read_text()


def test_host_files_are_those_of_all_roles(bundle: Path) -> None:
    """Root's, with the modes that programs and units need, and no folder whose mode could change one of the host's."""
    sources = {
        str(path.relative_to(source)): path.read_bytes()
        for source in (ROOT / "roles").glob("*/files/host")
        for path in source.rglob("*")
        if path.is_file()
    }
    with tarfile.open(next((bundle.parent / "cache").glob("host-files-*.tar"))) as tar:
        members = {member.name: member for member in tar.getmembers()}
        packed = {name: tar.extractfile(member).read() for name, member in members.items()}  # type: ignore[union-attr]
    assert packed == sources
    assert {"etc/systemd/system/molam.service", "etc/systemd/system/molam-backup.timer"} <= packed.keys()
    for name, member in members.items():
        assert (member.uid, member.gid) == (0, 0)
        program = "bin/" in name or "update-motd.d/" in name or name.endswith(".fact")
        assert member.mode == (0o755 if program else 0o644), name


def test_two_runs_of_the_installer_do_not_meet(tmp_path: Path) -> None:
    """One may go on when who began it is gone, and has begun it again."""
    local = f"--python={sys.version_info.major}.{sys.version_info.minor}"
    answer = run(tmp_path / "cache", "--release=worktree", local, f"--machine={os.uname().machine}")
    assert answer.returncode == 0, answer.stderr
    printed = json.loads(answer.stdout)
    with tarfile.open(printed["path"]) as tar:
        tar.extractall(tmp_path, filter="data")
    install = tmp_path / str(printed["release"]) / "install"
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    first = subprocess.Popen(["sh", install], env=env, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not [*install.parent.glob("venv/lib/*/site-packages/*.dist-info")]:
        time.sleep(0.01)
    assert first.poll() is None, "it was over before the second one could begin"
    second = subprocess.run(["sh", install], env=env, capture_output=True, text=True, check=False)
    assert (first.wait(), second.returncode) == (0, 0), (first.communicate(), second.stderr)
    assert (install.parent / "complete").exists()


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
    answer = run(tmp_path, "--release=worktree", *HOST, env=NO_INDEX)
    assert answer.returncode == 1
    assert "Is the package index reachable" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".cp313-x86_64.lock"]


def test_without_a_release_only_the_hosts_files_are_packed(tmp_path: Path) -> None:
    answer = run(tmp_path)
    assert answer.returncode == 0, answer.stderr
    printed = json.loads(answer.stdout)
    assert printed.pop("host_files") == str(next(tmp_path.glob("host-files-*.tar")))
    assert printed == dict.fromkeys(("release", "commit", "path", "built"))
    assert list(tmp_path.glob("molam-webhook-*")) == []


def test_a_release_is_built_for_a_kind_of_host(tmp_path: Path) -> None:
    answer = run(tmp_path, "--release=worktree", "--python=3.13")
    assert answer.returncode == 2
    assert "--release needs --python and --machine" in answer.stderr


def git(repository: Path, *arguments: str) -> str:
    """Run git in a repository and return what it printed."""
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    command: list[str | Path] = ["git", "-C", repository, *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of what the working tree has, tagged as its release, then changed, and tagged by mistake."""
    folder = tmp_path_factory.mktemp("clone")
    for part in ("app", "requirements", "roles/webhook_app/files/release"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--message=A release")
    for tag in (TAG, "v1000.0.0rc1"):
        git(folder, "tag", tag)
    (folder / "app" / "src" / "molam_webhook" / "__init__.py").write_text("raise RuntimeError\n")
    (folder / RUN).write_text("exit 1\n")
    git(folder, "commit", "--all", "--message=After it")
    git(folder, "switch", "--create=elsewhere")
    git(folder, "commit", "--allow-empty", "--message=Of another branch")
    git(folder, "tag", "v1000.0.0")
    git(folder, "switch", "main")
    return folder


@pytest.fixture(scope="module")
def tagged(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what was printed of the release's bundle; its cache is the tests' to damage, and to mend."""
    return build(tmp_path_factory.mktemp("tagged"), TAG, f"--repository={clone}")


def test_a_tag_is_built_as_it_is_there_whatever_came_after_it(
    clone: Path, tagged: dict[str, Any], bundle: Path, tmp_path: Path
) -> None:
    with tarfile.open(tagged["path"]) as tar:
        tar.extractall(tmp_path, filter="data")
    manifest = json.loads((tmp_path / TAG / "manifest.json").read_text())
    assert manifest["release"] == tagged["release"] == TAG
    assert manifest["commit"] == tagged["commit"] == git(clone, "rev-parse", TAG)
    # Nothing is known of the release but what is in it: the same wheels as those of the same content elsewhere.
    for name in ("SHA256SUMS", "install.txt"):
        mine, theirs = ((folder / name).read_text().splitlines() for folder in (tmp_path / TAG, bundle))
        assert [line for line in mine if "manifest" not in line] == [line for line in theirs if "manifest" not in line]


def test_it_is_the_same_whenever_and_wherever_it_is_built(clone: Path, tagged: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.sql\n/src\n")
    elsewhere = tmp_path / "another cache"
    surroundings = {"TZ": "Pacific/Kiritimati", "SOURCE_DATE_EPOCH": "1", "PYTHONHASHSEED": "1", "LC_ALL": "C"}
    again = build(elsewhere, TAG, f"--repository={clone}", umask=0o077, env=surroundings)
    assert again["built"]
    first, second = Path(tagged["path"]), Path(again["path"])
    assert first.name == second.name
    assert sha256(first) == sha256(second)


def test_the_latest_is_the_newest_tag_that_the_commit_has_and_no_pre_release(
    clone: Path, tagged: dict[str, Any]
) -> None:
    printed = build(Path(tagged["path"]).parent, "latest", f"--repository={clone}")
    assert printed == tagged | {"built": False}


def test_without_a_tag_the_latest_is_the_worktree(bundle: Path, clone: Path, tmp_path: Path) -> None:
    untagged = tmp_path / "untagged"
    shutil.copytree(clone, untagged)
    for tag in git(untagged, "tag").split():
        git(untagged, "tag", "--delete", tag)
    git(untagged, "checkout", "HEAD~1")
    printed = build(bundle.parent / "cache", "latest", f"--repository={untagged}")
    assert printed["release"] == bundle.name


def damage(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    """Take away a file's end."""
    path.write_bytes(path.read_bytes()[:-512])


def lose_the_sum(path: Path) -> None:
    """Remove the file that has another file's sum."""
    path.with_name(f"{path.name}.sha256").unlink()


@pytest.mark.parametrize("harm", [damage, truncate, lose_the_sum])
def test_a_damaged_bundle_is_built_again_with_no_network(
    clone: Path, tagged: dict[str, Any], harm: Callable[[Path], None]
) -> None:
    bundle = Path(tagged["path"])
    host_files = Path(tagged["host_files"])
    digest = sha256(bundle)
    for path in (bundle, host_files):
        harm(path)
    assert build(bundle.parent, TAG, f"--repository={clone}", env=NO_INDEX) == tagged
    assert sha256(bundle) == digest
    subprocess.run(["sha256sum", "--check", *bundle.parent.glob("*.sha256")], cwd=bundle.parent, check=True)
    assert build(bundle.parent, TAG, f"--repository={clone}", env=NO_INDEX) == tagged | {"built": False}


def test_a_damaged_wheel_is_downloaded_again(clone: Path, tagged: dict[str, Any], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(Path(tagged["path"]).parent, cache)
    (bundle,) = cache.glob("molam-webhook-*.tar")
    digest = sha256(bundle)
    bundle.unlink()
    damage(next(cache.glob("wheels-*/alembic-*.whl")))
    refused = run(cache, f"--release={TAG}", *HOST, f"--repository={clone}", env=NO_INDEX)
    assert refused.returncode == 1
    assert "Is the package index reachable" in refused.stderr
    build(cache, TAG, f"--repository={clone}")
    assert sha256(bundle) == digest


def test_the_cache_is_bounded(bundle: Path, tmp_path: Path) -> None:
    """What was used last stays; bundles for hosts of another kind, and of tags, are counted by themselves."""
    cache = tmp_path / "cache"
    shutil.copytree(bundle.parent / "cache", cache)
    others = ("molam-webhook-0.0.{}+worktree.x-{}.tar", "molam-webhook-v0.0.{}-x-{}.tar", "host-files-{}{}.tar")
    for number in range(7):
        for kind in ("cp313-x86_64", "cp311-x86_64"):
            for name in others:
                made = cache / name.format(number, kind)
                made.write_text("")
                made.with_name(f"{made.name}.sha256").write_text("")
                os.utime(made, (number, number))
            (cache / f"wheels-{number}-{kind}").mkdir()
            os.utime(cache / f"wheels-{number}-{kind}", (number, number))
    printed = build(cache)
    assert not printed["built"]
    assert Path(printed["path"]).exists()

    def left(pattern: str) -> int:
        assert len(list(cache.glob(pattern))) == len(list(cache.glob(f"{pattern}.sha256")))
        return len(list(cache.glob(pattern)))

    assert left("molam-webhook-*+worktree.*-cp313-x86_64.tar") == 5
    assert left("molam-webhook-v*-cp313-x86_64.tar") == 5
    assert left("molam-webhook-*-cp311-x86_64.tar") == 14
    assert left("host-files-*.tar") == 5
    assert len(list(cache.glob("wheels-*-cp313-x86_64"))) == 5
    assert (cache / "molam-webhook-v0.0.6-x-cp313-x86_64.tar").exists()


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ("v999.0.0", f"there is no tag v999.0.0 in {{clone}}. The latest there: v1000.0.0, v1000.0.0rc1, {TAG}."),
        ("v1000.0.0", f"tag v1000.0.0 is on a commit whose version is {VERSION}"),
        ("main", "'main' is no release: name a tag such as v1.2.0, 'latest' or 'worktree'."),
        ("--upload-pack=x", "'--upload-pack=x' is no release"),
    ],
)
def test_what_is_no_release_is_told_plainly(clone: Path, tmp_path: Path, release: str, reason: str) -> None:
    answer = run(tmp_path, f"--release={release}", f"--repository={clone}", *HOST)
    assert answer.returncode == 1
    assert reason.format(clone=clone) in answer.stderr
    assert list(tmp_path.glob("*.tar")) == []


def test_a_host_needs_no_more_than_the_control_machine_would() -> None:
    """pip judges a lock's conditions by the Python that it runs on, and not by the host's."""
    lock = (ROOT / "app" / "requirements.txt").read_text()
    assert "==" in lock
    assert re.findall(r"^\S+ ; .*python.*version.*$", lock, re.MULTILINE) == []
