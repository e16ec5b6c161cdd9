"""`status`: all is well, or what is off and what to do next."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from molam_webhook import admin, status
from molam_webhook.clock import Clock
from molam_webhook.database import session
from molam_webhook.health import Health
from molam_webhook.status import duration
from stored import store
from support import Postgres, Process, Service, environment, query, run_cli, wait_until

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min 0 s"), (310, "5 min 10 s"), (7200, "2 h 0 min"), (90_061, "1 d 1 h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def sockets(directory: Path) -> Path:
    path = directory / "admin"
    path.mkdir()
    return path


@pytest.fixture
def env(postgres: Postgres, database: str) -> dict[str, str]:
    return environment(postgres.url(database, "molam_webhook_worker"))


@pytest.fixture
def worker(env: dict[str, str], directory: Path, sockets: Path) -> Iterator[Process]:
    home = directory / "worker"
    home.mkdir()
    process = Process(["molam_webhook", "worker", "--admin-uds", str(sockets / "worker-a.sock")], env, home)
    yield process
    process.close()


def look(env: dict[str, str], sockets: Path) -> tuple[int, dict[str, Any]]:
    done = run_cli("status", "--sockets", str(sockets), "--json", env=env)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.database
@pytest.mark.usefixtures("worker")
def test_all_is_well_until_it_is_not(
    serve: Callable[..., Service], env: dict[str, str], sockets: Path, url: str
) -> None:
    receiver = serve(MOLAM_ADMIN_UDS=str(sockets / "receiver-a.sock"))
    store(url, "evt_1", state="done", age=DAY)
    code, seen = look(env, sockets)
    assert (code, seen["good"], seen["faults"]) == (0, True, [])
    assert [(process["name"], process["ready"], process["database"]) for process in seen["processes"]] == [
        ("receiver-a", True, "healthy"),
        ("worker-a", True, "healthy"),
    ]
    screen = run_cli("status", "--sockets", str(sockets), env=env)
    assert screen.returncode == 0
    assert "all is well" in screen.stdout
    assert "evt_1" in screen.stdout

    store(url, "evt_2", state="dead", forward="dead")
    query(url, "INSERT INTO event_conflicts (event_id, body_sha256, payload) VALUES ('evt_1', sha256('x'), 'x')")
    receiver.kill()
    code, seen = look(env, sockets)
    assert code == 1
    faults = "\n".join(f"{fault['what']} {fault['next']}" for fault in seen["faults"])
    assert "No receiver is ready" in faults
    assert "1 events were given up, and the forwarding of 1" in faults
    assert "molam-webhook events retry --all-dead" in faults
    assert "molam-webhook events list --conflicts" in faults
    assert "No worker" not in faults
    screen = run_cli("status", "--sockets", str(sockets), env=env)
    assert "NOT WELL" in screen.stdout
    assert "\n  next: journalctl" in screen.stdout


def test_a_clock_that_is_not_synchronised(directory: Path, sockets: Path) -> None:
    nowhere = "postgresql:///nowhere?host=/nonexistent"
    timesync = directory / "timesync"

    async def works() -> bool:
        return False

    async def told() -> str:
        health = Health(None, works, lambda: session(nowhere, "test"))
        async with admin.serving(sockets / "receiver-a.sock", health, clock=Clock(timesync)):
            seen = await status.look(nowhere, sockets, forwarding=False)
        return "\n".join(fault.what for fault in seen.faults)

    # Another time service than timesyncd is taken at its word.
    assert "The host's clock" not in asyncio.run(told())
    timesync.mkdir()
    assert "The host's clock is not synchronised" in asyncio.run(told())
    (timesync / "synchronized").touch()
    assert "The host's clock" not in asyncio.run(told())


@pytest.mark.later_schema
@pytest.mark.database
def test_events_that_nobody_takes(env: dict[str, str], sockets: Path, url: str) -> None:
    store(url, "evt_1", age=timedelta(hours=2))
    query(url, "INSERT INTO event_conflicts VALUES ('evt_1', sha256('x'), 'x', now() - interval '2 days')")
    code, seen = look(env, sockets)
    assert code == 1
    whats = [fault["what"] for fault in seen["faults"]]
    assert len(whats) == 3
    assert "An event has waited for 2 h 0 min." in whats
    assert any(what.startswith("No worker is ready") for what in whats)


@pytest.mark.later_schema
@pytest.mark.database
def test_forwards_that_wait(env: dict[str, str], sockets: Path, url: str) -> None:
    forwarding = env | {"MOLAM_FORWARD_URL": "http://127.0.0.1:9/"}

    def told(env: dict[str, str]) -> str:
        return "\n".join(f"{fault['what']} {fault['next']}" for fault in look(env, sockets)[1]["faults"])

    store(url, "evt_1", state="done", forward="pending")
    assert "forward" not in told(forwarding)
    assert "Forwarding is switched off, and 1 events wait to be forwarded. set MOLAM_FORWARD_URL" in told(env)
    store(url, "evt_2", state="done", forward="pending")
    query(url, "UPDATE webhook_deliveries SET created_at = now() - interval '2 hours' WHERE event_id = 'evt_1'")
    assert "An event has waited to be forwarded for 2 h 0 min. molam-webhook events list" in told(forwarding)
    screen = run_cli("status", "--sockets", str(sockets), env=forwarding).stdout
    assert "2, the oldest for 2 h 0 min; 0 given up" in screen
    query(url, "UPDATE forwards SET state = 'done'")
    assert "forward" not in told(env)


@pytest.mark.database
def test_one_slot_that_is_ready_is_enough(
    worker: Process, serve: Callable[..., Service], env: dict[str, str], sockets: Path
) -> None:
    serve(MOLAM_ADMIN_UDS=str(sockets / "receiver-a.sock")).kill()
    serve(MOLAM_ADMIN_UDS=str(sockets / "receiver-b.sock"))
    wait_until(lambda: (sockets / "worker-a.sock").exists())
    code, seen = look(env, sockets)
    assert (code, seen["faults"]) == (0, [])
    assert [process["ready"] for process in seen["processes"]] == [False, True, True]
    worker.kill()
    assert look(env, sockets)[0] == 1
