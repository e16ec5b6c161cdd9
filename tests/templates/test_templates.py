"""What the roles' templates say for each Debian release and for the variables that matter."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from ansible.template import trust_as_template

from .render import render, templar


def test_postgresql_is_durable_and_logs_no_payment() -> None:
    settings = dict(re.findall(r"^(\w+) = (.+)$", render("postgresql", "postgresql.conf.j2"), re.MULTILINE))
    assert [settings[name] for name in ("fsync", "synchronous_commit", "full_page_writes")] == ["on"] * 3
    assert settings["listen_addresses"] == "''"
    assert settings["log_parameter_max_length"] == settings["log_parameter_max_length_on_error"] == "0"
    assert settings["log_error_verbosity"] == "terse"


def test_new_cluster_is_right_from_its_first_start() -> None:
    """What a running server can't take up stands in both places, so that the first start needs no second one."""
    new = dict(re.findall(r"^(\w+) = (.+)$", render("postgresql", "createcluster.conf.j2"), re.MULTILINE))
    running = dict(re.findall(r"^(\w+) = (.+)$", render("postgresql", "postgresql.conf.j2"), re.MULTILINE))
    options = new.pop("initdb_options")
    assert "--data-checksums" in options
    assert {"listen_addresses", "max_connections", "shared_buffers", "logging_collector", "log_directory"} <= set(new)
    assert new == {name: running[name] for name in new}


def test_environment_has_the_settings_and_no_secret() -> None:
    keys = [{"kid": "v1", "secret": "whsec_of_this_test_alone", "state": "active"}]
    text = render("webhook_app", "environment.j2", webhook_app_keys=keys, webhook_app_pool_max=12)
    assert "DATABASE_POOL_MAX=12" in text
    assert "whsec_" not in text
    # Nor a place for one: those are credentials.
    assert not re.search(r"^\w*(SECRET|KEY|PASSWORD|DSN)=", text, re.MULTILINE)


def test_environment_is_the_same_for_systemd_and_for_a_shell(tmp_path: Path) -> None:
    """The command line on the host reads it with a shell."""
    url = "http://10.1.2.3/in?shop=1&signed=yes"
    path = tmp_path / "environment"
    path.write_text(render("webhook_app", "environment.j2", webhook_app_forward_url=url))
    answer = subprocess.run(
        ["/bin/sh", "-euc", '. "$0"; printf %s "$MOLAM_FORWARD_URL"', path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == url


# A PostgreSQL on another host; a password with all that means something in a URL.
PASSWORD = "a/b:c@d?e#f%g\\1&h+i"  # noqa: S105  made up for this test
DATABASE: dict[str, Any] = {
    "webhook_app_database_url": "postgresql://db-1.shop.test,db-2.shop.test:5433/molam?sslmode=verify-full",
    "webhook_app_database_networks": ["198.18.7.9/32"],
    "webhook_app_database_logins": {
        job: {"user": f"{job}_a", "password": f"{PASSWORD}{job}"} for job in ("worker", "owner", "receiver")
    },
}


def test_database_elsewhere_is_no_setting_but_a_credential_of_each_job() -> None:
    assert "DATABASE_URL=postgresql:///" in render("webhook_app", "environment.j2")
    text = render("webhook_app", "environment.j2", **DATABASE)
    assert "DATABASE_URL" not in text
    assert "db-1" not in text
    template = templar("webhook_app", 13, {**DATABASE, "webhook_app_keys": []})
    credentials = template.template(trust_as_template("{{ __webhook_app_credentials }}"))
    for job in ("receiver", "worker", "owner"):
        url = credentials[f"database_url.{job}"]
        # As the driver reads it.
        login, _, hosts = urlsplit(url).netloc.rpartition("@")
        user, _, password = login.partition(":")
        assert (user, unquote(password), hosts) == (f"{job}_a", PASSWORD + job, "db-1.shop.test,db-2.shop.test:5433")
        assert url.endswith("/molam?sslmode=verify-full")
    units = template.template(trust_as_template("{{ __webhook_app_reach }}"))
    for unit, job in zip(units, ("receiver", "worker", "owner"), strict=True):
        drop_in = render("webhook_app", "reach.conf.j2", item=unit, **DATABASE)
        assert re.findall(r"LoadCredentialEncrypted=(database_url):\S+/(database_url\S+)\.cred\n", drop_in) == [
            ("database_url", f"database_url.{job}")
        ]
        assert "IPAddressAllow=198.18.7.9/32\n" in drop_in
        assert "PGSSLROOTCERT=" in drop_in


def test_database_here_is_no_credential() -> None:
    template = templar("webhook_app", 13, {"webhook_app_keys": []})
    credentials = template.template(trust_as_template("{{ __webhook_app_credentials }}"))
    assert [credentials[f"database_url.{job}"] for job in ("receiver", "worker", "owner")] == [None] * 3
    units = template.template(trust_as_template("{{ __webhook_app_reach }}"))
    assert [unit["networks"] for unit in units] == [[]] * 3


@pytest.mark.parametrize(("wanted", "value"), [(True, "1"), (False, "0")])
def test_security_updates(wanted: bool, value: str) -> None:
    text = render("base", "unattended-upgrades.j2", base_security_updates=wanted)
    assert f'APT::Periodic::Unattended-Upgrade "{value}";' in text


def test_time_servers_are_debians_own_unless_they_are_named() -> None:
    assert "NTP=" not in render("base", "timesyncd.conf.j2")
    assert "\nNTP=a.test 198.18.7.1\n" in render("base", "timesyncd.conf.j2", base_ntp_servers=["a.test", "198.18.7.1"])


def test_reboots_only_at_a_time_that_was_named() -> None:
    assert 'Automatic-Reboot "false";' in render("base", "unattended-upgrades.j2")
    text = render("base", "unattended-upgrades.j2", base_reboot_time="04:30")
    assert 'Automatic-Reboot "true";' in text
    assert 'Automatic-Reboot-Time "04:30";' in text


@pytest.mark.parametrize(("kind", "foreign"), [("kvm", True), ("podman", False), ("container", False)])
def test_of_a_container_only_the_networks_settings_are_its_own(kind: str, foreign: bool) -> None:
    facts = {"distribution_major_version": "13", "virtualization_type": kind}
    names = re.findall(r"^([a-z0-9_.]+) = \S+$", render("base", "sysctl.conf.j2", ansible_facts=facts), re.MULTILINE)
    assert "net.ipv4.tcp_syncookies" in names
    assert any(not name.startswith("net.") for name in names) == foreign


def test_certificate_is_told_of_when_a_sixth_of_its_lifetime_is_left() -> None:
    """Whatever that is: of 90 days 15, of 6 days one."""
    limits = json.loads(render("monitoring", "molam-check.json.j2", inventory_hostname="host"))["limits"]
    assert limits["certificate_remaining_ratio"] == pytest.approx(1 / 6)


def test_journal_is_persistent_and_bounded() -> None:
    """A file that holds a week goes as a whole, so each is kept for a week more than asked for."""
    text = render("log_rotation", "journald.conf.j2", log_rotation_journal_size="2G", log_rotation_days=365)
    assert {"Storage=persistent", "SystemMaxUse=2G", "MaxFileSec=1week", "MaxRetentionSec=372day"} <= set(
        text.split("\n")
    )


def test_each_log_is_kept_for_the_days_asked_for() -> None:
    """Also where it is rotated several times a day; each section says so itself, and says that it is the first."""
    text = render("log_rotation", "logrotate.j2", log_rotation_days=365, log_rotation_extra_files=7)
    sections = re.findall(r"^/var/log/\S+ \{$.*?^\}$", text, re.MULTILINE | re.DOTALL)
    assert len(sections) == text.count("/var/log/")
    for section in sections:
        lines = {line.strip() for line in section.splitlines()}
        assert {"maxage 365", "rotate 372", "maxsize 100M", "delaycompress", "ignoreduplicates"} <= lines


@pytest.mark.parametrize("networks", [[], ["198.18.7.0/24", "fd00:7::/64"]])
def test_network_is_opened_for_what_is_named_alone(networks: list[str]) -> None:
    """The sandbox, which every unit of ours has, closes it."""
    unit = {"unit": "molam-webhook-worker", "credentials": [], "networks": networks}
    text = render("webhook_app", "reach.conf.j2", item=unit)
    assert ("PrivateNetwork=no" in text) == ("AF_INET" in text) == bool(networks)
    allowed = [line.partition("=")[2].split() for line in text.splitlines() if line.startswith("IPAddressAllow=")]
    assert allowed == ([networks] if networks else [])


def test_cache_is_bounded_and_reached_over_its_socket_only() -> None:
    text = render("valkey", "valkey.conf.j2", valkey_memory="128MB")
    settings = dict(re.findall(r"^([a-z-]+) (.+)$", text, re.MULTILINE))
    assert settings["port"] == "0"
    assert settings["unixsocketperm"] == "660"
    assert (settings["maxmemory"], settings["maxmemory-policy"]) == (str(128 * 1024**2), "allkeys-lru")
    assert (settings["save"], settings["appendonly"]) == ('""', "no")


@pytest.mark.parametrize(("debian", "name"), [(13, "valkey"), (12, "redis")])
def test_cache_is_the_one_that_the_release_has(debian: int, name: str) -> None:
    unit = render("valkey", "service.conf.j2", debian=debian, valkey_memory="128MB")
    assert f"\nExecStart=/usr/bin/{name}-server /etc/{name}/molam.conf " in unit
    # More than it may remember, or the kernel would end it whenever it is full.
    limit = re.search(r"^MemoryMax=(\d+)$", unit, re.MULTILINE)
    assert limit is not None
    assert int(limit[1]) > 1.5 * 128 * 1024**2


def test_cache_is_open_to_its_clients() -> None:
    text = render("valkey", "sysusers.conf.j2", valkey_clients=["one", "two"])
    assert re.findall(r"^m (\w+) (\w+)$", text, re.MULTILINE) == [("one", "molam_valkey"), ("two", "molam_valkey")]
