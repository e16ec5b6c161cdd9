"""What happens to a serving host when its settings or its keys are changed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = "/etc/molam-webhook/slots/a/environment"
RECEIVER = "molam-webhook@a.service"


def test_no_run_prints_a_secret(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> None:
    """At the highest verbosity that people use, with differences, and with keys that are new to the host."""
    keys = [{"kid": kid, "secret": f"whsec_new_{kid}_Zq4Xv9Tn2Lw7Rb", "state": "active"} for kid in ("v1", "v2")]
    variables = tmp_path / "keys.json"
    variables.write_text(json.dumps({"webhook_app_keys": keys}))
    answer = subprocess.run(
        [
            "ansible-playbook",
            f"--inventory={ROOT / request.config.getoption('--ansible-inventory')}",
            f"--limit={host.backend.host}",
            f"--extra-vars=@{variables}",
            "--check",
            "--diff",
            "-vvv",
            ROOT / "site.yml",
        ],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
    # The keys were compared with the host's, and found new.
    assert "Keep the encrypted keyring" in answer.stdout
    assert " changed=0 " not in answer.stdout
    assert [key["kid"] for key in keys if key["secret"] in answer.stdout + answer.stderr] == []


@pytest.mark.parametrize(
    "line", ["LOG_LEVEL=loud", "DATABASE_POOL_MAX=0", "MOLAM_WEBHOOK_SECRET=whsec_a_second_place_1"]
)
def test_settings_that_the_receiver_refuses_do_not_stop_it(host: Host, line: str) -> None:
    release = host.check_output("basename $(readlink -f /opt/molam-webhook/active)")
    serving = host.service(RECEIVER).systemd_properties["MainPID"]
    good = host.file(ENVIRONMENT).content_string
    try:
        host.check_output(f"echo {line} >> {ENVIRONMENT}")
        answer = host.run(f"molam-webhook-slot apply a {release}")
        assert answer.rc == 1
        assert line.partition("=")[0] in answer.stderr
        assert "left as it is" in answer.stderr
        assert host.service(RECEIVER).systemd_properties["MainPID"] == serving
    finally:
        host.run_test(f"cat > {ENVIRONMENT} <<'E'\n{good}\nE")
    assert host.check_output(f"molam-webhook-slot apply a {release}") in ("unchanged", f"slot a runs {release}")
