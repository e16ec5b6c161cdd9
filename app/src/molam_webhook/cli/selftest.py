"""Proof that a running receiver works: `selftest`."""

from pathlib import Path

import click

from molam_webhook.cli.output import as_json_option, fail, load, print_json, print_table
from molam_webhook.config import ReceiverSettings


@click.command()
@click.option("--uds", required=True, type=click.Path(path_type=Path), help="Unix socket that the receiver serves on.")
@as_json_option
def selftest(uds: Path, as_json: bool) -> None:
    """Send signed self-test events to the receiver: one, the same again, a forged one. Exits 1 unless all is right.

    They are signed with the key `selftest` and stored in a table of their own that no handler reads. Each other key
    signs what is no event: taken as signed where the key is active, refused where it is revoked.
    """
    settings = load(ReceiverSettings)
    from molam_webhook.selftest import run

    try:
        proofs = run(settings, uds)
    except ValueError as error:
        fail(str(error))
    rows = [
        {
            "proof": proof.name,
            "wanted": proof.wanted,
            "answer": f"{proof.report.status or 'none:'} {proof.report.answer}",
            "passed": "yes" if proof.passed else "NO",
        }
        for proof in proofs
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(rows)
    if not all(proof.passed for proof in proofs):
        raise SystemExit(1)
