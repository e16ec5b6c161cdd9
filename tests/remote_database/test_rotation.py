"""The logins get new passwords by the playbook and under load, and no event is lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from testinfra.host import Host

from tests.host.conftest import Site, new_event, slot_in_use
from tests.host.hunt import inventory_secrets, seen
from tests.host.load import load, stored
from tests.host.playbooks import play

from .conftest import JOBS, Database

Rotate = Callable[..., subprocess.CompletedProcess[str]]
# Makes the switch fail, before the new slot serves.
NO_MIGRATION = "/run/systemd/system/molam-webhook-migrate@.service.d/90-fails.conf"


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory, database: Database) -> Path:
    """Return a vaulted file with the logins, of an inventory that has nothing else."""
    inventory = tmp_path_factory.mktemp("inventory")
    path = inventory / "group_vars" / "all" / "vault.yml"
    path.parent.mkdir(parents=True)
    (inventory / "password").write_text("a password of this test\n")
    (inventory / "hosts.yml").write_text("webhook:\n")
    path.write_text("# Ours.\n" + yaml.safe_dump({"webhook_app_database_logins": database.logins}))
    ansible_vault("encrypt", path)
    return path


def ansible_vault(command: str, path: Path) -> str:
    password = path.parents[2] / "password"
    arguments = ["ansible-vault", command, f"--vault-password-file={password}", str(path)]
    return str(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def logins_in(vault: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = yaml.safe_load(ansible_vault("view", vault))["webhook_app_database_logins"]
    return found


@pytest.fixture(scope="module")
def rotate(request: pytest.FixtureRequest, host: Host, vault: Path, database: Database) -> Iterator[Rotate]:
    """Run the playbook at the highest verbosity that people use; in the end all is as the inventory has it."""

    def run(*asked: str) -> subprocess.CompletedProcess[str]:
        inventory = vault.parents[2]
        return play(
            request,
            host,
            "playbooks/rotate_database_password.yml",
            f"--inventory={inventory / 'hosts.yml'}",
            f"--vault-password-file={inventory / 'password'}",
            f"--extra-vars=vault={vault}",
            *(f"--extra-vars={variable}" for variable in asked),
            "-vvv",
            "--diff",
        )

    yield run
    for login in database.logins.values():
        database.sql(f"ALTER ROLE {login['user']} LOGIN PASSWORD '{login['password']}'")
    urls = {
        f"database_url.{job}": f"postgresql://{login['user']}:{login['password']}@{database.address}/molam?sslmode=verify-full"
        for job, login in database.logins.items()
    }
    host.check_output(f"molam-webhook-credentials <<'END'\n{json.dumps(urls)}\nEND")
    host.check_output("molam-webhook-switch apply")


def dates(host: Host) -> dict[str, Any]:
    """Return since when each login's password is in use."""
    found = json.loads(host.check_output("cat /etc/molam-webhook/secret-dates.json"))
    return {name: entry["created"] for name, entry in found.items() if name.startswith("database_url")}


def test_rotation_under_load(host: Host, site: Site, database: Database, vault: Path, rotate: Rotate) -> None:
    old, slot = database.logins, slot_in_use(host)
    made = '/database_url/,/}/ s/"created": "[0-9-]*"/"created": "2026-01-31"/'
    host.check_output(f"sed --in-place '{made}' /etc/molam-webhook/secret-dates.json")
    assert set(dates(host).values()) == {"2026-01-31"}
    aged = host.run("molam-check")
    assert aged.rc == 1
    assert 'molam_secret_age_days{secret="database_url.receiver"} is ' in aged.stdout
    assert "rotate-database-password.md" in aged.stdout

    began = database.sql("SELECT now()")
    with load(site, senders=1) as answers:
        # It is cut off once the passwords are changed: the old slot goes on with the old ones.
        host.check_output(f"mkdir -p $(dirname {NO_MIGRATION})")
        host.check_output(f"printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > {NO_MIGRATION}")
        cut_off = rotate()
        host.check_output(f"rm {NO_MIGRATION} && systemctl daemon-reload")
        assert cut_off.returncode == 2, cut_off.stdout[-3000:]
        assert "Not switched" in cut_off.stdout
        assert slot_in_use(host) == slot
        new = logins_in(vault)
        assert {job: login["user"] for job, login in new.items()} == {
            job: login["user"].removesuffix("_a") + "_b" for job, login in old.items()
        }
        assert [database.refusal(**logins[job]) for logins in (old, new) for job in JOBS] == [""] * 6
        # The same command finishes it.
        finished = rotate()
        assert finished.returncode == 0, finished.stdout[-3000:]
    assert "What was begun before is finished" in finished.stdout
    assert logins_in(vault) == new
    assert "# Ours.\n" in ansible_vault("view", vault)

    assert {status for _, status in answers} == {200}
    ids = [event_id for event_id, _ in answers]
    assert stored(database.host, ids, "molam")[0] == len(ids)
    host.check_output(
        "timeout 30 sh -c 'while molam-webhook events list --state pending --json | grep -q evt; do sleep 0.2; done'"
    )
    assert stored(database.host, ids, "molam") == (len(ids), len(ids))
    tried = f"SELECT DISTINCT state, attempts FROM webhook_deliveries WHERE created_at >= '{began}'"
    assert database.sql(tried) == "done|1"

    assert slot_in_use(host) != slot
    assert database.present() == {new[job]["user"] for job in ("receiver", "worker")}
    assert [database.refusal(**new[job]) for job in JOBS] == [""] * 3
    assert [database.refusal(**old[job]) for job in JOBS] == ["InvalidPasswordError"] * 3
    stolen = database.refusal(new["receiver"]["user"], old["receiver"]["password"])
    assert stolen == "InvalidPasswordError"
    assert "2026-01-31" not in dates(host).values()

    output = "".join(run.stdout + run.stderr for run in (cut_off, finished))
    hidden = {f"new {job}": login["password"] for job, login in new.items()}
    assert seen(inventory_secrets(host) | hidden, output) == []
    # PostgreSQL writes down all that it is told, and that is no password.
    log = database.host.check_output("cat /var/log/postgresql/*.log")
    assert "ALTER ROLE molam_webhook_b LOGIN" in log
    assert seen(hidden, log) == []


def test_who_comes_with_a_leaked_password_is_sent_away(
    site: Site, database: Database, vault: Path, rotate: Rotate
) -> None:
    leaked = logins_in(vault)["receiver"]

    async def stay() -> None:
        stranger = await database.connect(**leaked)
        left = await asyncio.to_thread(rotate)
        # It might be a host of ours.
        assert left.returncode == 2, left.stdout[-3000:]
        assert f"somebody is there with them: {leaked['user']}" in " ".join(left.stdout.split())
        assert await asyncio.to_thread(database.refusal, **leaked) == ""
        refused = await asyncio.to_thread(rotate)
        assert refused.returncode == 2
        assert f"Nothing was changed. {leaked['user']} would get a new password now" in " ".join(refused.stdout.split())
        forced = await asyncio.to_thread(rotate, "force=true")
        assert forced.returncode == 0, forced.stdout[-3000:]
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await stranger.execute("SELECT 1")

    asyncio.run(stay())
    assert database.refusal(**leaked) == "InvalidPasswordError"
    assert site.send(new_event()).status_code == 200
