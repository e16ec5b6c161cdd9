"""The command line, as a person or a script meets it: what all commands share, the settings and the keys."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from molam_webhook import __version__
from molam_webhook.cli import main
from molam_webhook.cli.output import safe
from support import SECRET, Service, environment, event_body, run_cli

NOWHERE = environment("postgresql:///nowhere?host=/nonexistent")


def commands(group: click.Group, *names: str) -> list[tuple[str, ...]]:
    """Each command and each group, by the words that call it."""
    found = [names]
    for name, command in group.commands.items():
        found += commands(command, *names, name) if isinstance(command, click.Group) else [(*names, name)]
    return found


def test_version() -> None:
    assert run_cli("--version", env=NOWHERE).stdout == f"molam-webhook, version {__version__}\n"


@pytest.mark.parametrize("names", commands(main), ids=" ".join)
def test_every_command_has_help_in_lines_that_fit(names: tuple[str, ...]) -> None:
    command: click.Command = main
    for name in names:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help
    context = click.Context(command, info_name=" ".join(names), **main.context_settings)
    text = command.get_help(context)
    assert all(len(line) <= 110 for line in text.splitlines())
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.mark.parametrize(
    "command", [["status"], ["events", "list"], ["events", "show", "x"], ["events", "retry", "x"]], ids=" ".join
)
def test_a_database_that_is_away_is_said_in_a_sentence(command: list[str]) -> None:
    failed = run_cli(*command, env=NOWHERE)
    assert failed.returncode == 1
    assert "The database cannot be asked: " in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("command", [["serve", "--uds", "never.sock"], ["check-config"], ["keys", "list"]])
def test_a_wrong_configuration_is_listed_whole(command: list[str]) -> None:
    env = NOWHERE | {
        "MOLAM_WEBHOOK_SECRET": "hunter2",
        "DATABASE_POOL_MAX": "many",
        "LOG_LEVEL": "loud",
        "SENTRY_DSN": "https://hunter2.example",
    }
    failed = run_cli(*command, env=env)
    assert failed.returncode == os.EX_CONFIG
    for name in ("MOLAM_WEBHOOK_SECRET", "DATABASE_POOL_MAX", "LOG_LEVEL", "SENTRY_DSN"):
        assert f"\n  {name}" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "hunter2" not in failed.stderr


def test_check_config_shows_sources_and_no_secret() -> None:
    shown = run_cli("check-config", env=NOWHERE | {"SENTRY_DSN": "https://public@sentry.example/1"})
    assert shown.returncode == 0
    lines = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert lines["MOLAM_WEBHOOK_SECRET"] == ["environment", "***"]
    assert lines["SENTRY_DSN"] == ["environment", "***"]
    assert lines["MOLAM_ADMIN_UDS"] == ["default", "-"]
    assert lines["DATABASE_POOL_MAX"] == ["default", "20"]
    assert SECRET not in shown.stdout


def test_keys_are_listed_without_their_secrets() -> None:
    keyring = {"v1": {"secret": SECRET, "state": "revoked"}, "v2": {"secret": SECRET[::-1], "state": "active"}}
    env = NOWHERE | {
        "KEYRING": json.dumps(keyring),
        "MOLAM_WEBHOOK_DEFAULT_KID": "v2",
        "SELFTEST_SECRET": "of-the-host-itself-only",
    }
    del env["MOLAM_WEBHOOK_SECRET"]
    shown = run_cli("keys", "list", env=env)
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[:2] for line in shown.stdout.splitlines()[1:]] == [
        ["v1", "revoked"],
        ["v2", "active"],
        ["selftest", "active"],
    ]
    rows = json.loads(run_cli("keys", "list", "--json", env=env).stdout)
    assert [row["source"] for row in rows] == [
        "environment KEYRING",
        "environment KEYRING",
        "environment SELFTEST_SECRET",
    ]
    for secret in (SECRET, SECRET[::-1], "of-the-host-itself-only"):
        assert secret not in shown.stdout + json.dumps(rows)


@pytest.mark.checklist("KEY-3")
def test_keys_have_an_age_where_it_was_written_down(tmp_path: Path) -> None:
    keyring = {"v1": {"secret": SECRET, "state": "active"}, "v2": {"secret": SECRET[::-1], "state": "active"}}
    made = datetime.now(UTC).date() - timedelta(days=100)
    dates = tmp_path / "dates.json"
    dates.write_text(json.dumps({"keyring/v1": {"created": made.isoformat(), "active": True}}))
    env = NOWHERE | {"KEYRING": json.dumps(keyring), "MOLAM_SECRET_DATES": str(dates)}
    del env["MOLAM_WEBHOOK_SECRET"]
    rows = json.loads(run_cli("keys", "list", "--json", env=env).stdout)
    ages = {row["kid"]: (row["created"], row["age_days"]) for row in rows}
    assert ages == {"v1": (made.isoformat(), 100), "v2": (None, None)}
    assert f"{made}  100" in run_cli("keys", "list", env=env).stdout
    # Where nobody writes them down, as where the app runs without Ansible.
    dates.unlink()
    assert {row["age_days"] for row in json.loads(run_cli("keys", "list", "--json", env=env).stdout)} == {None}


@pytest.mark.checklist("APP-3")
def test_what_strangers_sent_does_not_steer_the_terminal() -> None:
    assert safe("a\x1b[2J\nb\u202ec\x9b1m") == "a\\x1b[2J\\nb\\u202ec\\x9b1m"
    assert safe("Dakar, é, 支付") == "Dakar, é, 支付"


@pytest.mark.database
def test_a_second_server_does_not_take_the_socket(serve: Callable[..., Service], url: str) -> None:
    service = serve()
    second = run_cli("serve", "--uds", str(service.socket), env=environment(url))
    assert second.returncode == 1
    assert second.stderr == f"Another process is serving on {service.socket}.\n"
    assert service.deliver(event_body("evt_1")).status_code == 200
