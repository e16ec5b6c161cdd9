"""The SDK as pages load it: headers, compression, alias, hashes, and what is refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]  # it ships no types
import pytest
from testinfra.host import Host

from .conftest import Site

ROOT = Path(__file__).resolve().parents[2]
SERVED = "/srv/molam-sdk"
# What a host has besides what belongs to the SDK: of the connection, of the answer, of every answer.
OTHER_FIELDS = {
    *("connection", "date", "server", "accept-ranges", "content-encoding", "content-length", "etag", "last-modified"),
    *("content-security-policy", "permissions-policy", "referrer-policy", "strict-transport-security"),
    "x-frame-options",
}
SECRETS = re.compile(rb"\b[sr]k_(?:live|test)_\w{8,}|\bwhsec_[\w+/=-]{10,}|PRIVATE KEY-----")

# Publishes the SDK, with what is said on the command line.
PLAY = """
- hosts: webhook
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.import_role: {name: sdk_hosting, tasks_from: preflight}
    - ansible.builtin.import_role: {name: sdk_hosting, tasks_from: published}
    - ansible.builtin.import_role: {name: sdk_hosting, tasks_from: prepare}
    - ansible.builtin.import_role: {name: nginx, tasks_from: service}
    - ansible.builtin.import_role: {name: sdk_hosting, tasks_from: activate}
"""


Publish = Callable[[str, str], subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Sdk:
    """What a host serves: its newest version, and the alias that leads there."""

    version: str
    alias: str

    @property
    def path(self) -> str:
        """The script's address."""
        return f"/sdk/v{self.version}/molam-checkout.js"


@pytest.fixture(scope="module")
def sdk(host: Host, inventory: dict[str, Any]) -> Sdk:
    """Return what the host serves. Skips where the inventory wants none."""
    if not inventory["sdk_hosting_enabled"]:
        pytest.skip("sdk_hosting_enabled is false")
    links = host.check_output(f"find {SERVED}/sdk -maxdepth 1 -type l -printf '%f %l\\n'").split()
    return Sdk(version=links[1].removeprefix("v"), alias=links[0])


def test_headers_are_those_of_the_directory_for_a_cdn(site: Site, sdk: Sdk, tmp_path: Path) -> None:
    """The same bytes, built for a CDN: nginx sends each header field that stands in _headers, and no other."""
    (tmp_path / "sdk.js").write_bytes(site.request("GET", sdk.path).content)
    answer = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "build-sdk", f"--base-url=https://{site.domain}"),
            *(f"--file={tmp_path}/sdk.js", f"--version={sdk.version}", f"--cache={tmp_path}/cache"),
        ],
        capture_output=True,
        check=True,
    )
    rules = (Path(json.loads(answer.stdout)["cdn"]) / "_headers").read_text()
    found = re.findall(r"^(/\S+)\n((?:  .+\n)+)", rules, re.MULTILINE)
    assert len(found) == 4
    for path, lines in found:
        for encoding in ("br", "gzip", "identity"):
            told = site.request("GET", path, headers={"Accept-Encoding": encoding})
            assert told.status_code == 200
            fields = dict(line.strip().split(": ", 1) for line in lines.splitlines())
            assert {name.lower(): value for name, value in fields.items()} == {
                name: value for name, value in told.headers.items() if name not in OTHER_FIELDS
            }, (path, encoding)


@pytest.mark.parametrize(("encoding", "sent"), [("br", "br"), ("gzip", "gzip"), ("gzip, br", "br"), ("identity", None)])
def test_compressed_as_the_browser_takes_it(site: Site, sdk: Sdk, encoding: str, sent: str | None) -> None:
    plain = site.request("GET", sdk.path, headers={"Accept-Encoding": "identity"})
    # A CDN in between asks with Via. Its length shifts what nginx has in its memory (see locations.conf.j2).
    vias = ["1.1 cdn", *("x" * length for length in range(0, 140, 7))]
    for path, via in itertools.product((sdk.path, f"/sdk/{sdk.alias}/molam-checkout.js"), vias):
        answer = site.request("GET", path, headers={"Accept-Encoding": encoding, "Via": via})
        assert answer.headers.get("Content-Encoding") == sent
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert (int(answer.headers["Content-Length"]) < len(plain.content)) == (sent is not None)
        assert answer.content == plain.content


def test_hash_fits_the_bytes(site: Site, sdk: Sdk) -> None:
    for folder in (f"v{sdk.version}", sdk.alias):
        document = site.request("GET", f"/sdk/{folder}/integrity.json").json()
        script = document["files"]["molam-checkout.js"]
        data = site.request("GET", script["path"]).content
        assert script["path"] == sdk.path
        assert script["bytes"] == len(data)
        assert script["integrity"] == f"sha384-{base64.b64encode(hashlib.sha384(data).digest()).decode()}"
        address = re.fullmatch(
            r'<script src="https://([^/:]+)(?::\d+)?(/\S+)" integrity="(\S+)" .*></script>', document["script"]
        )
        assert address is not None
        assert address.groups() == (site.domain, sdk.path, script["integrity"])


def test_what_a_browser_kept_is_asked_for_anew_only_when_it_changed(site: Site, sdk: Sdk) -> None:
    path = f"/sdk/{sdk.alias}/molam-checkout.js"
    kept = site.request("GET", path).headers["ETag"]
    answer = site.request("GET", path, headers={"If-None-Match": kept})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (304, "public, max-age=3600")


@pytest.mark.parametrize(
    "path",
    [
        *("/sdk", "/sdk/", "/sdk/v1.0.0/", "/sdk/v1/", "/sdk/v0.0.9/molam-checkout.js", "/sdk/v0/molam-checkout.js"),
        *("/sdk/v1.0.0/molam-checkout.js.br", "/sdk/v1.0.0/molam-checkout.js.gz", "/sdk/v1.0.0/other.js"),
        *("/sdk/v1.0.0/x/molam-checkout.js", "/sdk/molam-checkout.js", "/sdk/v1.0.0%2f..%2fv1/integrity.json%00"),
        *("/demo/none.js", "/demo/demo.html", "/_headers"),
    ],
)
@pytest.mark.usefixtures("sdk")
def test_nothing_else_is_there_and_no_browser_keeps_that(site: Site, path: str) -> None:
    answer = site.request("GET", path)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"] in ("bad_request", "not_found")
    assert answer.headers["Content-Type"] == "application/json"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert {"Cache-Control", "Access-Control-Allow-Origin"} & set(answer.headers) == set()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_only_read(site: Site, sdk: Sdk, method: str) -> None:
    answer = site.request(method, sdk.path)
    assert (answer.status_code, answer.json()) == (405, {"error": "method_not_allowed"})
    assert answer.headers["Allow"] == "GET, HEAD"
    assert "Cache-Control" not in answer.headers
    assert site.request("HEAD", sdk.path).status_code == 200


def test_demo_page_is_under_the_policy_for_pages(site: Site, sdk: Sdk) -> None:
    answer = site.request("GET", "/demo/")
    if answer.status_code == 404:
        pytest.skip("sdk_hosting_demo is false")
    assert "script-src 'self' https://cdn.molam.com;" in answer.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert f'src="{sdk.path}" integrity="sha384-' in answer.text
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", answer.text) == []


@pytest.mark.usefixtures("sdk")
def test_nothing_secret_is_in_what_is_served(host: Host, site: Site) -> None:
    packed = base64.b64decode(host.check_output("tar --create --directory=/srv molam-sdk | base64 --wrap=0"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    unpack = {".br": brotli.decompress, ".gz": gzip.decompress}
    texts = {name: unpack.get(Path(name).suffix, bytes)(data) for name, data in files.items()}
    assert len([name for name in texts if name.endswith(".js.br")]) >= 1
    assert [name for name, text in texts.items() if SECRETS.search(text) or site.secret.encode() in text] == []


@pytest.mark.usefixtures("sdk")
def test_only_root_changes_it_and_no_link_leads_outside(host: Host) -> None:
    assert host.check_output(f"find {SERVED} ! -user root -o ! -type l -perm /022") == ""
    links = host.check_output(f"find {SERVED} -type l -printf '%P %l\\n'").splitlines()
    assert links
    assert [link for link in links if not re.fullmatch(r"sdk/(v\d+) \1\.\d+\.\d+", link)] == []


@pytest.fixture
def publish(tmp_path: Path, request: pytest.FixtureRequest) -> Publish:
    """Return what runs the role against the host, with a script as a version of the SDK; it tells all that is said."""

    def run(script: str, version: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "sdk.js").write_text(script)
        (tmp_path / "play.yml").write_text(PLAY)
        source = {"sdk_hosting_file": f"{tmp_path}/sdk.js", "sdk_hosting_version": version}
        others = {"sdk_hosting_tarball": "", "sdk_hosting_npm_package": ""}
        return subprocess.run(
            [
                *("ansible-playbook", tmp_path / "play.yml", "-vvv", "--diff"),
                f"--inventory={ROOT / request.config.getoption('--ansible-inventory')}",
                f"--limit={request.getfixturevalue('host').backend.get_hostname()}",
                f"--extra-vars={json.dumps(source | others)}",
            ],
            env=os.environ
            | {
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
                # Molecule asks for colours in the middle of sentences.
                "ANSIBLE_FORCE_COLOR": "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_published_version_never_changes(site: Site, sdk: Sdk, publish: Publish) -> None:
    before = site.request("GET", sdk.path).content
    answer = publish("var other;\n", sdk.version)
    assert answer.returncode == 2, answer.stdout
    message = " ".join(answer.stdout.split())
    assert f"serves version {sdk.version} of the SDK already, with other bytes" in message
    assert "Nothing was changed" in message
    assert site.request("GET", sdk.path).content == before


@pytest.mark.usefixtures("sdk")
def test_secret_key_stops_the_play(site: Site, publish: Publish) -> None:
    """One that looks like one, and the host's own webhook secret, which may have any form; neither is told."""
    key = f"sk_live_{'4eC39HqLyjWDarjtT1'}"
    answer = publish(f"var a;\nvar b = '{key}';\nvar c = '{site.secret}';\n", "9.0.0")
    assert answer.returncode == 2, answer.stdout
    message = " ".join(answer.stdout.split())
    assert "line 2: a secret key" in message
    assert "line 3: one of the inventory's own secrets" in message
    assert "Nothing was changed" in message
    assert key not in answer.stdout + answer.stderr
    assert site.secret not in answer.stdout + answer.stderr
    assert site.request("GET", "/sdk/v9.0.0/molam-checkout.js").status_code == 404


@pytest.mark.intrusive
def test_new_version_takes_the_alias_and_the_old_one_stays(host: Host, site: Site, sdk: Sdk, publish: Publish) -> None:
    version = f"{sdk.alias[1:]}.999.0"
    script = "/* a stand-in */ var MolamCheckout;\n"
    before = site.request("GET", sdk.path)
    host.check_output(f"cp --archive {SERVED} /root/sdk-kept")
    try:
        answer = publish(script, version)
        assert answer.returncode == 0, answer.stdout
        new = site.request("GET", f"/sdk/{sdk.alias}/molam-checkout.js")
        assert new.text == script
        assert new.headers["ETag"] != before.headers["ETag"]
        assert site.request("GET", f"/sdk/v{version}/molam-checkout.js").text == script
        assert site.request("GET", sdk.path).content == before.content
    finally:
        host.check_output(f"rm -r {SERVED} && mv /root/sdk-kept {SERVED}")
