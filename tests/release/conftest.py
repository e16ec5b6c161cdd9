"""A host that gets its releases from a clone, and a steady load on it meanwhile."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.host.conftest import Site
from tests.host.conftest import site as site
from tests.host.load import load as steady
from tests.host.load import stored
from tests.host.recorder import Recorder, recorder

from .clone import Clone, Play, add_releases

# Where the inventory has the host post to.
CHAT_PORT, SHOP_PORT = 9099, 9098


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Return the clone, which has its first release."""
    made = Clone(tmp_path_factory.mktemp("clone"))
    made.tag("v9.0.0")
    return made


@pytest.fixture(scope="session")
def releases(clone: Clone) -> Clone:
    """Return the clone with all its releases."""
    add_releases(clone)
    return clone


def serving(host: Host) -> str:
    """Return the release that serves."""
    return str(ledger(host)["serving"])


def ledger(host: Host) -> dict[str, Any]:
    """Return what the host's ledger says."""
    said: dict[str, Any] = json.loads(host.check_output("molam-webhook-switch ledger --json --limit 100"))
    return said


def processes(host: Host) -> list[str]:
    """Return the processes that serve: receiver and worker."""
    slot = host.check_output("basename $(readlink /opt/molam-webhook/active)")
    return [
        str(host.check_output(f"systemctl show --property=MainPID --value {unit}@{slot}"))
        for unit in ("molam-webhook", "molam-webhook-worker")
    ]


@pytest.fixture
def chat(host: Host) -> Iterator[Recorder]:
    """Let the team's chat listen."""
    with recorder(host, CHAT_PORT) as listening:
        yield listening


def subjects(chat: Recorder) -> list[str]:
    """Return what the team was told, by the first lines."""
    return [json.loads(posted.body)["text"].partition("\n")[0].partition(": ")[2] for posted in chat.posted()]


@pytest.fixture
def load(host: Host, site: Site) -> Iterator[list[tuple[str, int]]]:
    """Send events all through a test. Each has to be answered 200, stored once, acted on and forwarded once."""
    with recorder(host, SHOP_PORT) as shop:
        with steady(site) as answers:
            yield answers
        assert len(answers) > 20
        assert [answer for answer in answers if answer[1] != 200] == []
        sent = [event_id for event_id, _ in answers]
        for _ in range(50):
            delivered = Counter(posted.headers["Idempotency-Key"] for posted in shop.posted())
            if stored(host, sent)[1] == len(sent) and len(delivered) >= len(sent):
                break
            time.sleep(0.2)
    assert stored(host, sent) == (len(sent), len(sent))
    # Nobody was killed who had one in hand, so not even what may be repeated was.
    assert [key for key in sent if delivered[key] != 1] == []


@pytest.fixture(scope="session", autouse=True)
def first(clone: Clone) -> Play:
    """Return what the run said that took the bare host to its first release."""
    return clone.play("site.yml")


@pytest.fixture
def at(host: Host, releases: Clone) -> Callable[[str], None]:
    """Return what takes the host to a release, whatever the test before left."""

    def go(release: str) -> None:
        if serving(host) != release:
            play = releases.deploy(release)
            assert play.status == 0, play.said[-3000:]

    return go
