"""Error reports, as a real HTTP server in Sentry's place receives them."""

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]  # it ships no types
import pytest
import sentry_sdk
import structlog
from local_server import Answer, LocalServer
from molam_webhook import __version__, logs, sentry
from molam_webhook.config import Settings
from stored import store
from support import SECRET, Postgres, Process, Service, environment, event_body, run_cli, signed_headers, wait_until

PRIVATE = "card-4242-of-a-customer"

# Brotli is what the library takes where it finds it.
UNPACK: dict[str | None, Callable[[bytes], bytes]] = {None: bytes, "gzip": gzip.decompress, "br": brotli.decompress}


class Ingest(LocalServer):
    """Takes envelopes."""

    def __init__(self) -> None:
        super().__init__(lambda _request: Answer(200, body=b"{}"))
        self.dsn = f"http://public@127.0.0.1:{self.port}/7"

    def envelopes(self) -> list[bytes]:
        return [UNPACK[request.headers.get("content-encoding")](request.body) for request in list(self.requests)]

    def events(self) -> list[dict[str, Any]]:
        """The event of each envelope: its last line."""
        return [json.loads(envelope.splitlines()[-1]) for envelope in self.envelopes()]


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    server = Ingest()
    yield server
    server.close()


@pytest.fixture
def reporting(ingest: Ingest) -> Iterator[Ingest]:
    """This very process reports, until the test is over."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("info")
    sentry.start(Settings.model_validate({"sentry_dsn": ingest.dsn, "molam_environment": "staging"}))
    yield ingest
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_error_is_reported_with_its_stack_and_without_values(reporting: Ingest) -> None:
    secret = SECRET
    log = structlog.get_logger()
    log.warning("no_error", event_id="evt_0")
    try:
        raise ValueError(f"{PRIVATE} {secret}")
    except ValueError as error:
        log.error("request_failed", **logs.describe(error), event_id="evt_1", amount=5000, fault=PRIVATE)
    sentry.stop()
    (event,) = reporting.events()
    assert (event["message"], event["level"]) == ("request_failed", "error")
    assert (event["release"], event["environment"]) == (f"molam-webhook@{__version__}", "staging")
    assert event["tags"] == {"error": "ValueError", "event_id": "evt_1"}
    (exception,) = event["exception"]["values"]
    assert exception["type"] == "ValueError"
    assert exception["stacktrace"]["frames"][-1]["function"].startswith("test_an_error_is_reported")
    everything = reporting.envelopes()[0].decode()
    for private in (PRIVATE, SECRET, "5000", "vars", "context_line", "argv"):
        assert private not in everything
    assert event["breadcrumbs"] == {"values": []}


def test_the_same_error_is_reported_once_a_minute(reporting: Ingest) -> None:
    log = structlog.get_logger()
    for number in range(1000):
        log.error("webhook", outcome="unavailable", event_id=f"evt_{number}")
    log.error("webhook", outcome="unknown_key")
    sentry.stop()
    assert [event["tags"]["outcome"] for event in reporting.events()] == ["unavailable", "unknown_key"]


def test_what_a_library_logs_is_reported_without_its_values(reporting: Ingest) -> None:
    logger = logging.getLogger("library")
    logger.error("lost %s", PRIVATE)
    # Libraries put values in by themselves, too.
    logger.error(f"lost {PRIVATE}")
    logger.warning("no error")
    sentry.stop()
    assert [event["message"] for event in reporting.events()] == ["library: lost %s", "library: see the log"]
    assert PRIVATE not in b"".join(reporting.envelopes()).decode()


def test_without_a_dsn_nothing_is_loaded_or_reported() -> None:
    before = structlog.get_config()["processors"]
    sentry.start(Settings())
    assert structlog.get_config()["processors"] == before


@pytest.mark.database
def test_the_receiver_reports(serve: Callable[..., Service], ingest: Ingest) -> None:
    service = serve(SENTRY_DSN=ingest.dsn, MOLAM_ENVIRONMENT="demo")
    service.deliver(event_body("evt_1"))
    other = event_body("evt_1", note=PRIVATE)
    headers = signed_headers(other)
    service.deliver(other, **headers)
    service.stop()
    (event,) = ingest.events()
    assert event["message"] == "event_conflict"
    assert event["tags"]["event_id"] == "evt_1"
    assert event["environment"] == "demo"
    everything = ingest.envelopes()[0].decode()
    for private in (PRIVATE, SECRET, "v1=", "pi_evt_1"):
        assert private not in everything


@pytest.mark.database
@pytest.mark.parametrize(("command", "name"), [("serve", "receiver_failed"), ("worker", "worker_failed")])
def test_what_ends_a_process_is_logged_and_reported(
    postgres: Postgres, database: str, directory: Path, ingest: Ingest, command: str, name: str
) -> None:
    arguments = [command, "--uds", str(directory / "http.sock")] if command == "serve" else [command]
    nobody = str(directory / "nobody")
    ended = run_cli(*arguments, env=environment(postgres.url(database), SENTRY_DSN=ingest.dsn, NOTIFY_SOCKET=nobody))
    assert ended.returncode == 1
    assert not ended.stderr
    (line,) = [line for line in map(json.loads, ended.stdout.splitlines()) if line["event"] == name]
    assert (line["level"], line["error"]) == ("error", "Unreachable")
    assert line["stack"].startswith("notify.py:")
    (event,) = [event for event in ingest.events() if event["message"] == name]
    assert event["tags"] == {"error": "Unreachable"}
    assert "notify" in [value["stacktrace"]["frames"][-1]["function"] for value in event["exception"]["values"]]


@pytest.mark.database
def test_the_worker_reports_what_it_gives_up(
    postgres: Postgres, database: str, url: str, directory: Path, ingest: Ingest
) -> None:
    store(url, "evt_1", amount=PRIVATE)
    env = environment(
        postgres.url(database, "molam_webhook_worker"), SENTRY_DSN=ingest.dsn, MOLAM_WORKER_MAX_ATTEMPTS="1"
    )
    worker = Process(["molam_webhook", "worker"], env, directory)
    try:
        wait_until(ingest.events)
    finally:
        worker.close()
    (event,) = ingest.events()
    assert event["tags"]["event_id"] == "evt_1"
    assert PRIVATE not in ingest.envelopes()[0].decode()
    assert PRIVATE in worker.log.read_text()
