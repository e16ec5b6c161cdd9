"""Valkey gone under load, killed or standing still: every event is taken and acted on once all the same, strangers are
limited as before, and it is used again when it is back.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from faults.proof import ENOUGH, RECOVERY_SECONDS, Site, StartSite, prove
from local_server import Answer, LocalServer
from molam_webhook.failures import WINDOW_SECONDS
from support import PATH, Service, Valkey, count, event_body, signed_headers, wait_until

pytestmark = pytest.mark.database

LIMIT = 5
REST_SECONDS = 0.1
BODY = event_body("evt_forged")


class Strangers:
    """Forge events for as long as it is entered, each stranger two more than the limit, as fast as it can.

    Leaving it fails where one was answered otherwise than a receiver that counts alone would.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self.refused = 0

    def __enter__(self) -> Strangers:
        self._forging = self._pool.submit(self._forge_on)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()
        self._forging.result()

    def _forge_on(self) -> None:
        number = 0
        with self._service.client() as client:
            while not self._over.wait(REST_SECONDS):
                number += 1
                headers = signed_headers(b"something else") | {"x-real-ip": f"198.51.{number // 256}.{number % 256}"}
                minute = time.time() // WINDOW_SECONDS
                answers = [client.post(PATH, content=BODY, headers=headers).status_code for _ in range(LIMIT + 2)]
                # Failures are counted by the minute.
                if time.time() // WINDOW_SECONDS == minute:
                    assert answers == [401] * LIMIT + [429] * 2
                    self.refused += 1


@pytest.fixture
def api() -> Iterator[LocalServer]:
    """Stands for the Molam API."""
    server = LocalServer(lambda _request: Answer(200, body=b'{"id": "pi_shared"}'))
    yield server
    server.close()


def ask(socket: Path, path: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://admin", timeout=15) as client:
        return client.get(path)


def says(socket: Path, cache: str, value: float) -> bool:
    """Whether a process says so of the cache, in health and metrics, and that it is well itself."""
    health = ask(socket, "/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    return health.json()["cache"] == cache and f"molam_webhook_cache_healthy {value}\n" in ask(socket, "/metrics").text


def uses(valkey: Valkey) -> tuple[int, int]:
    """How often a value was found in it, by the worker, and how often a failure was added, by the receiver."""
    told = valkey.cli("INFO", "everything")
    found = [re.search(rf"{name}(\d+)", told) for name in ("keyspace_hits:", "cmdstat_incrby:calls=")]
    hits, failures = (int(match[1]) if match else 0 for match in found)
    return hits, failures


@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_its_loss_costs_no_event_and_no_limit(
    start_site: StartSite, valkey: Valkey, api: LocalServer, directory: Path, fault: str
) -> None:
    admins = [directory / "receiver-admin.sock", directory / "worker-admin.sock"]
    common = {"VALKEY_URL": valkey.url, "MOLAM_ENVIRONMENT": "staging"}
    site = start_site(
        common | {"MOLAM_ADMIN_UDS": str(admins[0]), "MOLAM_FAILURE_LIMIT": str(LIMIT)},
        common
        | {
            "MOLAM_ADMIN_UDS": str(admins[1]),
            "MOLAM_HANDLERS": "witness,inquirer",
            "MOLAM_API_URL": f"http://127.0.0.1:{api.port}",
            "MOLAM_API_KEY": "sk_prod_Zq4Xv9Tn2Lw7Rb",
        },
    )

    def is_told(cache: str, value: float) -> bool:
        return all(says(admin, cache, value) for admin in admins)

    @contextmanager
    def valkey_gone(site: Site) -> Iterator[None]:
        with Strangers(site.service) as strangers:
            wait_until(lambda: all(uses(valkey)) and is_told("healthy", 1.0))
            getattr(valkey, fault)()
            wait_until(lambda: is_told("unhealthy", 0.0))
            acts, asked, refused = count(site.url, "shop.acts"), len(api.requests), strangers.refused
            wait_until(lambda: count(site.url, "shop.acts") >= acts + ENOUGH)
            # What was remembered is asked for again.
            wait_until(lambda: len(api.requests) >= asked + ENOUGH)
            wait_until(lambda: strangers.refused > refused + 2)
            with site.service.client() as client:
                public = client.get("/health")
            assert (public.status_code, public.json()["cache"]) == (200, "unhealthy")
            yield
            valkey.resume()
            back = time.monotonic()
            wait_until(lambda: is_told("healthy", 1.0), RECOVERY_SECONDS)
            hits, failures = uses(valkey)
            left = RECOVERY_SECONDS - (time.monotonic() - back)
            wait_until(lambda: uses(valkey)[0] > hits + ENOUGH and uses(valkey)[1] > failures, left)

    sends = prove(valkey_gone, 0, site, rest_seconds=REST_SECONDS)
    assert {send.answer for send in sends} == {"accepted", "duplicate"}
