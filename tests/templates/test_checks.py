"""What each role refuses in its variables, and says of them, before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest

from .render import ROLES, faults

SECRET = "whsec_q8Vw3LmZr5Kt1Yh7Nd0b"  # noqa: S105  made up for this test
GOOD: dict[str, Any] = {
    "molam_administrator_networks": ["198.18.7.0/24", "fd00:7::/64"],
    "webhook_app_keys": [{"kid": "v1", "secret": SECRET, "state": "active"}],
    "backup_key": "K2bq7Zt0vXr5Wm9Yd4Hs1Jn8",
    "groups": {},
}

# A file that is there, whatever is in it: that is looked into after the variables.
SDK = {"sdk_hosting_enabled": True, "sdk_hosting_file": "/etc/hostname", "sdk_hosting_version": "1.0.0"}

# A PostgreSQL on another host, and who logs in there.
PASSWORD = "q8Vw3LmZr5Kt1Yh7Nd0b"  # noqa: S105  made up for this test
LOGINS = {
    job: {"user": f"molam_webhook_{job}_a", "password": f"{PASSWORD}{job}"} for job in ("receiver", "worker", "owner")
}
DATABASE: dict[str, Any] = {
    "webhook_app_database_url": "postgresql://db.shop.test:5432/molam?sslmode=verify-full",
    "webhook_app_database_logins": LOGINS,
    "webhook_app_database_networks": ["198.18.7.9/32", "fd00:7::9/128"],
}

# The role, variables in place of the good ones, and what it must say.
FAULTS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "URL for a domain": (
        "base",
        {"molam_domain": "https://shop.test/x"},
        ["molam_domain", "without scheme", "main.yml"],
    ),
    "address for a domain": ("base", {"molam_domain": "198.18.7.1"}, ["molam_domain"]),
    "example's domain": ("base", {"molam_domain": "webhooks.example.com"}, ["molam_domain"]),
    "no network": ("base", {"molam_administrator_networks": ["office"]}, ["molam_administrator_networks", "CIDR"]),
    "example's network": ("base", {"molam_sender_networks": ["198.51.100.0/24"]}, ["molam_sender_networks"]),
    "time of a reboot that is none": ("base", {"base_reboot_time": "25:00"}, ["base_reboot_time", "04:30"]),
    "no time to come in": ("base", {"base_undo_seconds": 1}, ["base_undo_seconds", "10 to 600"]),
    "time server with settings of its own": ("base", {"base_ntp_servers": ["a\nFallbackNTP=b"]}, ["base_ntp_servers"]),
    "the way in as unneeded": ("base", {"base_unneeded_packages": ["openssh-server"]}, ["base_unneeded_packages"]),
    "option for a package": ("base", {"base_unneeded_packages": ["--purge"]}, ["base_unneeded_packages"]),
    "no administrators": (
        "sshd",
        {"molam_administrator_networks": []},
        ["molam_administrator_networks", "sshd_open_to_everybody"],
    ),
    "nobody may come in": ("sshd", {"sshd_groups": []}, ["sshd_groups", "at least one"]),
    "group that ends its line": ("sshd", {"sshd_groups": ["root\nPermitRootLogin yes"]}, ["sshd_groups"]),
    "opening for no network": (
        "nftables",
        {"nftables_openings": [{"ports": [9100], "networks": ["office"], "purpose": "metrics"}]},
        ["nftables_openings", "CIDR"],
    ),
    "opening of no port": (
        "nftables",
        {"nftables_openings": [{"ports": [], "networks": [], "purpose": "metrics"}]},
        ["nftables_openings", "at least one port"],
    ),
    "opening with rules in its purpose": (
        "nftables",
        {"nftables_openings": [{"ports": [9100], "networks": [], "purpose": '" ; accept'}]},
        ["nftables_openings", "purpose"],
    ),
    "closed user that is none": (
        "nftables",
        {"nftables_closed_users": [{"user": "no user", "networks": []}]},
        ["nftables_closed_users"],
    ),
    "closed user with a port that is none": (
        "nftables",
        {"nftables_closed_users": [{"user": "nobody", "networks": [], "ports": [0]}]},
        ["nftables_closed_users", "1 to 65535"],
    ),
    "limit that the sender meets": (
        "nftables",
        {"nftables_new_connections_per_second": 1},
        ["nftables_new_connections_per_second", "at least 10"],
    ),
    "ban at once": ("fail2ban", {"fail2ban_tries": 0}, ["fail2ban_tries", "above 0"]),
    "longest ban that is the shortest": ("fail2ban", {"fail2ban_ban_seconds_max": 60}, ["fail2ban_ban_seconds_max"]),
    "friend that is no network": ("fail2ban", {"fail2ban_never_banned": ["us"]}, ["fail2ban_never_banned", "CIDR"]),
    "logs that are not kept": ("log_rotation", {"log_rotation_days": 0}, ["log_rotation_days", "1 to 3650"]),
    "size with settings of its own": ("log_rotation", {"log_rotation_size": "1M\nmail a"}, ["log_rotation_size"]),
    "size that logrotate can't read": ("log_rotation", {"log_rotation_size": "100MB"}, ["log_rotation_size", "100M"]),
    "fewer files than days": ("log_rotation", {"log_rotation_extra_files": -1}, ["log_rotation_extra_files"]),
    "journal without a size": ("log_rotation", {"log_rotation_journal_size": ""}, ["log_rotation_journal_size"]),
    "only revoked keys": (
        "webhook_app",
        {"webhook_app_keys": [{"kid": "v1", "secret": SECRET, "state": "revoked"}]},
        ["webhook_app_keys", "active", "vault.yml"],
    ),
    "untouched secret": (
        "webhook_app",
        {"webhook_app_keys": [{"kid": "v1", "secret": "CHANGE_ME", "state": "active"}]},
        ["secret in webhook_app_keys", "vault.yml", "placeholder"],
    ),
    "empty secret": (
        "webhook_app",
        {"webhook_app_keys": [{"kid": "v1", "secret": "", "state": "active"}]},
        ["secret in webhook_app_keys", "vault.yml"],
    ),
    "short secret": (
        "webhook_app",
        {"webhook_app_keys": [{"kid": "v1", "secret": "whsec_q8Vw3L", "state": "active"}]},
        ["secret in webhook_app_keys", "at least 16 characters"],
    ),
    "test key in production": (
        "webhook_app",
        {"webhook_app_keys": [{"kid": "v1", "secret": f"whsec_test_{SECRET[6:]}", "state": "active"}]},
        ["secret in webhook_app_keys", "vault.yml", "test key"],
    ),
    "key id of the self-test": (
        "webhook_app",
        {"webhook_app_keys": [{"kid": "selftest", "secret": SECRET, "state": "active"}]},
        ["kid in webhook_app_keys", "selftest"],
    ),
    "newline at the end": (
        "webhook_app",
        {"webhook_app_path": "/x\n", "nginx_webhook_path": "/x\n"},
        ["webhook_app_path"],
    ),
    "day that no month has": (
        "webhook_app",
        {"webhook_app_keys": [{"kid": "v1", "secret": SECRET, "state": "active", "created": "2026-02-30"}]},
        ["created in webhook_app_keys", "2026-01-31", "vault.yml"],
    ),
    "key of tomorrow": (
        "webhook_app",
        {"webhook_app_keys": [{"kid": "v1", "secret": SECRET, "state": "active", "created": "2099-01-31"}]},
        ["created in webhook_app_keys", "no day to come"],
    ),
    "same key id twice": (
        "webhook_app",
        {"webhook_app_keys": [{"kid": "v1", "secret": SECRET, "state": "active"}] * 2},
        ["kid in webhook_app_keys", "each once"],
    ),
    "ACME without an address": ("certbot", {"certbot_enabled": True}, ["certbot_email", "mail address", "main.yml"]),
    "ACME directory without TLS": (
        "certbot",
        {"certbot_directory_url": "http://ca.shop.test/directory"},
        ["certbot_directory_url", "https://"],
    ),
    "sentence for a profile": ("certbot", {"certbot_profile": "short lived"}, ["certbot_profile", "short lived"]),
    "no such CA": ("certbot", {"certbot_ca_bundle": "/no/such.pem"}, ["certbot_ca_bundle", "/no/such.pem"]),
    "ACME beside a certificate that is given": (
        "certbot",
        {"certbot_enabled": True, "certbot_email": "ops@shop.test", "nginx_tls_certificate": "/etc/hostname"},
        ["certbot_enabled and nginx_tls_certificate", "one of the two"],
    ),
    "certificate without key": (
        "nginx",
        {"nginx_tls_certificate": "/etc/hostname"},
        ["nginx_tls_certificate_key", "both"],
    ),
    "share that is none": (
        "monitoring",
        {"monitoring_filesystem_free_ratio": 15},
        ["monitoring_filesystem_free_ratio", "0 to 1"],
    ),
    "nobody that can be told": (
        "monitoring",
        {"monitoring_mail_to": "ops@shop.test"},
        ["monitoring_networks", "monitoring_mail_host"],
    ),
    "forwarding without a secret": (
        "webhook_app",
        {"webhook_app_forward_url": "http://10.1.2.3/in", "webhook_app_worker_networks": ["10.1.2.3/32"]},
        ["webhook_app_forward_secret", "vault.yml"],
    ),
    "forwarding to a network that is closed": (
        "webhook_app",
        {"webhook_app_forward_url": "http://10.1.2.3/in", "webhook_app_forward_secret": SECRET},
        ["webhook_app_forward_url", "webhook_app_worker_networks"],
    ),
    "API key for tests in production": (
        "webhook_app",
        {"molam_environment": "production", "webhook_app_api_key": f"sk_test_{SECRET}"},
        ["webhook_app_api_key", "a live one", "vault.yml"],
    ),
    "API key that is the public one": (
        "webhook_app",
        {"webhook_app_api_key": f"pk_live_{SECRET}"},
        ["webhook_app_api_key", "the secret key"],
    ),
    "API key that nobody put in": (
        "webhook_app",
        {"webhook_app_api_key": "sk_live_CHANGE_ME_NOW"},
        ["webhook_app_api_key"],
    ),
    "DSN that is none": (
        "webhook_app",
        {"webhook_app_sentry_dsn": "CHANGE_ME"},
        ["webhook_app_sentry_dsn", "KEY@HOST"],
    ),
    "public key for tests in production": (
        "sdk_hosting",
        {"molam_environment": "production", "sdk_hosting_public_key": "pk_test_x"},
        ["sdk_hosting_public_key", "live key"],
    ),
    "receiver that is opened for nothing": (
        "webhook_app",
        {"webhook_app_receiver_networks": ["198.18.7.0/24"]},
        ["webhook_app_receiver_networks", "webhook_app_sentry_dsn"],
    ),
    "Sentry that the receiver does not reach": (
        "webhook_app",
        {"webhook_app_sentry_dsn": "https://key@sentry.test/1"},
        ["webhook_app_receiver_networks", "webhook_app_sentry_dsn"],
    ),
    "Sentry that the worker does not reach": (
        "webhook_app",
        {
            "webhook_app_sentry_dsn": "https://key@sentry.test/1",
            "webhook_app_receiver_networks": ["198.18.7.0/24"],
        },
        ["webhook_app_worker_networks", "webhook_app_sentry_dsn"],
    ),
    "password in the URL of the database": (
        "webhook_app",
        DATABASE | {"webhook_app_database_url": f"postgresql://a:{SECRET}@db.shop.test/molam?sslmode=verify-full"},
        ["webhook_app_database_url", "no password", "main.yml"],
    ),
    "database without a word on TLS": (
        "webhook_app",
        DATABASE | {"webhook_app_database_url": "postgresql://db.shop.test/molam"},
        ["webhook_app_database_url", "sslmode=verify-full"],
    ),
    "database that anybody could be": (
        "webhook_app",
        DATABASE | {"webhook_app_database_url": "postgresql://db.shop.test/molam?sslmode=require"},
        ["sslmode in webhook_app_database_url", "verify-full", "production"],
    ),
    "database that anybody could be whose CA is known": (
        "webhook_app",
        DATABASE | {"webhook_app_database_url": "postgresql://db.shop.test/molam?sslmode=verify-ca"},
        ["sslmode in webhook_app_database_url", "verify-full", "production"],
    ),
    "database in no network": (
        "webhook_app",
        DATABASE | {"webhook_app_database_networks": []},
        ["webhook_app_database_networks", "name server"],
    ),
    "network of no database": (
        "webhook_app",
        {"webhook_app_database_networks": ["198.18.7.9/32"]},
        ["webhook_app_database_networks", "none where it is not"],
    ),
    "database for one job alone": (
        "webhook_app",
        DATABASE | {"webhook_app_database_logins": {"receiver": LOGINS["receiver"]}},
        ["webhook_app_database_logins", "receiver, worker and owner", "vault.yml"],
    ),
    "password of the database that nobody put in": (
        "webhook_app",
        DATABASE | {"webhook_app_database_logins": LOGINS | {"worker": {"user": "w_a", "password": "CHANGE_ME"}}},
        ["password in webhook_app_database_logins", "placeholder", "vault.yml"],
    ),
    "user of the database with more in it": (
        "webhook_app",
        DATABASE | {"webhook_app_database_logins": LOGINS | {"worker": {"user": "w; x", "password": PASSWORD}}},
        ["user in webhook_app_database_logins"],
    ),
    "no such CA of the database": (
        "webhook_app",
        DATABASE | {"webhook_app_database_ca": "/no/such.pem"},
        ["webhook_app_database_ca", "/no/such.pem"],
    ),
    "firewall that keeps the worker from the database": (
        "webhook_app",
        DATABASE
        | {
            "nftables_closed_users": [
                {"user": "molam_webhook_worker", "networks": ["198.18.7.9/32"]},
                {"user": "nobody", "networks": []},
            ]
        },
        ["nftables_closed_users", "molam_webhook_worker to fd00:7::9/128", "main.yml"],
    ),
    "SDK that is nowhere": (
        "sdk_hosting",
        {"sdk_hosting_enabled": True},
        ["sdk_hosting_npm_package", "one of the three"],
    ),
    "SDK from two places": (
        "sdk_hosting",
        {**SDK, "sdk_hosting_npm_package": "@molam/checkout@1.0.0"},
        ["sdk_hosting_npm_package", "one of the three", "set are 2"],
    ),
    "no such SDK": ("sdk_hosting", {**SDK, "sdk_hosting_file": "/no/such.js"}, ["sdk_hosting_file", "/no/such.js"]),
    "no such package of the SDK": (
        "sdk_hosting",
        {"sdk_hosting_enabled": True, "sdk_hosting_tarball": "/no/such.tgz"},
        ["sdk_hosting_tarball", "/no/such.tgz"],
    ),
    "SDK of no version": (
        "sdk_hosting",
        {**SDK, "sdk_hosting_version": ""},
        ["sdk_hosting_version", "sdk_hosting_file"],
    ),
    "version beside a package of the SDK": (
        "sdk_hosting",
        {"sdk_hosting_tarball": "/etc/hostname", "sdk_hosting_version": "1.0.0"},
        ["sdk_hosting_version", "states its own"],
    ),
    "newest version of the SDK, whichever it is": (
        "sdk_hosting",
        {"sdk_hosting_npm_package": "@molam/checkout@latest"},
        ["sdk_hosting_npm_package", "exact version"],
    ),
    "demo page without a key": (
        "sdk_hosting",
        {**SDK, "sdk_hosting_demo": True},
        ["sdk_hosting_public_key", "demo page"],
    ),
    "secret key for the demo page": (
        "sdk_hosting",
        {"sdk_hosting_public_key": SECRET},
        ["sdk_hosting_public_key", "everybody would read it"],
    ),
    "public key with more in it": (
        "sdk_hosting",
        {"sdk_hosting_public_key": 'pk_test_x"><script>'},
        ["sdk_hosting_public_key", "begins with pk_test_"],
    ),
    "no such certificate": (
        "nginx",
        {"nginx_tls_certificate": "/no/such.pem", "nginx_tls_certificate_key": "/no/such.key"},
        ["nginx_tls_certificate", "/no/such.pem"],
    ),
    "alias that is none": (
        "nginx",
        {"molam_domain_aliases": ["https://shop.test"]},
        ["molam_domain_aliases", "without scheme"],
    ),
    "alias that is the name": ("nginx", {"molam_domain_aliases": ["webhooks.shop.test"]}, ["molam_domain_aliases"]),
    "everybody for a proxy": (
        "nginx",
        {"nginx_trusted_proxies": ["10.1.0.0/16", "0.0.0.0/0"]},
        ["nginx_trusted_proxies", "/0"],
    ),
    "proxy that is no network": ("nginx", {"nginx_trusted_proxies": ["cdn"]}, ["nginx_trusted_proxies", "CIDR"]),
    "header field that is none": (
        "nginx",
        {"nginx_trusted_proxy_header": "proxy_protocol"},
        ["nginx_trusted_proxy_header"],
    ),
    "policy that ends its quotes": (
        "nginx",
        {"nginx_content_security_policy": "default-src 'none'\"; return 200"},
        ["nginx_content_security_policy"],
    ),
    "header value with a variable": (
        "nginx",
        {"nginx_security_headers": {"X-Frame-Options": "$http_cookie"}},
        ["nginx_security_headers"],
    ),
    "no room for connections": ("nginx", {"nginx_worker_connections": 768}, ["nginx_worker_connections", "1024"]),
    "nothing for strangers": ("nginx", {"nginx_stranger_requests_at_once": 0}, ["nginx_stranger_requests_at_once"]),
    "size without unit": ("postgresql", {"postgresql_shared_buffers": "lots"}, ["postgresql_shared_buffers", "512MB"]),
    "no key for backups": (
        "backup",
        {"backup_key": ""},
        ["backup_key", "vault.yml", "openssl rand", "backup_enabled: false"],
    ),
    "key of the example for backups": ("backup", {"backup_key": "CHANGE_ME_CHANGE_ME_CHANGE_ME"}, ["backup_key"]),
    "key for backups with a second line": ("backup", {"backup_key": "a" * 30 + "\nrepo1-path=/tmp"}, ["backup_key"]),
    "backups kept for no day": ("backup", {"backup_retention_days": 0}, ["backup_retention_days", "1 to 3650"]),
    "backups at no time": ("backup", {"backup_calendar": "02:15\nUnit=x"}, ["backup_calendar", "systemd-analyze"]),
    "archive that waits": (
        "backup",
        {"backup_archive_timeout_seconds": 31},
        ["backup_archive_timeout_seconds", "1 to 30"],
    ),
    "second repository by name": ("backup", {"backup_repository_address": "repo.shop.test"}, ["no name", "main.yml"]),
    "second repository that is not in the inventory": (
        "backup",
        {"backup_repository_address": "198.18.7.8", "groups": {}},
        ["backup_repository wants", "one host in this group", "hosts.yml"],
    ),
    "synchronous copy with no second repository": (
        "backup",
        {"backup_synchronous": True},
        ["backup_synchronous", "backup_repository_address"],
    ),
    "second repository for nobody": (
        "backup_repository",
        {"groups": {"backup_repository": ["host"]}},
        ["backup_repository_networks", "CIDR"],
    ),
    "second repository that keeps nothing": (
        "backup_repository",
        {"backup_repository_removed_days": 0, "groups": {}},
        ["backup_repository_removed_days", "1 to 3650"],
    ),
    "log without unit": ("backup", {"backup_wal_waiting_max": "lots"}, ["backup_wal_waiting_max", "4GB"]),
    "cache without unit": ("valkey", {"valkey_memory": "lots"}, ["valkey_memory", "64MB"]),
    "client of the cache that is no user": ("valkey", {"valkey_clients": ["no user"]}, ["valkey_clients", "users"]),
    "too many connections": (
        "postgresql",
        {"postgresql_max_connections": 300000},
        ["postgresql_max_connections", "from 50 to 1000"],
    ),
}


@pytest.mark.parametrize("role", sorted(path.name for path in ROLES.iterdir()))
def test_good_variables_pass(role: str) -> None:
    assert faults(role, **GOOD) == []


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {
            "webhook_app_database_url": "postgresql://db-1.shop.test,[fd00:7::9]:5433/molam"
            "?sslmode=verify-full&target_session_attrs=read-write"
        },
        {"molam_environment": "demo", "webhook_app_database_url": "postgresql://198.18.7.9/molam?sslmode=disable"},
        {"nftables_closed_users": [{"user": "molam_webhook", "networks": DATABASE["webhook_app_database_networks"]}]},
    ],
)
def test_database_elsewhere_passes(variables: dict[str, Any]) -> None:
    assert faults("webhook_app", **GOOD | DATABASE | variables) == []


@pytest.mark.parametrize(("role", "variables", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_is_told(role: str, variables: dict[str, Any], words: list[str]) -> None:
    told = "\n".join(faults(role, **GOOD | variables))
    assert [word for word in words if word not in told] == []
    assert SECRET not in told
    assert PASSWORD not in told
