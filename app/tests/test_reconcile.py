"""Which acknowledged events the database does not know, by the front door's log."""

import asyncio
import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from molam_webhook import reconcile
from molam_webhook.cli import main
from molam_webhook.reconcile import Reading, Receipt
from stored import store
from support import Postgres, environment, query, run_cli

pytestmark = [pytest.mark.database, pytest.mark.later_schema]

BEGAN = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)


@pytest.fixture
def worker(postgres: Postgres, database: str) -> str:
    """The database's URL as the role that the command line has on a host."""
    return postgres.url(database, "molam_webhook_worker")


def line(event_id: str, seconds: int = 0, *, status: int = 200, **fields: object) -> str:
    """A line of the front door's log, `seconds` after it began."""
    time = (BEGAN + timedelta(seconds=seconds)).isoformat()
    return json.dumps({"time": time, "status": status, "event_id": event_id, "kid": "v1"} | fields) + "\n"


def ask(worker: str, *arguments: str | Path, status: int = 1) -> subprocess.CompletedProcess[str]:
    done = run_cli("events", "reconcile", *map(str, arguments), env=environment(worker))
    assert done.returncode == status, done.stderr
    return done


def test_what_was_acknowledged_and_is_not_there(url: str, worker: str, tmp_path: Path) -> None:
    store(url, "evt_kept")
    # What was done long ago leaves its id.
    query(url, "INSERT INTO event_ids (event_id, body_sha256) VALUES ('evt_pruned', sha256('x'))")
    log = tmp_path / "log"
    log.write_text(
        line("evt_kept")
        + line("evt_pruned", 1)
        + line("", 2, status=401)
        + line("evt_refused", 3, status=503)
        + line("selftest_1", 4, kid="selftest")
        + line("evt_lost", 5)
        + line("evt_lost", 6)
        + line("a%20b%2F%C3%A9", 7, kid="")
        + line("", 8, kid="")
    )
    told = ask(worker, log)
    assert told.stdout.split() == [
        *("received_at", "event_id"),
        *("2026-11-23T10:00:05+00:00", "evt_lost"),
        *("2026-11-23T10:00:07+00:00", "a", "b/é"),
    ]
    assert told.stderr == (
        "5 answers of 200 to the sender's events, from 2026-11-23 10:00:00+00:00 to 2026-11-23 10:00:07+00:00: "
        "2 events are missing.\n"
    )
    assert ask(worker, "--ids", log).stdout == "evt_lost\na b/é\n"
    report = json.loads(ask(worker, "--json", log).stdout)
    assert report == {
        "missing": [
            {"received_at": "2026-11-23T10:00:05+00:00", "event_id": "evt_lost"},
            {"received_at": "2026-11-23T10:00:07+00:00", "event_id": "a b/é"},
        ],
        "receipts": 5,
        "first_received_at": "2026-11-23T10:00:00+00:00",
        "last_received_at": "2026-11-23T10:00:07+00:00",
        "damaged_lines": 0,
        "broken_files": [],
    }


def test_nothing_is_missing(url: str, worker: str, tmp_path: Path) -> None:
    store(url, "evt_kept")
    log, fresh = tmp_path / "log", tmp_path / "fresh"
    log.write_text(line("evt_kept"))
    fresh.touch()
    told = ask(worker, log, fresh, status=0)
    assert (told.stdout, told.stderr.endswith("10:00:00+00:00: 0 events are missing.\n")) == ("", True)
    assert "0 answers of 200 to the sender's events: 0 events" in ask(worker, fresh, status=0).stderr
    assert json.loads(ask(worker, "--json", fresh, status=0).stdout)["missing"] == []


def test_a_span_of_time(worker: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(line(f"evt_{seconds}", seconds) for seconds in range(5)))
    span = ["--since", "2026-11-23T10:00:01", "--until", "2026-11-23T13:00:03+03:00"]
    assert ask(worker, "--ids", *span, log).stdout == "evt_1\nevt_2\n"
    assert "0 events are missing" in ask(worker, "--since", "1s", log, status=0).stderr


def test_plain_and_compressed_files_and_standard_input(worker: str, tmp_path: Path) -> None:
    plain, compressed = tmp_path / "log", tmp_path / "log.1.gz"
    plain.write_text(line("evt_2"))
    # Two of them one after the other are one.
    compressed.write_bytes(gzip.compress(line("evt_0").encode()) + gzip.compress(line("evt_1").encode()))
    assert ask(worker, "--ids", compressed, plain).stdout == "evt_0\nevt_1\nevt_2\n"
    command: list[str | Path] = [sys.executable, "-m", "molam_webhook", "events", "reconcile", "--ids", plain, "-"]
    for sent in (compressed.read_bytes(), gzip.decompress(compressed.read_bytes())):
        piped = subprocess.run(command, env=environment(worker), input=sent, capture_output=True, check=False)
        assert (piped.returncode, piped.stdout) == (1, b"evt_2\nevt_0\nevt_1\n"), piped.stderr


def test_damaged_lines_are_told_and_passed_over(worker: str, tmp_path: Path) -> None:
    damaged = [
        '{"time":"2026-11-23T10:00:00+00:00","sta\n',
        "\0" * 5000 + "\n",
        "{" * 3000 + "\n",
        "x" * (reconcile.LINE_BYTES - 1) + "\n",
        "[]\n",
        line("7").replace('"7"', "7"),
        line("a%00b"),
        line("a" * 256),
        line("evt_1", time="2026-11-23T10:00:00"),
        line("evt_1", time="yesterday"),
        line("evt_1").replace('"status"', '"state"'),
    ]
    log = tmp_path / "log"
    log.write_text(line("evt_0") + "".join(damaged) + line("evt_2"))
    told = ask(worker, "--ids", log)
    assert told.stdout == "evt_0\nevt_2\n"
    assert told.stderr.startswith(f"Damaged lines, passed over: {len(damaged)}.\n")


def test_a_file_that_breaks_off_is_told(worker: str, tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(line(f"evt_{number}", number).encode() for number in range(2000)))
    cut, forged = tmp_path / "cut.gz", tmp_path / "forged.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    forged.write_bytes(whole[:2000] + bytes(100) + whole[2100:])
    report = json.loads(ask(worker, "--json", cut, forged).stdout)
    assert report["broken_files"] == [str(cut), str(forged)]
    assert report["missing"][0]["event_id"] == "evt_0"
    assert 100 < len(report["missing"]) < 1999
    assert f"{cut} breaks off: what comes after cannot be read.\n" in ask(worker, "--ids", cut).stderr


@pytest.mark.parametrize("text", ["Nov 23 10:00:00 host nginx: hello\n", '{"time": "now", "event": "webhook"}\n', "\n"])
def test_another_file_is_an_error(worker: str, tmp_path: Path, text: str) -> None:
    log, other = tmp_path / "log", tmp_path / "other"
    log.write_text(line("evt_0"))
    other.write_text(text)
    told = ask(worker, log, other, status=2)
    assert f"{other} is not the log of the front door" in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Missing argument"),
        (["/nonexistent/log"], "No such file"),
        (["/"], "Is a directory"),
        (["--ids", "--json", "-"], "one of them"),
    ],
)
def test_wrong_usage(arguments: list[str], why: str) -> None:
    done = CliRunner().invoke(main, ["events", "reconcile", *arguments])
    assert (done.exit_code, why in done.stderr) == (2, True), done.stderr


def test_a_long_history_page_by_page(url: str, worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(0, 20, 2):
        store(url, f"evt_{number}")
    monkeypatch.setattr(reconcile, "PAGE", 3)
    receipts = [Receipt(f"evt_{number % 20}", BEGAN + timedelta(seconds=number)) for number in range(50)]
    found = asyncio.run(reconcile.missing(worker, iter(receipts)))
    assert found == [receipts[number] for number in range(1, 20, 2)]


def test_the_earliest_and_the_latest_in_whatever_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(line(f"evt_{seconds}", seconds) for seconds in (3, 1, 2)))
    reading = Reading()
    with log.open("rb") as file:
        assert len(list(reconcile.read([file], None, None, reading))) == 3
    assert (reading.first, reading.last) == (BEGAN + timedelta(seconds=1), BEGAN + timedelta(seconds=3))
