"""Proof that a running receiver works: `selftest`."""

import ssl
from pathlib import Path

import click

from molam_webhook.cli.options import Url, cacert_option, connect_to_option
from molam_webhook.cli.output import as_json_option, fail, load, print_json, print_table
from molam_webhook.config import ReceiverSettings


@click.command()
@click.option("--uds", type=click.Path(path_type=Path), help="Unix socket that the receiver serves on.")
@click.option("--url", type=Url(), help="Or the endpoint, to go in by the front door.")
@connect_to_option
@cacert_option
@click.option("--count", default=0, type=click.IntRange(0, 1000), help="Send so many more events, and time them.")
@as_json_option
def selftest(
    *,
    uds: Path | None,
    url: str | None,
    connect_to: str | None,
    trust: ssl.SSLContext | None,
    count: int,
    as_json: bool,
) -> None:
    """Send signed self-test events to the receiver: one, the same again, a forged one. Exits 1 unless all is right.

    They are signed with the key `selftest` and stored in a table of their own that no handler reads. Each other key
    signs what is no event: taken as signed where the key is active, refused where it is revoked. With --url the
    certificate has to be the name's; the key is taken from the networks that the receiver was told.
    """
    if (uds is None) == (url is None):
        raise click.UsageError("give --uds or --url, one of them")
    settings = load(ReceiverSettings)
    from molam_webhook.selftest import Door, run

    here = Door(f"http://localhost{settings.molam_webhook_path}", f"unix:{uds}")
    try:
        result = run(settings, here if url is None else Door(url, connect_to, trust), count)
    except ValueError as error:
        fail(str(error))
    rows = [
        {
            "proof": proof.name,
            "wanted": proof.wanted,
            "answer": f"{proof.report.status or 'none:'} {proof.report.answer}",
            "passed": proof.passed,
        }
        for proof in result.proofs
    ]
    if as_json:
        print_json({"proofs": rows, "latency": result.latency})
    else:
        print_table([row | {"passed": "yes" if row["passed"] else "NO"} for row in rows])
        if result.latency is not None:
            p50, p99, slowest = result.latency.values()
            click.echo(f"\n{count} timed: p50 {p50} ms, p99 {p99} ms, max {slowest} ms.")
    if not result.passed:
        raise SystemExit(1)
