"""Settings and keys: what is refused, under which name, and what is never shown."""

import json
from pathlib import Path

import pytest
from molam_webhook.config import AllSettings, ConfigError, ReceiverSettings, Settings, WorkerSettings

GOOD = "whsec_9f3kq7Vn2Zr8Lw1T"


def faults(settings: type[Settings] = ReceiverSettings) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings.load()
    return caught.value.faults


def write_keyring(path: Path, monkeypatch: pytest.MonkeyPatch, keyring: object) -> None:
    (path / "keyring").write_text(keyring if isinstance(keyring, str) else json.dumps(keyring))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path))


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", GOOD)
    settings = ReceiverSettings.load()
    assert settings.molam_webhook_path == "/molam/webhook"
    assert (settings.database_pool_min, settings.database_pool_max) == (5, 20)
    assert settings.database_pool_idle_seconds == 30
    assert settings.log_level == "info"
    assert settings.keyring.default_kid == b"v1"
    assert settings.keyring.keys[b"v1"].secret == GOOD.encode()
    assert GOOD not in repr(settings)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "   ",
        "whsec_short",
        "whsec_xxxxx",
        "whsec_xxxxxxxxxxxxxxxx",
        "whsec_your_production_secret",
        "CHANGE_ME_CHANGE_ME",
        "changeme-changeme",
        "a" * 32,
        "whsec_example_9f3kq7Vn2Z",
        "PLACEHOLDER-9f3kq7Vn2Z",
        "whsec_test_9f3kq7Vn2Zr8Lw1T",
    ],
)
def test_a_useless_secret_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", secret)
    found = faults()
    assert found
    assert all(fault.startswith("MOLAM_WEBHOOK_SECRET, kid 'v1': ") for fault in found if "no active" not in fault)
    assert not secret.strip() or secret not in "".join(found)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///molam_webhook?host=/run/postgresql",
        "postgresql://me@/molam_webhook?host=/run/postgresql",
        "postgres://me:hunter2@db:5432/x",
        "postgresql://me:hunter2@[::1]:5432/x",
        "postgresql://me:hunter2@one:5432,two:5433/x?target_session_attrs=read-write",
        "postgresql://me:hun%2Fter2@db/x",
    ],
)
def test_where_a_database_may_be(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert WorkerSettings.load().database_url.get_secret_value() == url


@pytest.mark.parametrize("password", ["hun/ter2", "hun#ter2", "hun?ter2"])
def test_a_password_that_would_end_the_host_is_told_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:{password}@db/x")
    (fault,) = faults(WorkerSettings)
    assert fault.startswith("DATABASE_URL: must be like postgresql://user:password@host/database")
    assert "hun" not in fault


def test_a_test_secret_is_fine_outside_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", "whsec_test_9f3kq7Vn2Zr8Lw1T")
    monkeypatch.setenv("MOLAM_ENVIRONMENT", "staging")
    assert ReceiverSettings.load().keyring


def test_every_fault_is_told_at_once_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "DATABASE_URL": "mysql://root:hunter2@localhost/x",
        "MOLAM_ENVIRONMENT": "prod",
        "LOG_LEVEL": "loud",
        "DATABASE_POOL_MIN": "9",
        "DATABASE_POOL_MAX": "8",
        "DATABASE_POOL_IDLE_SECONDS": "soon",
        "MOLAM_WEBHOOK_PATH": "molam",
        "MOLAM_WEBHOOK_MAX_BODY_BYTES": "262145",
        "MOLAM_WEBHOOK_QUEUE_MAX": "0",
        "MOLAM_FAILURE_LIMIT": "0",
        "MOLAM_WEBHOOK_DEFAULT_KID": "a b",
        "MOLAM_WEBHOOK_SECRET": "",
        "MOLAM_WORKER_MAX_ATTEMPTS": "0",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    found = faults(AllSettings)
    assert {fault.split(":")[0].split(",")[0] for fault in found} == set(wrong) - {"DATABASE_POOL_MIN"}
    assert "hunter2" not in "".join(found)


def test_a_missing_key_says_where_to_put_one() -> None:
    assert faults() == ["KEYRING: is missing; give such a credential, or set MOLAM_WEBHOOK_SECRET"]


def test_keys_come_from_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {
        "v1": {"secret": GOOD, "state": "active"},
        "v0": {"secret": GOOD + "old", "state": "revoked"},
        "selftest": {"secret": GOOD + "self", "state": "active"},
    }
    write_keyring(tmp_path, monkeypatch, document)
    keys = ReceiverSettings.load().keyring.keys
    assert {kid: key.active for kid, key in keys.items()} == {b"v1": True, b"v0": False, b"selftest": True}


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ("{", "is not JSON"),
        ('{"v1": {"secret": "whsec_9f3kq7Vn2Zr8Lw1T", "state": "active"}, "v1": {}}', "names a thing twice"),
        ([], "must be like"),
        ({}, "must be like"),
        ({"v1": {"secret": GOOD}}, "kid 'v1': must have"),
        ({"v1": {"secret": GOOD, "state": "maybe"}}, "kid 'v1': must have"),
        ({"v1": {"secret": GOOD, "state": "revoked"}}, "no active key"),
        ({"selftest": {"secret": GOOD, "state": "active"}}, "no active key"),
        ({"v 1": {"secret": GOOD, "state": "active"}}, "kid 'v 1': a key id is"),
        ({"v1": {"secret": GOOD, "state": "active"}, "v2": {"secret": "no", "state": "active"}}, "kid 'v2': the"),
    ],
    ids=range(10),
)
def test_a_wrong_keyring_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: object, part: str
) -> None:
    write_keyring(tmp_path, monkeypatch, document)
    found = "\n".join(faults())
    assert found.startswith("KEYRING")
    assert part in found
    assert GOOD not in found


def test_every_fault_of_a_keyring_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"v1": {"secret": "short", "state": "active"}, "v2": {}, "v 3": {"secret": GOOD, "state": "active"}}
    write_keyring(tmp_path, monkeypatch, document)
    assert sorted(fault.split(":")[0] for fault in faults()) == [
        "KEYRING, kid 'v 3'",
        "KEYRING, kid 'v1'",
        "KEYRING, kid 'v2'",
    ]


def test_two_sources_of_keys_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_keyring(tmp_path, monkeypatch, {"v1": {"secret": GOOD, "state": "active"}})
    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", GOOD)
    assert "keep one" in faults()[0]


def test_the_worker_needs_no_keys() -> None:
    assert WorkerSettings.load().molam_worker_max_attempts == 12


def test_what_is_described_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "database_url").write_text("postgresql://me:hunt:e@r2@db/x?password=hunter3&host=/run")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", GOOD)
    rows = {name: (value, source) for name, value, source in AllSettings.load().describe()}
    assert rows["DATABASE_URL"] == ("postgresql://me:***@db/x?password=***&host=/run", "credential")
    assert rows["MOLAM_WEBHOOK_SECRET"] == ("***", "environment")
    assert rows["LOG_LEVEL"] == ("info", "default")
    assert rows["KEYRING"][0] == "v1 (active)"
