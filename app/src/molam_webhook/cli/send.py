"""Deliveries of our own making: `send`."""

import os
import secrets
import ssl
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import orjson

from molam_webhook.cli.options import Time, Url, cacert_option, connect_to_option
from molam_webhook.cli.output import as_json_option, fail, print_json, print_rows, print_table

if TYPE_CHECKING:
    from molam_webhook.send import Report


@click.command()
@click.option("--url", required=True, type=Url(), help="The endpoint, such as https://pay.example.com/molam/webhook.")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File holding the secret; otherwise MOLAM_WEBHOOK_SECRET is used.",
)
@click.option("--kid", help="Key id to name; without it the header names none.")
@click.option("--type", "event_type", default="payment.succeeded", show_default=True, help="Event type.")
@click.option("--id", "event_id", help="Event id.  [default: a new one]")
@click.option(
    "--prefix", default="", metavar="TEXT", help="Begin new ids with it, as in evt_TEXT…, to tell them apart later."
)
@click.option("--payment-intent", help="Payment id.  [default: a new one]")
@click.option("--order-id", help="Order id.  [default: a new one]")
@click.option("--amount", default=5000, show_default=True, type=click.IntRange(0), help="In minor units.")
@click.option("--currency", default="XOF", show_default=True, help="Currency code.")
@cacert_option
@connect_to_option
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="Send so many new events.")
@click.option(
    "--concurrency", default=1, show_default=True, type=click.IntRange(1, 1000), help="So many of them at once."
)
@click.option("--duplicate", is_flag=True, help="Send each event twice; the second is answered as a duplicate.")
@click.option("--forge", is_flag=True, help="Send a wrong MAC, to see it refused.")
@click.option("--at", type=Time(), help="Sign as of another time: 2026-01-31T10:00 (UTC), or 10m for ten minutes ago.")
@as_json_option
def send(
    *,
    url: str,
    secret_file: Path | None,
    kid: str | None,
    event_type: str,
    event_id: str | None,
    prefix: str,
    payment_intent: str | None,
    order_id: str | None,
    amount: int,
    currency: str,
    trust: ssl.SSLContext | None,
    connect_to: str | None,
    count: int,
    concurrency: int,
    duplicate: bool,
    forge: bool,
    at: datetime | None,
    as_json: bool,
) -> None:
    """Send signed events, as Molam would, and report the answers. Exits 0 only when each is 2xx.

    One event unless --count says more: then the answers are counted, with how long they took (ms).
    """
    from molam_webhook.send import Sender, make_event
    from molam_webhook.send import send as run

    if event_id is not None and count > 1:
        raise click.UsageError("--id is for one event, not for --count")

    def events() -> Iterator[dict[str, Any]]:
        for _ in range(count):
            new = f"{prefix}{uuid.uuid4().hex}"
            yield make_event(
                event_type,
                event_id or f"evt_{new}",
                payment_intent=payment_intent or f"pi_{new}",
                order_id=order_id or f"ord_{new}",
                amount=amount,
                currency=currency,
            )

    sender = Sender(
        url=url,
        secret=_sender_secret(secret_file, forge=forge),
        kid=kid,
        trust=trust,
        connect_to=connect_to,
        forge=forge,
        at=at,
        times=2 if duplicate else 1,
    )
    started = time.perf_counter()
    reports = run(sender, events(), concurrency)
    seconds = time.perf_counter() - started
    if count > 1:
        _print_summary(reports, seconds, as_json=as_json)
    elif reports[0].status is None:
        fail(f"No answer from {connect_to or urlsplit(url).netloc}: {reports[0].answer}.")
    elif as_json:
        print_json([asdict(report) for report in reports] if duplicate else asdict(reports[0]))
    else:
        for report in reports:
            _print_report(report, forge=forge)
    if not all(report.status is not None and 200 <= report.status < 300 for report in reports):
        raise SystemExit(1)


def _print_report(report: "Report", *, forge: bool) -> None:
    print_rows(
        {
            "sent": f"{report.event_type} {report.event_id}" + (" (forged)" if forge else ""),
            "to": report.url,
            "kid": report.kid or "none named",
            "answer": report.status,
            "body": report.answer,
            "latency": f"{report.latency_ms} ms",
        }
    )


def _print_summary(reports: Sequence["Report"], seconds: float, *, as_json: bool) -> None:
    from molam_webhook.send import spread

    groups: dict[tuple[int | None, str], list[Report]] = {}
    for report in reports:
        groups.setdefault((report.status, _word(report)), []).append(report)
    answers = [
        {"answer": status, "outcome": word, "count": len(group)} | spread(group)
        for (status, word), group in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
    total = {"sent": len(reports), "seconds": round(seconds, 2), "per_second": round(len(reports) / seconds)}
    if as_json:
        print_json(total | {"answers": answers})
    else:
        print_table(answers)
        click.echo(f"\n{total['sent']} sent in {total['seconds']} s: {total['per_second']} a second.")


def _word(report: "Report") -> str:
    """What the answer's body says in one word, or why there is none."""
    try:
        body = orjson.loads(report.answer)
        return str(body.get("status") or body.get("error"))
    except (orjson.JSONDecodeError, AttributeError):
        return report.answer[:60] if report.status is None else "-"


def _sender_secret(secret_file: Path | None, *, forge: bool) -> bytes:
    if secret_file is not None:
        return secret_file.read_bytes().rstrip(b"\r\n")
    if secret := os.environ.get("MOLAM_WEBHOOK_SECRET"):
        return secret.encode()
    if forge:
        return secrets.token_bytes(32)
    raise click.UsageError("set MOLAM_WEBHOOK_SECRET or give --secret-file")
