"""What each role refuses in its variables, and says of them, before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest

from .render import faults

SECRET = "whsec_q8Vw3LmZr5Kt1Yh7Nd0b"  # noqa: S105  made up for this test
GOOD: dict[str, Any] = {
    "molam_administrator_networks": ["198.18.7.0/24", "fd00:7::/64"],
    "webhook_app_keys": [{"kid": "v1", "secret": SECRET, "state": "active"}],
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
    "cache without unit": ("valkey", {"valkey_memory": "lots"}, ["valkey_memory", "64MB"]),
    "client of the cache that is no user": ("valkey", {"valkey_clients": ["no user"]}, ["valkey_clients", "users"]),
    "too many connections": (
        "postgresql",
        {"postgresql_max_connections": 300000},
        ["postgresql_max_connections", "from 50 to 1000"],
    ),
}


@pytest.mark.parametrize("role", ["base", "certbot", "monitoring", "nginx", "postgresql", "valkey", "webhook_app"])
def test_good_variables_pass(role: str) -> None:
    assert faults(role, **GOOD) == []


@pytest.mark.parametrize(("role", "variables", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_is_told(role: str, variables: dict[str, Any], words: list[str]) -> None:
    told = "\n".join(faults(role, **GOOD | variables))
    assert [word for word in words if word not in told] == []
    assert SECRET not in told
