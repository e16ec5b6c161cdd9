"""The keys that deliveries may be signed with: `keys list`."""

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
    """Print each key's id, its state, what it is for and where it comes from; never a secret.

    A key that is active verifies; one that is revoked refuses what it signed (401).
    """
    settings = load(ReceiverSettings)
    sources = {name: source for name, _, source in settings.describe()}
    rows = []
    for name, key in settings.keyring.keys.items():
        kid = name.decode()
        setting = _setting(settings, kid)
        rows.append(
            {
                "kid": kid,
                "state": "active" if key.active else "revoked",
                "for": _use(settings, kid),
                "source": f"{sources[setting]} {setting}",
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


def _setting(settings: ReceiverSettings, kid: str) -> str:
    if kid == SELFTEST_KID and settings.selftest_secret is not None:
        return "SELFTEST_SECRET"
    return "KEYRING" if settings.molam_webhook_secret is None else "MOLAM_WEBHOOK_SECRET"


def _use(settings: ReceiverSettings, kid: str) -> str:
    if kid == SELFTEST_KID:
        return "self-tests"
    return "signatures, also those that name no key" if kid == settings.molam_webhook_default_kid else "signatures"
