"""What the roles' templates say for each Debian release and for the variables that matter."""

from __future__ import annotations

import re

import pytest

from .render import render


def test_http2_as_each_nginx_spells_it() -> None:
    assert "http2 on;" in render("nginx", "site.conf.j2", debian=13)
    old = render("nginx", "site.conf.j2", debian=12)
    assert "http2 on;" not in old
    assert "listen 443 ssl http2;" in old


def test_post_quantum_key_exchange_where_openssl_has_it() -> None:
    assert "ssl_ecdh_curve X25519MLKEM768:X25519:" in render("nginx", "site.conf.j2", debian=13)
    assert "ssl_ecdh_curve X25519:prime256v1:secp384r1;" in render("nginx", "site.conf.j2", debian=12)


def test_known_networks_are_no_strangers() -> None:
    site = render(
        "nginx",
        "site.conf.j2",
        molam_administrator_networks=["198.18.1.0/24", "fd00::/64"],
        molam_sender_networks=["198.18.2.0/24", "198.18.1.0/24"],
    )
    strangers = re.search(r"geo \$molam_stranger \{(.*?)\}", site, re.DOTALL)
    assert strangers is not None
    zeros = ["127.0.0.0/8", "::1/128", "198.18.1.0/24", "fd00::/64", "198.18.2.0/24"]
    assert re.findall(r"(\S+) (\d);", strangers[1]) == [("default", "1"), *((zero, "0") for zero in zeros)]


@pytest.mark.parametrize("networks", [[], ["198.18.2.0/24"]])
def test_webhook_is_limited_only_where_the_sender_is_known(networks: list[str]) -> None:
    site = render("nginx", "site.conf.j2", molam_sender_networks=networks)
    webhook = re.search(r"location = /molam/webhook \{(.*?)\}", site, re.DOTALL)
    assert webhook is not None
    assert ("limit_req " in webhook[1]) == bool(networks)


def test_redirect_leads_to_the_public_port() -> None:
    assert "return 301 https://$host$request_uri;" in render("nginx", "site.conf.j2")
    assert "return 301 https://$host:8443$request_uri;" in render("nginx", "site.conf.j2", nginx_public_https_port=8443)


def test_post_may_be_retried_and_an_answer_comes_in_time() -> None:
    """The contract: within 8 s in all, the proxy's retries included."""
    site = render("nginx", "site.conf.j2")
    assert site.count("unix:/run/molam-webhook/current.sock max_fails=0") == 2
    assert re.search(r"proxy_next_upstream [^;]*\bnon_idempotent\b", site)
    # A read that timed out is not tried again: the longest way is a refused connection and one full wait.
    assert not re.search(r"proxy_next_upstream [^;]*\btimeout\b", site)
    seconds = {name: int(value) for name, value in re.findall(r"proxy_(connect|read)_timeout (\d+)s;", site)}
    assert seconds["connect"] + seconds["read"] <= 8


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
    assert new == {name: running[name] for name in ("listen_addresses", "max_connections", "shared_buffers")}


def test_environment_has_the_settings_and_no_secret() -> None:
    keys = [{"kid": "v1", "secret": "whsec_of_this_test_alone", "state": "active"}]
    text = render("webhook_app", "environment.j2", webhook_app_keys=keys, webhook_app_pool_max=12)
    assert "DATABASE_POOL_MAX=12" in text
    assert "secret" not in re.sub("^#.*$", "", text, flags=re.MULTILINE).lower()


@pytest.mark.parametrize(("wanted", "value"), [(True, "1"), (False, "0")])
def test_security_updates(wanted: bool, value: str) -> None:
    text = render("base", "unattended-upgrades.j2", base_security_updates=wanted)
    assert f'APT::Periodic::Unattended-Upgrade "{value}";' in text


def test_journal_is_persistent_and_bounded() -> None:
    text = render("base", "journald.conf.j2", base_journal_max_size="2G")
    assert "Storage=persistent" in text
    assert "SystemMaxUse=2G" in text


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
