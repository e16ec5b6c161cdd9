"""The SDK's files: what is refused, the same each time, the hashes that a browser compares, npm for real."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]  # it ships no types
import pytest

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "tests" / "sdk"
SCRIPT = STAND_IN / "js" / "molam-checkout.js"
BIN = Path(sys.executable).parent
# Put together here, so that none stands in the repository.
MATERIAL = "4eC39HqLyjWDarjtT1"
PEM = f"-----BEGIN EC {'PRIVATE'} KEY-----"


def run(cache: Path, *arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the builder, with npm from where this Python is."""
    return subprocess.run(
        [
            sys.executable,
            ROOT / "scripts" / "build-sdk",
            "--base-url=https://shop.test",
            f"--cache={cache}",
            *arguments,
        ],
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def built(cache: Path, *arguments: str | Path, **environment: str) -> dict[str, Any]:
    """Run the builder, which has to succeed, and return what it printed."""
    answer = run(cache, *arguments, **environment)
    assert answer.returncode == 0, answer.stderr
    printed: dict[str, Any] = json.loads(answer.stdout)
    return printed


def refused(cache: Path, *arguments: str | Path, stdin: str = "") -> str:
    """Run the builder, which has to refuse and to leave nothing behind, and return what it said."""
    answer = run(cache, *arguments, stdin=stdin)
    assert (answer.returncode, answer.stdout) == (1, ""), answer.stderr
    assert "Traceback" not in answer.stderr
    assert [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"] == []
    return answer.stderr


def package(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo, version: str | None = "1.0.0") -> Path:
    """Write an npm tarball of a package with the given members besides its package.json."""
    manifest = ("package/package.json", json.dumps({"name": "x", "version": version}).encode())
    with tarfile.open(path, "w:gz") as tar:
        for member in (manifest, *members) if version else members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                tar.addfile(entry, io.BytesIO(member[1]))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """Return a tarball's member that is a link, or whatever else it has no content by."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the builder printed for the stand-in."""
    return built(tmp_path_factory.mktemp("sdk"), f"--file={SCRIPT}", "--version=1.0.0")


def test_versioned_files_and_alias(sdk: dict[str, Any]) -> None:
    cdn = Path(sdk["cdn"])
    names = ["integrity.json", "molam-checkout.js", "molam-checkout.js.br", "molam-checkout.js.gz"]
    assert sorted(str(path.relative_to(cdn)) for path in cdn.rglob("*") if not path.is_dir()) == [
        "_headers",
        *(f"sdk/v1.0.0/{name}" for name in names),
        *(f"sdk/v1/{name}" for name in names),
    ]
    # Files, not links: not every CDN takes links.
    assert not any(path.is_symlink() for path in cdn.rglob("*"))
    for name in names:
        assert (cdn / "sdk" / "v1" / name).read_bytes() == (cdn / "sdk" / "v1.0.0" / name).read_bytes()


def test_compressed_files_hold_the_same_bytes(sdk: dict[str, Any]) -> None:
    folder = Path(sdk["cdn"]) / "sdk" / "v1.0.0"
    assert (folder / "molam-checkout.js").read_bytes() == SCRIPT.read_bytes()
    gzipped = (folder / "molam-checkout.js.gz").read_bytes()
    assert gzip.decompress(gzipped) == SCRIPT.read_bytes()
    # No time, nor a name after it: the same each time.
    assert (gzipped[3], gzipped[4:8]) == (0, bytes(4))
    assert brotli.decompress((folder / "molam-checkout.js.br").read_bytes()) == SCRIPT.read_bytes()


def test_hash_is_what_openssl_says(sdk: dict[str, Any]) -> None:
    digest = subprocess.run(["openssl", "dgst", "-sha384", "-binary", SCRIPT], capture_output=True, check=True).stdout
    integrity = f"sha384-{base64.b64encode(digest).decode()}"
    document = json.loads((Path(sdk["cdn"]) / "sdk" / "v1" / "integrity.json").read_text())
    path = "/sdk/v1.0.0/molam-checkout.js"
    line = f'<script src="https://shop.test{path}" integrity="{integrity}" crossorigin="anonymous"></script>'
    assert document == {
        "version": "1.0.0",
        "files": {"molam-checkout.js": {"path": path, "integrity": integrity, "bytes": SCRIPT.stat().st_size}},
        "script": line,
    }
    assert (sdk["path"], sdk["integrity"], sdk["script"]) == (path, integrity, line)
    assert sdk["sha256"] == hashlib.sha256(SCRIPT.read_bytes()).hexdigest()


def test_two_builds_are_the_same(sdk: dict[str, Any], tmp_path: Path) -> None:
    again = built(tmp_path, f"--file={SCRIPT}", "--version=1.0.0")
    first, second = Path(sdk["cdn"]).parent, Path(again["cdn"]).parent
    assert first.name == second.name
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []
    assert (again["built"], built(tmp_path, f"--file={SCRIPT}", "--version=1.0.0")["built"]) == (True, False)


def test_host_gets_the_versions_files_as_roots(sdk: dict[str, Any]) -> None:
    with tarfile.open(sdk["host"]) as tar:
        members = tar.getmembers()
    assert {member.name for member in members if member.isfile()} == {
        *(f"molam-sdk/sdk/v1.0.0/{path.name}" for path in (Path(sdk["cdn"]) / "sdk" / "v1.0.0").iterdir()),
        "molam-sdk/demo/demo.css",
        "molam-sdk/demo/demo.js",
        "molam-sdk/demo/icon.svg",
    }
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    assert {(member.isdir(), member.mode) for member in members} == {(True, 0o755), (False, 0o644)}


def test_other_content_of_the_same_size_has_another_time(tmp_path: Path) -> None:
    """nginx makes ETags of time and size: a browser would keep what the alias led to before."""
    times = set()
    for number in (1, 2):
        (tmp_path / "x.js").write_text(f"var x = {number};\n")
        printed = built(tmp_path / "cache", f"--file={tmp_path}/x.js", f"--version=1.0.{number}")
        with tarfile.open(printed["host"]) as tar:
            times.add(tar.getmember(f"molam-sdk/sdk/v1.0.{number}/molam-checkout.js").mtime)
    assert len(times) == 2


def test_headers_are_those_of_the_guide(sdk: dict[str, Any]) -> None:
    """As Cloudflare Pages and Netlify read them; what nginx sends is compared in tests/host."""
    rules = (Path(sdk["cdn"]) / "_headers").read_text()
    for path, cache in (("v1.0.0", "public, max-age=31536000, immutable"), ("v1", "public, max-age=3600")):
        rule = re.search(rf"^/sdk/{path}/molam-checkout\.js\n((?:  .+\n)+)", rules, re.MULTILINE)
        assert rule is not None
        fields = dict(line.strip().split(": ", 1) for line in rule[1].splitlines())
        assert fields["Cache-Control"] == cache
        assert fields["Access-Control-Allow-Origin"] == "*"
        assert fields["Content-Type"] == "text/javascript; charset=utf-8"


def test_pre_release_has_no_alias(tmp_path: Path) -> None:
    printed = built(tmp_path, f"--file={SCRIPT}", "--version=2.0.0-rc.1")
    assert printed["alias"] is None
    assert [path.name for path in (Path(printed["cdn"]) / "sdk").iterdir()] == ["v2.0.0-rc.1"]


def test_package_states_its_version(tmp_path: Path) -> None:
    """A tarball by npm itself, and the same by hand with the file somewhere else."""
    subprocess.run([BIN / "npm", "pack", "--silent", STAND_IN, f"--pack-destination={tmp_path}"], check=True)
    printed = built(tmp_path / "cache", f"--tarball={next(tmp_path.glob('*.tgz'))}")
    assert (printed["version"], printed["alias"]) == ("1.0.0", "v1")
    other = package(tmp_path / "other.tgz", ("package/dist/sdk.min.js", SCRIPT.read_bytes()), version="3.4.5")
    printed = built(tmp_path / "cache", f"--tarball={other}", "--path-in-package=dist/sdk.min.js")
    assert (printed["version"], printed["path"]) == ("3.4.5", "/sdk/v3.4.5/molam-checkout.js")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        (b"\xef\xbb\xbf \n", ["is empty"]),
        (b"\x1f\x8b\x08\0\xff", ["no JavaScript", "UTF-8"]),
        (b"var x;\0", ["no JavaScript"]),
        (b"\n<!doctype html><title>404</title>", ["no JavaScript"]),
        (b'{"error": "not_found"}', ["no JavaScript"]),
        (b"/" * (5 * 1024 * 1024 + 1), ["larger than 5 MiB"]),
    ],
    ids=["empty", "blank", "no text", "zero byte", "page", "JSON", "too large"],
)
def test_what_is_no_script_is_refused(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "sdk.js").write_bytes(content)
    packed = package(tmp_path / "sdk.tgz", ("package/js/molam-checkout.js", content))
    for source in ([f"--file={tmp_path}/sdk.js", "--version=1.0.0"], [f"--tarball={packed}"]):
        told = refused(tmp_path / "cache", *source)
        assert [word for word in words if word not in told] == []


@pytest.mark.parametrize(
    ("members", "version", "word"),
    [
        ([("package/index.js", b"x")], "1.0.0", "has no js/molam-checkout.js"),
        ([("package/js/molam-checkout.js", b"x")], None, "has no package.json"),
        ([("package/package.json", b"{}"), ("package/js/molam-checkout.js", b"x")], None, "states no name and version"),
        ([("package/package.json", b"["), ("package/js/molam-checkout.js", b"x")], None, "states no name and version"),
        ([("package/js/molam-checkout.js", b"x")], "latest", "'latest' is no version"),
        ([("package/js/molam-checkout.js", b"x")], "1.0.0/../2", "is no version"),
        ([("package/../../etc/cron.d/x", b"x")], "1.0.0", "path leads outside"),
        ([("/etc/cron.d/x", b"x")], "1.0.0", "path leads outside"),
        ([link("package/js/molam-checkout.js", "/etc/passwd")], "1.0.0", "link or a device"),
        ([link("package/js/molam-checkout.js", "package/package.json", tarfile.LNKTYPE)], "1.0.0", "link or a device"),
        ([link("package/x", "", tarfile.FIFOTYPE)], "1.0.0", "link or a device"),
        ([("package/js/molam-checkout.js", b"x")] * 2, "1.0.0", "js/molam-checkout.js twice"),
        ([("package/x", bytes(65 << 20))], "1.0.0", "more than 64 MiB"),
    ],
)
def test_tarball_that_npm_would_not_make_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo], version: str | None, word: str
) -> None:
    assert word in refused(tmp_path / "cache", f"--tarball={package(tmp_path / 'x.tgz', *members, version=version)}")


def test_what_is_no_tarball_is_refused(tmp_path: Path) -> None:
    whole = package(tmp_path / "x.tgz", ("package/js/molam-checkout.js", SCRIPT.read_bytes())).read_bytes()
    for content in (b"", b"<html>", whole[: len(whole) // 2]):
        (tmp_path / "x.tgz").write_bytes(content)
        assert "can't be read as a tarball" in refused(tmp_path / "cache", f"--tarball={tmp_path}/x.tgz")
    assert "can't be read" in refused(tmp_path / "cache", f"--tarball={tmp_path}/none.tgz")
    assert "can't be read" in refused(tmp_path / "cache", f"--file={tmp_path}/none.js", "--version=1.0.0")


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        (f"sk_live_{MATERIAL}", "a secret key"),
        (f"sk_test_{MATERIAL}", "a secret key"),
        (f"whsec_{MATERIAL}", "a webhook secret"),
        (f"whsec_{base64.b64encode(MATERIAL.encode()).decode()}", "a webhook secret"),
        (PEM, "a private key"),
    ],
)
def test_secret_is_refused_and_not_told(tmp_path: Path, secret: str, what: str) -> None:
    (tmp_path / "sdk.js").write_text(f'"use strict";\n\nconst key = "{secret}";\n')
    told = refused(tmp_path / "cache", f"--file={tmp_path}/sdk.js", "--version=1.0.0")
    assert f"{tmp_path}/sdk.js" in told
    assert f"line 3: {what}" in told
    assert secret not in told
    assert MATERIAL not in told


def test_inventorys_own_secret_is_refused_whatever_its_form(tmp_path: Path) -> None:
    (tmp_path / "sdk.js").write_text(f"var a;\nvar b = '{MATERIAL}';\n")
    source = [f"--file={tmp_path}/sdk.js", "--version=1.0.0", "--secrets-on-stdin"]
    told = refused(tmp_path / "cache", *source, stdin=f"another-one\n{MATERIAL}\n")
    assert "line 2: one of the inventory's own secrets" in told
    assert MATERIAL not in told
    assert run(tmp_path / "cache", *source, stdin="another-one\n\n").returncode == 0


def test_names_of_keys_are_no_secrets(tmp_path: Path) -> None:
    """An SDK has to know how a secret key begins, to refuse it."""
    (tmp_path / "sdk.js").write_text(
        'if (/^sk_(live|test)_/.test(k) || k.startsWith("sk_live_")) throw Error("whsec_…");'
    )
    assert built(tmp_path / "cache", f"--file={tmp_path}/sdk.js", "--version=1.0.0")["built"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [f"--file={SCRIPT}"],
        ["--tarball=x.tgz", "--version=1.0.0"],
        [f"--file={SCRIPT}", "--version=1.0.0", "--tarball=x.tgz"],
        ["--npm=@molam/checkout"],
        ["--npm=@molam/checkout@latest"],
        ["--npm=@molam/checkout@^1.0.0"],
        ["--npm=--registry=x@1.0.0"],
        ["--npm=../x@1.0.0"],
        ["--npm=git+ssh://x@1.0.0"],
        [f"--file={SCRIPT}", "--version=1.0.0", "--base-url=http://shop.test"],
        [f"--file={SCRIPT}", "--version=1.0.0", "--base-url=https://shop.test/"],
        [f"--file={SCRIPT}", "--version=1.0.0", '--base-url=https://shop.test/"x'],
    ],
)
def test_misuse_is_told(tmp_path: Path, arguments: list[str]) -> None:
    answer = run(tmp_path, *arguments)
    assert answer.returncode == 2
    assert "usage: build-sdk" in answer.stderr


@pytest.mark.parametrize(
    "version",
    ["1.0", "v1.0.0", "01.0.0", "1.0.0+build", "1.0.0-", "1.0.0/..", "1.0.0\n", "1.1\N{FULLWIDTH DIGIT ONE}.0", ""],
)
def test_version_that_is_none_is_refused(tmp_path: Path, version: str) -> None:
    assert "is no version" in refused(tmp_path, f"--file={SCRIPT}", f"--version={version}")


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return an npm tarball of the stand-in under a scope."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(STAND_IN, folder / "sdk")
    manifest = json.loads((folder / "sdk" / "package.json").read_text())
    manifest["name"] = "@molam/checkout"
    (folder / "sdk" / "package.json").write_text(json.dumps(manifest))
    subprocess.run(
        [BIN / "npm", "pack", "--silent", "--ignore-scripts", folder / "sdk", f"--pack-destination={folder}"],
        check=True,
    )
    return next(folder.glob("*.tgz")).read_bytes()


class Registry(ThreadingHTTPServer):
    """A package registry with one package, on this machine alone."""

    def __init__(self, tarball: bytes) -> None:
        """Listen; ``served`` is what it sends for the tarball."""
        super().__init__(("127.0.0.1", 0), RegistryHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.served = tarball
        self.asked: list[str] = []
        digest = hashlib.sha512(tarball).digest()
        dist = {
            "tarball": f"{self.url}/@molam/checkout/-/checkout-1.0.0.tgz",
            "integrity": f"sha512-{base64.b64encode(digest).decode()}",
        }
        versions = {"1.0.0": {"name": "@molam/checkout", "version": "1.0.0", "dist": dist}}
        self.document = json.dumps({"name": "@molam/checkout", "dist-tags": {"latest": "1.0.0"}, "versions": versions})


class RegistryHandler(BaseHTTPRequestHandler):
    """Answers as a registry does, to who has the token."""

    server: Registry

    def do_GET(self) -> None:
        """Send the package's document or its tarball."""
        self.server.asked.append(self.path)
        found = {
            "/@molam%2fcheckout": self.server.document.encode(),
            "/@molam/checkout/-/checkout-1.0.0.tgz": self.server.served,
        }
        known = self.headers["Authorization"] == "Bearer of-this-test"
        body = found.get(self.path, b"{}") if known else b"{}"
        self.send_response(200 if known and self.path in found else 404 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry(tarball: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Run a registry that the user's own npm settings name, with a token."""
    with Registry(tarball) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings = tmp_path / "npmrc"
        settings.write_text(
            f"@molam:registry={server.url}\n{server.url[5:]}/:_authToken=of-this-test\nfetch-retries=0\n"
        )
        monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(settings))
        monkeypatch.setenv("NPM_CONFIG_CACHE", str(tmp_path / "npm-cache"))
        yield server
        server.shutdown()
        thread.join()


def test_npm_fetches_a_package_once(registry: Registry, tmp_path: Path) -> None:
    printed = built(tmp_path / "cache", "--npm=@molam/checkout@1.0.0")
    assert printed["sha256"] == hashlib.sha256(SCRIPT.read_bytes()).hexdigest()
    asked = list(registry.asked)
    assert asked
    assert built(tmp_path / "cache", "--npm=@molam/checkout@1.0.0")["built"] is False
    assert registry.asked == asked


def test_package_that_is_not_the_registrys_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.served = package(tmp_path / "x.tgz", ("package/js/molam-checkout.js", b"evil()")).read_bytes()
    told = refused(tmp_path / "cache", "--npm=@molam/checkout@1.0.0")
    assert "EINTEGRITY" in told
    assert "of-this-test" not in told


@pytest.mark.usefixtures("registry")
def test_no_such_version_is_told(tmp_path: Path) -> None:
    told = refused(tmp_path / "cache", "--npm=@molam/checkout@9.9.9")
    assert "npm pack @molam/checkout@9.9.9 failed" in told
    assert "is there such a version?" in told


def test_no_npm_is_told(tmp_path: Path) -> None:
    answer = run(tmp_path, "--npm=@molam/checkout@1.0.0", PATH=str(tmp_path))
    assert answer.returncode == 1
    assert "npm is not here" in answer.stderr
    assert "--tarball" in answer.stderr
