"""A host proves that it serves, and what is wrong with it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.pairs import make

from .conftest import Site
from .playbooks import play

CERTIFICATE, KEY = "/etc/molam-tls/fullchain.pem", "/etc/molam-tls/privkey.pem"


def results(said: str) -> dict[str, str]:
    """Return the table's rows: what was tried, and how that went."""
    return dict(re.findall(r"^ +(\S.*?) {2,}(ok|FAILED) ", said, re.MULTILINE))


def wrong(said: str) -> set[str]:
    """Return what the table says is wrong."""
    return {name for name, result in results(said).items() if result == "FAILED"}


def test_a_host_that_serves_passes_and_keeps_nothing(request: pytest.FixtureRequest, host: Host, site: Site) -> None:
    # How long it takes is the machine's that runs the tests.
    answer = play(request, host, "playbooks/smoke.yml", "--extra-vars=smoke_events=5 smoke_latency_ms=60000")
    assert answer.returncode == 0, answer.stdout
    assert list(results(answer.stdout)) == [
        "receiver and worker are ready",
        "an event is stored",
        "the same event again is known",
        "a forged event is refused",
        f"a signature of {site.kid} holds",
        "5 more are stored",
        "answers come in time",
        "its certificate is the name's",
        "it answers over TLS",
        "/health says that it is healthy",
        "HTTP leads to HTTPS",
    ]
    assert wrong(answer.stdout) == set()
    assert re.search(r"name's +ok +\d+ days left, signed by CN=", answer.stdout)
    assert re.search(r"over TLS +ok +TLSv1\.3, TLS_", answer.stdout)
    assert "changed=0" in answer.stdout
    kept = "SELECT count(*) FROM webhook_deliveries WHERE event_id LIKE 'selftest%'"
    kept += " UNION ALL SELECT count(*) FROM event_ids WHERE event_id LIKE 'selftest%'"
    kept += " UNION ALL SELECT count(*) FROM orders WHERE last_event_id LIKE 'selftest%'"
    asked = f'runuser -u postgres -- psql --no-psqlrc -Atc "{kept}" molam_webhook'
    assert host.check_output(asked).split() == ["0", "0", "0"]


@pytest.mark.intrusive
def test_a_worker_that_is_down_and_a_slow_answer_are_told(
    request: pytest.FixtureRequest, host: Host, slot: str
) -> None:
    worker = f"molam-webhook-worker@{slot}"
    host.check_output(f"systemctl stop {worker}")
    try:
        answer = play(request, host, "playbooks/smoke.yml", "--extra-vars=smoke_latency_ms=0 smoke_events=2")
    finally:
        host.check_output(f"systemctl start {worker}")
    assert answer.returncode == 2
    assert wrong(answer.stdout) == {"receiver and worker are ready", "answers come in time"}
    message = " ".join(answer.stdout.split())
    assert "molam_worker_ready is 0, below its limit of 1" in message
    assert "p99 may be 0 ms on the host: systemd-cgtop" in message


@pytest.fixture
def _another_name(host: Host) -> Iterator[None]:
    """Let nginx show a certificate of another name, signed by itself."""
    pair = make("another.test.localhost")
    host.check_output(f"cp -a {CERTIFICATE} /run/kept.pem && cp -a {KEY} /run/kept.key")
    host.check_output(f"cat >{CERTIFICATE} <<'END'\n{pair.pem}END\ncat >{KEY} <<'END'\n{pair.key_pem()}END")
    host.check_output("systemctl reload nginx")
    yield
    host.check_output(f"mv /run/kept.pem {CERTIFICATE} && mv /run/kept.key {KEY} && systemctl reload nginx")


@pytest.mark.intrusive
@pytest.mark.usefixtures("_another_name")
def test_another_name_and_a_receiver_that_is_down_are_told(
    request: pytest.FixtureRequest, host: Host, slot: str
) -> None:
    receiver = f"molam-webhook@{slot}"
    host.check_output(f"systemctl stop {receiver}")
    try:
        answer = play(request, host, "playbooks/smoke.yml")
    finally:
        host.check_output(f"systemctl start {receiver}")
    assert answer.returncode == 2
    assert set(results(answer.stdout)) - wrong(answer.stdout) == {
        "it answers over TLS",
        "HTTP leads to HTTPS",
    }
    message = " ".join(answer.stdout.split())
    assert "molam_receiver_ready is 0, below its limit of 1" in message
    assert "an event is stored: none: [SSL: CERTIFICATE_VERIFY_FAILED]" in message
    assert "its certificate is the name's: self-signed certificate; 29 days left, signed by CN=another.test" in message
    assert '/health says that it is healthy: 503 {"error":"unavailable"}' in message
    assert "docs/certificates.md" in message


@pytest.mark.intrusive
def test_a_load_is_counted(request: pytest.FixtureRequest, host: Host, site: Site) -> None:
    options = ["--extra-vars=load_test_events=60 load_test_concurrency=8", "-vvv", "--diff"]
    answer = play(request, host, "playbooks/load_test.yml", *options)
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert re.search(r"\n +200 +accepted +60 ", answer.stdout)
    assert re.search(r"\n +stored +60\n +acted on +60\n", answer.stdout)
    assert re.search(r"molam-webhook-worker@[ab]\.service +\d+\.\d MiB", answer.stdout)
    assert site.secret not in answer.stdout + answer.stderr
    (prefix,) = set(re.findall(r"events count --prefix (evt_load_test_\w+_)$", answer.stdout, re.MULTILINE))
    paid = "SELECT count(*) FROM orders WHERE status = 'paid' AND order_id LIKE '" + prefix.replace("evt", "ord") + "%'"
    assert host.check_output(f'runuser -u postgres -- psql --no-psqlrc -Atc "{paid}" molam_webhook') == "60"


@pytest.mark.intrusive
@pytest.mark.debian("13")
def test_a_load_that_is_not_taken_is_told(request: pytest.FixtureRequest, host: Host, site: Site) -> None:
    other = f'{{"webhook_app_keys": [{{"kid": "{site.kid}", "secret": "another_secret_9Wq2", "state": "active"}}]}}'
    answer = play(request, host, "playbooks/load_test.yml", f"--extra-vars={other}", "--extra-vars=load_test_events=3")
    assert answer.returncode == 2
    assert re.search(r"\n +401 +signature_mismatch +3 ", answer.stdout)
    message = " ".join(answer.stdout.split())
    assert "did not take all of them: answers other than 200" in message
    assert "3 events were sent, and 0 are stored" in message


@pytest.mark.intrusive
@pytest.mark.debian("13")
def test_no_load_for_a_production_host_under_another_name(request: pytest.FixtureRequest, host: Host) -> None:
    settings = "/etc/molam-webhook/settings/environment"
    host.check_output(f"sed --in-place=.kept 's/^MOLAM_ENVIRONMENT=.*/MOLAM_ENVIRONMENT=production/' {settings}")
    try:
        answer = play(request, host, "playbooks/load_test.yml")
    finally:
        host.check_output(f"mv {settings}.kept {settings}")
    assert answer.returncode == 2
    message = " ".join(answer.stdout.split())
    assert "was set up as production, though this inventory says demo" in message
    assert "Send them" not in message
