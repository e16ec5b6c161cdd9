"""What nginx's files say for each Debian release and for the variables that matter."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from molam_webhook.http import REQUEST_SECONDS

from .render import render

# Debian keeps it where only root looks.
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")


def site(debian: int = 13, **variables: object) -> str:
    """Return the site's text."""
    return render("nginx", "site.conf.j2", debian=debian, **variables)


def servers(text: str) -> list[str]:
    """Return the three servers: for other names, for HTTP, for HTTPS."""
    return text.split("\nserver {\n")[1:]


def entries(text: str, block: str) -> list[tuple[str, str]]:
    """Return the pairs in a block such as a geo or a map."""
    found = re.search(rf"^{re.escape(block)} \{{\n(.*?)^\}}", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return re.findall(r"^ +(.+) (\S+);$", found[1], re.MULTILINE)


def test_http2_as_each_nginx_spells_it() -> None:
    assert "http2 on;" in site(13)
    old = site(12)
    assert "http2 on;" not in old
    assert "listen 443 ssl http2;" in old


def test_post_quantum_key_exchange_where_openssl_has_it() -> None:
    # The default server's counts for all names.
    assert site(13).count("ssl_ecdh_curve X25519MLKEM768:X25519:prime256v1:secp384r1;") == 2
    assert site(12).count("ssl_ecdh_curve X25519:prime256v1:secp384r1;") == 2


def test_tls_profiles() -> None:
    intermediate, modern = site(), site(nginx_tls_profile="modern")
    assert intermediate.count("ssl_protocols TLSv1.2 TLSv1.3;") == 2
    assert modern.count("ssl_protocols TLSv1.3;") == 2
    assert "ssl_ciphers" in intermediate
    assert "ssl_ciphers" not in modern
    for text in (intermediate, modern):
        assert text.count("ssl_session_tickets off;") == 2
        assert "ssl_stapling" not in text


def test_known_networks_are_no_strangers() -> None:
    text = site(
        molam_administrator_networks=["198.18.1.0/24", "fd00::/64"],
        molam_sender_networks=["198.18.2.0/24", "198.18.1.0/24"],
    )
    zeros = ["127.0.0.0/8", "::1/128", "198.18.1.0/24", "fd00::/64", "198.18.2.0/24"]
    assert entries(text, "geo $molam_stranger") == [("default", "1"), *((zero, "0") for zero in zeros)]


def test_known_sender_leaves_strangers_limited_everywhere() -> None:
    text = site(molam_sender_networks=["198.18.2.0/24"])
    assert entries(text, "map $molam_stranger $molam_limited") == [("1", "$molam_network"), ("default", '""')]
    https = servers(text)[2]
    # For the whole server; a limit in one of the places would take its place there.
    assert len(re.findall(r"^    limit_(?:req|conn) ", https, re.MULTILINE)) == 2
    assert re.findall(r"^ {5,}limit_", https, re.MULTILINE) == []


def test_unknown_sender_is_not_limited_below_a_whole_workers_half() -> None:
    text = site(molam_sender_networks=[], nginx_webhook_path="/a.b/hook", nginx_worker_connections=3000)
    assert entries(text, 'map "$molam_stranger $molam_path" $molam_limited') == [
        (r'"~^1 /a\.b/hook$"', '""'),
        ('"~^1 "', "$molam_network"),
        ("default", '""'),
    ]
    webhook = re.search(r"location = /a\.b/hook \{\n(.*?)^    \}", text, re.DOTALL | re.MULTILINE)
    assert webhook is not None
    assert re.findall(r"limit_\w+ .+;", webhook[1]) == ["limit_conn molam_senders_at_once 1500;"]


def test_redirect_leads_to_the_public_port() -> None:
    assert "return 301 https://$host$request_uri;" in site()
    assert "return 301 https://$host:8443$request_uri;" in site(nginx_public_https_port=8443)


def test_aliases_are_served_as_the_name_is() -> None:
    text = site(molam_domain_aliases=["pay.shop.test", "hooks.shop.test"])
    assert text.count("server_name webhooks.shop.test pay.shop.test hooks.shop.test;") == 2


@pytest.mark.parametrize("enabled", [True, False])
def test_challenges_are_answered_where_certbot_is(enabled: bool) -> None:
    others, http, https = servers(site(certbot_enabled=enabled))
    challenge = "location ^~ /.well-known/acme-challenge/ {"
    assert [challenge in server for server in (others, http, https)] == [False, enabled, False]


def test_nobody_is_believed_who_calls_unless_named() -> None:
    assert "real_ip" not in site()
    text = site(nginx_trusted_proxies=["198.18.3.0/24", "fd00:3::/64"], nginx_trusted_proxy_header="X-Caller")
    for server in servers(text):
        assert re.findall(r"set_real_ip_from (.+);", server) == ["198.18.3.0/24", "fd00:3::/64"]
        assert "real_ip_header X-Caller;" in server
        assert "real_ip_recursive on;" in server


def test_cdn_brings_its_networks_and_its_header() -> None:
    text = site(nginx_cdn="cloudflare", nginx_trusted_proxies=["198.18.3.0/24"])
    found = re.findall(r"set_real_ip_from (.+);", servers(text)[2])
    assert {"198.18.3.0/24", "173.245.48.0/20", "2606:4700::/32"} <= set(found)
    assert "real_ip_header CF-Connecting-IP;" in text


def test_what_a_caller_says_of_itself_goes_no_further() -> None:
    fields = dict(re.findall(r"proxy_set_header (\S+) (.+);", site()))
    assert fields["X-Forwarded-For"] == fields["X-Real-IP"] == "$remote_addr"
    assert fields["Forwarded"] == '""'


def test_policies_are_one_line_each_and_the_guides_for_pages() -> None:
    found = dict(re.findall(r'set \$molam_(\w+) "(.+)";', site()))
    assert found["content_security_policy"].startswith("default-src 'none';")
    pages = found["pages_content_security_policy"].split("; ")
    assert {
        "script-src 'self' https://cdn.molam.com",
        "connect-src 'self' https://api.molam.com https://api.sandbox.molam.com",
        "frame-src https://checkout.molam.com https://checkout.sandbox.molam.com",
    } <= set(pages)


def test_caching_and_origins_are_a_places_own() -> None:
    """Empty for all, and so not sent, unless a place sets them; the server's other fields stay."""
    https = servers(site())[2]
    for field, variable in (("Cache-Control", "cache_control"), ("Access-Control-Allow-Origin", "allow_origin")):
        assert f'    set $molam_{variable} "";\n' in https
        assert f"    add_header {field} $molam_{variable} always;\n" in https


@pytest.mark.parametrize("enabled", [True, False])
def test_methods_are_told_as_they_are(enabled: bool) -> None:
    text = site(sdk_hosting_enabled=enabled)
    assert '"~^405  " POST;' in text
    assert ('"~^405  /(sdk|demo)/" "GET, HEAD";' in text) == enabled


def test_post_may_be_retried_and_an_answer_comes_in_time() -> None:
    """The contract: within 8 s in all, the proxy's retries included."""
    text = site()
    assert text.count("unix:/run/molam-webhook/current.sock max_fails=0") == 2
    assert re.search(r"proxy_next_upstream [^;]*\bnon_idempotent\b", text)
    # A read that timed out is not tried again: the longest way is one that ends while it may be asked again, and then a
    # full wait.
    assert not re.search(r"proxy_next_upstream [^;]*\btimeout\b", text)
    found = re.findall(r"proxy_(connect|read|next_upstream)_timeout (\d+)s;", text)
    seconds = {name: int(value) for name, value in found}
    assert seconds["next_upstream"] + seconds["connect"] + seconds["read"] <= 8
    assert seconds["read"] > REQUEST_SECONDS


def test_each_worker_may_open_a_file_for_each_connection() -> None:
    text = render("nginx", "main.conf.j2", nginx_worker_connections=2000)
    assert "worker_connections 2000;" in text
    assert "worker_rlimit_nofile 4000;" in text


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"molam_sender_networks": ["198.18.2.0/24", "fd00:2::/64"], "nginx_tls_profile": "modern"},
        {"nginx_cdn": "cloudflare", "certbot_enabled": True, "molam_domain_aliases": ["pay.shop.test"]},
        {"nginx_webhook_path": "/a.b/c-d~e", "nginx_security_headers": {}, "nginx_public_https_port": 8443},
    ],
)
def test_nginx_takes_it(tmp_path: Path, variables: dict[str, Any]) -> None:
    assert NGINX is not None
    version = re.search(
        r"nginx/(\d+)\.(\d+)", subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    )
    assert version is not None
    text = site(13 if (int(version[1]), int(version[2])) >= (1, 26) else 12, **variables)
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj /CN=x"
    subprocess.run(
        [*new.split(), "-keyout", "privkey.pem", "-out", "fullchain.pem"], cwd=tmp_path, capture_output=True, check=True
    )
    # Ports and places that anybody may use.
    text = text.replace("/etc/molam-tls/", f"{tmp_path}/").replace("/var/log/nginx/", f"{tmp_path}/")
    text = re.sub(r"(listen (?:\[::\]:)?)(80|443)\b", r"\g<1>18\2", text)
    (tmp_path / "site.conf").write_text(text)
    frame = tmp_path / "nginx.conf"
    frame.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ include {tmp_path}/site.conf; }}")
    answer = subprocess.run([NGINX, "-t", "-c", frame], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "[warn]" not in answer.stderr
