"""Fixtures of the checks of a host.

They run against any inventory: ``pytest tests/host --ansible-inventory=INVENTORY --hosts=ansible://webhook``.
What a stranger or the sender would see is asked from the control machine, over the network.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from molam_webhook import signature
from testinfra.host import Host

from tests.conftest import not_testable
from tests.host.inventory import ask

WEBHOOK_PATH = "/molam/webhook"

# A play that configures nginx and nothing else.
NGINX_ALONE = """
- hosts: webhook
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.setup:
        gather_subset: ["!all", "!min", distribution]
    - ansible.builtin.import_role:
        name: nginx
        tasks_from: activate
"""


# Variables that tests ask the inventory for, and what they are where it does not say: the roles' own defaults.
DEFAULTS = {
    "molam_environment": "''",
    "molam_administrator_networks": "[]",
    "molam_sender_networks": "[]",
    "webhook_app_database_url": "''",
    "sdk_hosting_public_key": "''",
    "sdk_hosting_enabled": "false",
    "sdk_hosting_demo": "false",
    "valkey_enabled": "false",
    "backup_enabled": "true",
    "certbot_enabled": "false",
    "nginx_cdn": "''",
    "nginx_trusted_proxies": "[]",
    "webhook_app_failure_limit": "20",
    "base_security_updates": "true",
    "nftables_openings": "[]",
    "log_rotation_days": "30",
    "ansible_port": "22",
}
INVENTORY = {name: f"{name} | default({fallback})" for name, fallback in DEFAULTS.items()} | {
    "journal_bytes": "log_rotation_journal_size | default('1G') | human_to_bytes"
}
SITE = {
    "address": "ansible_host | default(inventory_hostname)",
    "domain": "molam_domain",
    "key": "webhook_app_keys | selectattr('state', 'equalto', 'active') | first",
    "ca": "test_state ~ '/pki/ca.pem' if test_state is defined else ''",
}


@dataclass(frozen=True)
class Site:
    """A host as it is seen over the network: where it is, the name it serves, and a key to sign with."""

    address: str
    domain: str
    kid: str
    secret: str = field(repr=False)
    ca: Path | None

    def trust(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the inventory's own CA where it has one, else the system's."""
        return ssl.create_default_context(cafile=self.ca)

    def client(self, scheme: str = "https") -> httpx.Client:
        """Return an HTTP client that connects to the host's address and asks for its domain."""
        return httpx.Client(
            base_url=f"{scheme}://{self.address}",
            headers={"Host": self.domain},
            verify=self.trust(),
            timeout=10,
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        client: httpx.Client | None = None,
        **options: Any,  # noqa: ANN401  httpx's own
    ) -> httpx.Response:
        """Send one request over HTTPS and return the answer. A client that is given keeps its connection."""
        with contextlib.nullcontext(client) if client else self.client() as used:
            return used.request(method, path, extensions={"sni_hostname": self.domain}, **options)

    def send(
        self,
        event: dict[str, Any],
        *,
        kid: str | None = None,
        secret: str | None = None,
        age_ms: int = 0,
        client: httpx.Client | None = None,
    ) -> httpx.Response:
        """Send an event as the sender would, signed now or earlier, with the site's key or another."""
        body = json.dumps(event).encode()
        signed_ms = int(time.time() * 1000) - age_ms
        signed = signature.sign(body, (secret or self.secret).encode(), signed_ms, kid or self.kid)
        headers = {"Content-Type": "application/json", "Molam-Signature": signed}
        return self.request("POST", WEBHOOK_PATH, client=client, content=body, headers=headers)


@pytest.fixture(scope="module")
def site(host: Host) -> Site:
    """Return the host's site, with what its inventory says."""
    values = ask(host, SITE)
    return Site(
        address=values["address"],
        domain=values["domain"],
        kid=values["key"]["kid"],
        secret=values["key"]["secret"],
        ca=Path(values["ca"]) if values["ca"] else None,
    )


@cache
def inventory_of(host: Host) -> dict[str, Any]:
    """Return what the host's inventory says of what is looked at, secrets apart; asked for once."""
    return ask(host, INVENTORY)


@pytest.fixture(scope="module")
def inventory(host: Host) -> dict[str, Any]:
    """Return what the host's inventory says, by the variables' names."""
    return inventory_of(host)


@pytest.fixture(scope="module")
def _own_database(inventory: dict[str, Any]) -> None:
    """Leave out what asks the database on the host where there is none."""
    if inventory["webhook_app_database_url"]:
        not_testable("webhook_app_database_url names a database on another host")


@pytest.fixture
def slot(host: Host) -> str:
    """Return the name of the slot in use."""
    return slot_in_use(host)


def slot_in_use(host: Host) -> str:
    """Return the name of the slot that serves now."""
    return str(host.check_output("basename $(readlink /opt/molam-webhook/active)"))


def exposures(host: Host, units: str) -> dict[str, float]:
    """Ask systemd for the scores of the units that a command lists, by their names without ``.service``."""
    said = host.check_output(f"systemd-analyze security --no-pager $({units}) | grep Overall")
    words = [line.split() for line in said.splitlines()]
    return {line[5].removesuffix(".service:"): float(line[6]) for line in words}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that lets tests change the host."""
    parser.addoption("--intrusive", action="store_true", help="also run what changes the host: for test hosts alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what changes the host, unless it was asked for."""
    if not config.getoption("--intrusive"):
        items[:] = [item for item in items if item.get_closest_marker("intrusive") is None]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out, on hosts of other releases, what takes minutes and does not depend on the release (`debian`)."""
    marker = item.get_closest_marker("debian")
    if marker and isinstance(item, pytest.Function):
        host: Host = item.callspec.params["_testinfra_host"]
        if host.system_info.release.partition(".")[0] != marker.args[0]:
            pytest.skip(f"shown on Debian {marker.args[0]}")


@pytest.fixture
def event() -> dict[str, Any]:
    """Return an event that nobody sent before."""
    return new_event()


def new_event() -> dict[str, Any]:
    """Make an event that nobody sent before, for a payment of its own."""
    name = uuid.uuid4().hex
    return {
        "id": f"evt_{name}",
        "type": "payment.succeeded",
        "created": int(time.time()),
        "data": {
            "id": f"pi_{name}",
            "amount": 5000,
            "currency": "XOF",
            "status": "succeeded",
            "metadata": {"order_id": f"ord_{name}"},
        },
    }
