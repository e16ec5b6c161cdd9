"""The keys that deliveries may be signed with: `keys list`."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import click

from molam_webhook.cli.output import as_json_option, load, print_json, print_table
from molam_webhook.config import ReceiverSettings
from molam_webhook.keyring import SELFTEST_KID


@click.group()
def keys() -> None:
    """Look at the keys that deliveries may be signed with."""


@keys.command("list")
@as_json_option
def list_keys(as_json: bool) -> None:
    """Print each key's id, its state, its age, what it is for and where it comes from; never a secret.

    A key that is active verifies; one that is revoked refuses what it signed (401). The age is that of the secret on
    this host, or as the inventory has it; "-" where nobody wrote it down.
    """
    settings = load(ReceiverSettings)
    sources = {name: source for name, _, source in settings.describe()}
    dates = _dates(settings.molam_secret_dates)
    rows = []
    for name, key in settings.keyring.keys.items():
        kid = name.decode()
        setting = _setting(settings, kid)
        created = dates.get(f"keyring/{kid}")
        rows.append(
            {
                "kid": kid,
                "state": "active" if key.active else "revoked",
                "created": created,
                "age_days": (datetime.now(UTC).date() - created).days if created else None,
                "for": _use(settings, kid),
                "source": f"{sources[setting]} {setting}",
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


def _dates(path: Path | None) -> dict[str, date]:
    """Since when each secret is in use, as the host wrote it down; nothing where it did not."""
    if path is None or not path.exists():
        return {}
    written = json.loads(path.read_text(encoding="utf-8"))
    return {name: date.fromisoformat(entry["created"]) for name, entry in written.items()}


def _setting(settings: ReceiverSettings, kid: str) -> str:
    if kid == SELFTEST_KID and settings.selftest_secret is not None:
        return "SELFTEST_SECRET"
    return "KEYRING" if settings.molam_webhook_secret is None else "MOLAM_WEBHOOK_SECRET"


def _use(settings: ReceiverSettings, kid: str) -> str:
    if kid == SELFTEST_KID:
        return "self-tests"
    return "signatures, also those that name no key" if kid == settings.molam_webhook_default_kid else "signatures"
