"""A commit is on disk before it is answered."""

from __future__ import annotations

import pytest
from testinfra.host import Host

PSQL = "runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align molam_webhook --command"


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes", "data_checksums"])
def test_durable(host: Host, setting: str) -> None:
    assert host.check_output(f"{PSQL} 'SHOW {setting}'") == "on"


def test_data_is_on_a_disk(host: Host) -> None:
    data = host.check_output(f"{PSQL} 'SHOW data_directory'")
    assert host.check_output(f"stat --file-system --format=%T {data}") not in ("tmpfs", "ramfs")


def test_no_tcp(host: Host) -> None:
    assert host.check_output(f"{PSQL} 'SHOW listen_addresses'") == ""


@pytest.mark.parametrize(
    "index",
    [
        "idx_webhook_deliveries_event_id",
        "idx_webhook_deliveries_created_at",
        "idx_orders_payment_intent_id",
        "idx_orders_status",
    ],
)
def test_guides_indexes(host: Host, index: str) -> None:
    assert host.check_output(f"{PSQL} \"SELECT count(*) FROM pg_indexes WHERE indexname = '{index}'\"") == "1"


def test_migrations_are_recorded(host: Host) -> None:
    assert host.check_output(f"{PSQL} 'SELECT count(*) FROM alembic_version'") == "1"


def test_encoding_does_not_depend_on_the_hosts_locale(host: Host) -> None:
    query = "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = current_database()"
    assert host.check_output(f'{PSQL} "{query}"') == "UTF8|C.UTF-8"
