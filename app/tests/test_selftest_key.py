"""The self-test's own key, and the networks that it is taken from."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest
from molam_webhook.config import ConfigError, ReceiverSettings
from support import SECRET


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SELFTEST_SECRET", "MOLAM_SELFTEST_NETWORKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOLAM_WEBHOOK_SECRET", SECRET)


def faults() -> list[str]:
    with pytest.raises(ConfigError) as caught:
        ReceiverSettings.load()
    return caught.value.faults


def test_a_host_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTEST_SECRET", SECRET + "self")
    keys = ReceiverSettings.load().keyring.keys
    assert {kid: key.secret for kid, key in keys.items()} == {
        b"v1": SECRET.encode(),
        b"selftest": (SECRET + "self").encode(),
    }


def test_it_comes_from_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = {kid: {"secret": SECRET + kid, "state": "active"} for kid in ("v1", "selftest")}
    (tmp_path / "keyring").write_text(json.dumps(keys))
    (tmp_path / "selftest_secret").write_text(SECRET + "other")
    monkeypatch.delenv("MOLAM_WEBHOOK_SECRET")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert faults() == ["SELFTEST_SECRET: is set, and KEYRING has the kid selftest; keep one of them"]


@pytest.mark.parametrize("secret", ["", "short", "CHANGE_ME_CHANGE_ME", "whsec_test_9f3kq7Vn2Zr8Lw1T"])
def test_a_useless_secret_is_refused(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("SELFTEST_SECRET", secret)
    (fault,) = faults()
    assert fault.startswith("SELFTEST_SECRET: ")
    assert len(secret) < 16 or secret not in fault


def test_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ReceiverSettings.load().molam_selftest_networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    for text, expected in {"10.0.0.0/8, ::1": ("10.0.0.0/8", "::1/128"), "": ()}.items():
        monkeypatch.setenv("MOLAM_SELFTEST_NETWORKS", text)
        assert ReceiverSettings.load().molam_selftest_networks == tuple(map(ip_network, expected))
    for text in ("10.0.0.1/8", "everyone"):
        monkeypatch.setenv("MOLAM_SELFTEST_NETWORKS", text)
        (fault,) = faults()
        assert fault.startswith("MOLAM_SELFTEST_NETWORKS: ")
        assert "must be like" in fault
