"""The schema and who may do what with it."""

from importlib import import_module

import asyncpg
import pytest
from support import Postgres, environment, query, run_cli

pytestmark = pytest.mark.database

WEB, WORKER = "molam_webhook", "molam_webhook_worker"

INBOX_ROW = (
    "INSERT INTO webhook_deliveries (event_id, event_type, payload, signature, kid) VALUES ('e', 't', '', '', 'v1')"
)
ORDER_ROW = "INSERT INTO orders (payment_intent_id, last_event_id) VALUES ('pi', 'e')"
EVENT_ROW = "INSERT INTO event_ids (event_id, body_sha256) VALUES ('e', sha256(''))"

ALLOWED = [
    (WEB, EVENT_ROW),
    (WEB, INBOX_ROW),
    (WEB, "SELECT * FROM event_ids"),
    (WEB, "INSERT INTO event_conflicts (event_id, body_sha256, payload) VALUES ('e', sha256(''), '')"),
    (WORKER, "SELECT * FROM webhook_deliveries FOR UPDATE SKIP LOCKED"),
    (WORKER, "UPDATE webhook_deliveries SET state = 'done', attempts = 1, processed_at = now(), last_error = ''"),
    (WORKER, "UPDATE webhook_deliveries SET lease = gen_random_uuid(), leased_until = now(), leased_by = 1"),
    (WORKER, "INSERT INTO forwards (delivery_id) SELECT id FROM webhook_deliveries"),
    (WORKER, "UPDATE forwards SET state = 'done', attempts = 1, done_at = now(), lease = NULL, leased_by = NULL"),
    (WORKER, "UPDATE forwards SET next_attempt_at = now(), last_error = NULL"),
    (WORKER, "SELECT prune_deliveries(now() - interval '400 days', 10)"),
    (WORKER, "SELECT * FROM alembic_version"),
    (WORKER, ORDER_ROW),
    (WORKER, "UPDATE orders SET paid_at = now()"),
    (WORKER, "SELECT * FROM event_ids, event_conflicts, selftest_events"),
]

FORBIDDEN = [
    (WEB, "UPDATE webhook_deliveries SET state = 'done'"),
    (WEB, "DELETE FROM webhook_deliveries"),
    (WEB, "TRUNCATE webhook_deliveries"),
    (WEB, "SELECT payload FROM webhook_deliveries"),
    (WEB, "UPDATE event_ids SET body_sha256 = sha256('')"),
    (WEB, "DELETE FROM event_ids"),
    (WEB, "DELETE FROM event_conflicts"),
    (WEB, "SELECT * FROM orders"),
    (WEB, ORDER_ROW),
    (WEB, "CREATE TABLE mine ()"),
    (WEB, "CREATE TEMPORARY TABLE mine ()"),
    (WORKER, "UPDATE webhook_deliveries SET payload = ''"),
    (WORKER, "UPDATE webhook_deliveries SET event_id = 'other'"),
    (WORKER, "DELETE FROM webhook_deliveries"),
    (WEB, "SELECT * FROM forwards"),
    (WEB, "INSERT INTO forwards (delivery_id) VALUES (1)"),
    (WEB, "SELECT prune_deliveries(now() - interval '400 days', 10)"),
    (WORKER, "UPDATE forwards SET delivery_id = 2"),
    (WORKER, "INSERT INTO forwards (delivery_id, state) VALUES (1, 'done')"),
    (WORKER, "DELETE FROM forwards"),
    (WORKER, "DELETE FROM event_ids"),
    (WORKER, INBOX_ROW),
    (WORKER, "DROP TABLE orders"),
]


@pytest.mark.later_schema
def test_roles_can_do_what_they_must(postgres: Postgres, database: str) -> None:
    for role, statement in ALLOWED:
        query(postgres.url(database, role), statement)


@pytest.mark.checklist("APP-2")
def test_roles_can_do_no_more(postgres: Postgres, database: str) -> None:
    for role, statement in FORBIDDEN:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            query(postgres.url(database, role), statement)


@pytest.mark.later_schema
def test_only_what_is_done_sent_and_old_is_removed_and_its_id_stays(postgres: Postgres, database: str) -> None:
    admin, worker = postgres.url(database), postgres.url(database, WORKER)
    insert = (
        "INSERT INTO webhook_deliveries (event_id, event_type, payload, signature, kid, state, created_at)"
        " VALUES ($1, 't', '', '', 'v1', $2, now() - make_interval(days => $3)) RETURNING id"
    )
    known = "INSERT INTO event_ids (event_id, body_sha256) VALUES ($1, sha256(''))"
    for event_id, state, days, forwarded in (
        ("old", "done", 500, "done"),
        ("unsent", "done", 500, "dead"),
        ("young", "done", 300, "done"),
        ("dead", "dead", 500, "done"),
        ("waiting", "pending", 500, "done"),
        ("older", "done", 600, None),
    ):
        query(admin, known, event_id)
        (row,) = query(admin, insert, event_id, state, days)
        if forwarded:
            query(admin, "INSERT INTO forwards (delivery_id, state) VALUES ($1, $2)", row["id"], forwarded)
    prune = "SELECT prune_deliveries(now() - make_interval(days => $1), 1)"
    assert [query(worker, prune, 400)[0][0] for _ in range(3)] == [1, 1, 0]
    left = query(admin, "SELECT event_id FROM webhook_deliveries ORDER BY event_id")
    assert [row[0] for row in left] == ["dead", "unsent", "waiting", "young"]
    assert query(admin, "SELECT count(*) FROM event_ids")[0][0] == 6
    assert query(admin, "SELECT count(*) FROM forwards")[0][0] == 4
    with pytest.raises(asyncpg.InvalidParameterValueError):
        query(worker, prune, 29)


def test_leases_come_to_a_table_in_use_without_rewriting_it(postgres: Postgres) -> None:
    query(postgres.url("postgres"), "DROP DATABASE IF EXISTS used")
    query(postgres.url("postgres"), "CREATE DATABASE used")
    url = postgres.url("used")
    first = import_module("molam_webhook.migrations.versions.0001_inbox")
    for statement in first._STATEMENTS:
        query(url, statement)
    query(url, "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY)")
    query(url, "INSERT INTO alembic_version VALUES ('0001')")
    query(url, INBOX_ROW)
    file = "SELECT pg_relation_filenode('webhook_deliveries')"
    before = query(url, file)
    done = run_cli("migrate", env=environment(url))
    assert done.returncode == 0, done.stderr
    assert query(url, file) == before
    # What the release before did goes on working.
    query(url, INBOX_ROW.replace("'e'", "'f'"))
    query(url, "UPDATE webhook_deliveries SET state = 'done', attempts = attempts + 1, processed_at = now()")


def test_strangers_cannot_connect(postgres: Postgres, database: str) -> None:
    query(postgres.url("postgres"), "DROP ROLE IF EXISTS stranger")
    query(postgres.url("postgres"), "CREATE ROLE stranger LOGIN")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        query(postgres.url(database, "stranger"), "SELECT 1")


def test_grants_take_back_what_was_given_by_hand(postgres: Postgres, database: str) -> None:
    query(postgres.url(database), f"GRANT ALL ON webhook_deliveries TO {WEB}")
    done = run_cli("migrate", env=environment(postgres.url(database, "molam_webhook_owner")))
    assert done.returncode == 0
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        query(postgres.url(database, WEB), "DELETE FROM webhook_deliveries")


def test_migrating_says_from_where_to_where_and_is_safe_to_repeat(postgres: Postgres) -> None:
    query(postgres.url("postgres"), "DROP DATABASE IF EXISTS fresh")
    query(postgres.url("postgres"), "CREATE DATABASE fresh OWNER molam_webhook_owner")
    env = environment(postgres.url("fresh", "molam_webhook_owner"))
    # It needs no keys.
    del env["MOLAM_WEBHOOK_SECRET"]
    first, second = run_cli("migrate", env=env), run_cli("migrate", env=env)
    assert (first.returncode, first.stdout) == (0, "empty -> 0003\n")
    assert (second.returncode, second.stdout) == (0, "0003 -> 0003\n")


def test_the_guides_indexes_are_there(url: str) -> None:
    names = {row[0] for row in query(url, "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")}
    assert {
        "idx_webhook_deliveries_event_id",
        "idx_webhook_deliveries_created_at",
        "idx_orders_payment_intent_id",
        "idx_orders_status",
    } <= names


def test_a_migration_that_cannot_run_is_one_sentence(postgres: Postgres) -> None:
    failed = run_cli("migrate", env=environment(postgres.url("nowhere")))
    assert failed.returncode == 1
    assert failed.stderr.startswith("The migration failed and changed nothing: ")
    assert "Traceback" not in failed.stderr
