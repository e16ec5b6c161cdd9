"""`send`: deliveries of our own making, and the event that then is stored."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import PATH, SECRET, Service, count, environment, query, run_cli

Serve = Callable[..., Service]

NOWHERE = environment("postgresql:///nowhere?host=/nonexistent")

database = pytest.mark.database


def address(service: Service) -> list[str]:
    return ["--url", f"http://pay.test{PATH}", "--connect-to", f"unix:{service.socket}"]


def test_sending_to_nobody_is_one_sentence() -> None:
    failed = run_cli("send", "--url", "http://127.0.0.1:1/molam/webhook", env=NOWHERE)
    assert failed.returncode == 1
    assert failed.stderr.startswith("No answer from 127.0.0.1:1: ")
    assert len(failed.stderr.splitlines()) == 1


def test_many_to_nobody_are_counted() -> None:
    options = ["--url", "http://127.0.0.1:1/", "--count", "3", "--concurrency", "2", "--json"]
    failed = run_cli("send", *options, env=NOWHERE)
    assert failed.returncode == 1
    (answer,) = json.loads(failed.stdout)["answers"]
    assert (answer["answer"], answer["count"]) == (None, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--url", "ftp://x"],
        ["--url", "http://x", "--connect-to", "x"],
        ["--url", "http://x", "--amount", "-1"],
        ["--url", "http://x", "--count", "2", "--id", "evt_1"],
        ["--url", "http://x", "--at", "noon"],
    ],
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
    to = address(serve())
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
    assert shown.stdout.endswith("\nno forward\n\nno order\n")
    found = json.loads(run_cli("events", "show", "evt_1", "--json", env=env).stdout)
    assert (found["state"], found["forward"], found["order"]) == ("pending", None, None)
    assert json.loads(found["payload"])["data"]["metadata"] == {"order_id": "ord_7"}
    assert run_cli("events", "show", "evt_none", env=env).returncode == 1


@database
def test_what_is_refused_fails(serve: Serve, url: str) -> None:
    to = address(serve())
    for option, outcome in ((["--forge"], "signature_mismatch"), (["--at", "10m"], "timestamp_out_of_window")):
        refused = run_cli("send", *to, *option, "--json", env=NOWHERE)
        assert refused.returncode == 1
        report = json.loads(refused.stdout)
        assert (report["status"], json.loads(report["answer"])) == (401, {"error": outcome})
    assert count(url, "event_ids") == 0


@database
def test_a_burst_is_counted_by_answer(serve: Serve, url: str) -> None:
    to = address(serve())
    burst = ["--count", "20", "--concurrency", "4", "--duplicate"]
    sent = run_cli("send", *to, *burst, "--json", env=NOWHERE)
    assert sent.returncode == 0, sent.stderr
    summary = json.loads(sent.stdout)
    answers = {answer["outcome"]: (answer["answer"], answer["count"]) for answer in summary["answers"]}
    assert answers == {"accepted": (200, 20), "duplicate": (200, 20)}
    assert summary["sent"] == 40
    assert count(url, "webhook_deliveries") == 20
    named = json.loads(run_cli("send", *to, "--prefix", "load_test_7_", "--json", env=NOWHERE).stdout)
    assert named["event_id"].startswith("evt_load_test_7_")
    (body,) = query(url, "SELECT payload FROM webhook_deliveries WHERE event_id = $1", named["event_id"])
    data = json.loads(body[0])["data"]
    assert data["id"].startswith("pi_load_test_7_")
    assert data["metadata"]["order_id"].startswith("ord_load_test_7_")
    table = run_cli("send", *to, "--count", "2", "--forge", env=NOWHERE)
    assert table.returncode == 1
    assert table.stdout.splitlines()[1].split()[:3] == ["401", "signature_mismatch", "2"]
    twice = run_cli("send", *to, "--duplicate", env=NOWHERE)
    assert twice.stdout.index("accepted") < twice.stdout.index("duplicate")
