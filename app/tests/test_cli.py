"""The command line, as a person or a script meets it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from molam_webhook import __version__
from support import PATH, SECRET, Service, count, environment, event_body, run_cli

Serve = Callable[..., Service]

NOWHERE = environment("postgresql:///nowhere?host=/nonexistent")

database = pytest.mark.database


def test_version_and_help() -> None:
    assert run_cli("--version", env=NOWHERE).stdout == f"molam-webhook, version {__version__}\n"
    for command in ([], ["serve"], ["worker"], ["migrate"], ["check-config"], ["send"], ["events", "show"]):
        shown = run_cli(*command, "--help", env=NOWHERE)
        assert shown.returncode == 0
        assert "Usage: " in shown.stdout


@pytest.mark.parametrize("command", [["serve", "--uds", "never.sock"], ["check-config"]])
def test_a_wrong_configuration_is_listed_whole(command: list[str]) -> None:
    env = NOWHERE | {"MOLAM_WEBHOOK_SECRET": "hunter2", "DATABASE_POOL_MAX": "many", "LOG_LEVEL": "loud"}
    failed = run_cli(*command, env=env)
    assert failed.returncode == os.EX_CONFIG
    for name in ("MOLAM_WEBHOOK_SECRET", "DATABASE_POOL_MAX", "LOG_LEVEL"):
        assert f"\n  {name}" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "hunter2" not in failed.stderr


def test_check_config_shows_sources_and_no_secret() -> None:
    shown = run_cli("check-config", env=NOWHERE)
    assert shown.returncode == 0
    lines = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert lines["MOLAM_WEBHOOK_SECRET"] == ["environment", "***"]
    assert lines["DATABASE_POOL_MAX"] == ["default", "20"]
    assert SECRET not in shown.stdout


def test_sending_to_nobody_is_one_sentence() -> None:
    failed = run_cli("send", "--url", "http://127.0.0.1:1/molam/webhook", env=NOWHERE)
    assert failed.returncode == 1
    assert failed.stderr.startswith("No answer from 127.0.0.1:1: ")
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["--url", "ftp://x"], ["--url", "http://x", "--connect-to", "x"], ["--url", "http://x", "--amount", "-1"]],
    ids=str,
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert run_cli("send", *arguments, env=NOWHERE).returncode == 2


def test_sending_without_a_secret_is_wrong_usage() -> None:
    env = {name: value for name, value in NOWHERE.items() if name != "MOLAM_WEBHOOK_SECRET"}
    failed = run_cli("send", "--url", "http://127.0.0.1:1/", env=env)
    assert failed.returncode == 2
    assert "MOLAM_WEBHOOK_SECRET" in failed.stderr


@database
def test_send_and_show(serve: Serve, url: str, tmp_path: Path) -> None:
    service = serve()
    to = ["--url", f"http://pay.test{PATH}", "--connect-to", f"unix:{service.socket}"]
    sent = run_cli("send", *to, "--id", "evt_1", "--order-id", "ord_7", env=NOWHERE)
    assert sent.returncode == 0, sent.stderr
    assert "answer   200" in sent.stdout
    assert SECRET not in sent.stdout
    (tmp_path / "secret").write_text(SECRET + "\n")
    options = ["--secret-file", str(tmp_path / "secret"), "--kid", "v1", "--type", "refund.succeeded", "--json"]
    again = json.loads(run_cli("send", *to, *options, env=NOWHERE).stdout)
    assert again["status"] == 200
    assert json.loads(again["answer"]) == {"status": "accepted", "id": again["event_id"]}
    assert again["latency_ms"] > 0

    env = environment(url)
    shown = run_cli("events", "show", "evt_1", env=env)
    assert shown.returncode == 0, shown.stderr
    assert "event_type         payment.succeeded" in shown.stdout
    assert shown.stdout.endswith("no order\n")
    found = json.loads(run_cli("events", "show", "evt_1", "--json", env=env).stdout)
    assert (found["state"], found["order"]) == ("pending", None)
    assert json.loads(found["payload"])["data"]["metadata"] == {"order_id": "ord_7"}
    assert run_cli("events", "show", "evt_none", env=env).returncode == 1


@database
def test_a_forgery_is_refused_and_fails(serve: Serve, url: str) -> None:
    service = serve()
    to = ["--url", f"http://pay.test{PATH}", "--connect-to", f"unix:{service.socket}"]
    forged = run_cli("send", *to, "--forge", "--json", env=NOWHERE)
    assert forged.returncode == 1
    assert json.loads(forged.stdout)["status"] == 401
    assert count(url, "event_ids") == 0


@database
def test_a_second_server_does_not_take_the_socket(serve: Serve, url: str) -> None:
    service = serve()
    second = run_cli("serve", "--uds", str(service.socket), env=environment(url))
    assert second.returncode == 1
    assert second.stderr == f"Another process is serving on {service.socket}.\n"
    assert service.deliver(event_body("evt_1")).status_code == 200
