"""The backups begin anew with another key, under load, and what there was is put aside whole."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from .conftest import Site
from .load import load, stored
from .playbooks import play
from .test_backup import archive, measured

pytestmark = [pytest.mark.intrusive, pytest.mark.debian("13")]

REPOSITORY = "/var/lib/pgbackrest"
PLAYBOOK = "playbooks/rotate_backup_key.yml"
# What was cut off when it had moved the archive and nothing else: PostgreSQL's log waits.
CUT_OFF = (
    f"install -d -o postgres -g postgres {REPOSITORY}/before.new && mv {REPOSITORY}/archive {REPOSITORY}/before.new/"
)
OLD = "/run/old-key"


@pytest.fixture
def _first_key(request: pytest.FixtureRequest, host: Host) -> Iterator[None]:
    """Keep the host's key at hand, and give it back in the end, the way that it was taken."""
    host.check_output(
        f"install -d -m 0750 -g postgres {OLD} && systemd-creds decrypt --name=pgbackrest.conf "
        f"/etc/molam-backup/pgbackrest.conf.cred {OLD}/pgbackrest.conf && chgrp postgres {OLD}/* && chmod 0640 {OLD}/*"
    )
    yield
    answer = play(request, host, PLAYBOOK)
    host.check_output(f"rm -rf {OLD} {REPOSITORY}/before-*")
    assert answer.returncode == 0, answer.stdout[-3000:]


@pytest.mark.usefixtures("_first_key")
def test_another_key(request: pytest.FixtureRequest, host: Host, site: Site) -> None:
    key = f"--extra-vars=backup_key={secrets.token_urlsafe(32)}"
    before = [one["label"] for one in json.loads(host.check_output("molam-restore --list"))]
    with load(site, senders=2, pause_seconds=0.1) as answers:
        host.check_output(CUT_OFF)
        answer = play(request, host, PLAYBOOK, key)
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert "the backups begin anew, with the new key" in answer.stdout

    taken = [event_id for event_id, status in answers if status == 200]
    assert len(taken) > 50
    assert stored(host, taken)[0] == len(taken)

    # What there was is whole, with the key of before, and no other.
    aside = host.check_output(f"echo {REPOSITORY}/before-*")
    asked = (
        f"runuser -u postgres -- pgbackrest --stanza=molam --log-level-console=off --repo1-path={aside} --output=json"
    )
    told = host.check_output(f"{asked} --config-include-path={OLD} info")
    assert all(label in told for label in before)
    assert not set(before) & {one["label"] for one in json.loads(host.check_output("molam-restore --list"))}

    # And the new one has all, is archived to, and can be restored.
    archive(host)
    host.check_output("systemctl start molam-backup-drill")
    assert measured(host)["molam_backup_drill_age_seconds"] < 60

    again = play(request, host, PLAYBOOK, key)
    assert again.returncode == 0, again.stdout[-3000:]
    assert "Nothing was put aside" in again.stdout
    assert host.check_output(f"echo {REPOSITORY}/before-*") == aside
