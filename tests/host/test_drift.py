"""What somebody changed on a host is told by a verification, and nothing where nobody did."""

from __future__ import annotations

from pathlib import Path

import pytest
from testinfra.host import Host

from tests.verify import drift, run
from tests.verify.difference import Difference, Drift
from tests.verify.target import Target

from .hunt import forms, inventory_secrets
from .playbooks import ROOT

STRAY = "/etc/systemd/system/stray.service"
# Of a package: a settings file, and another one.
OF_PACKAGES = ["/etc/nginx/mime.types", "/usr/share/common-licenses/BSD"]
NGINX = "/etc/nginx/molam.conf"
BROUGHT = "/usr/local/sbin/molam-restore"
SSHD = "/etc/ssh/sshd_config.d/00-molam.conf"
DROP_IN = "/etc/systemd/system/ssh.service.d/stray.conf"
KEPT = [NGINX, SSHD, BROUGHT, *OF_PACKAGES]


def look(request: pytest.FixtureRequest, host: Host) -> Drift:
    """Look at a host as a verification does."""
    ssh_config = request.config.getoption("--ssh-config")
    of = Target(
        host.backend.host,
        ROOT / request.config.getoption("--ansible-inventory"),
        Path(ssh_config) if ssh_config else None,
        sudo=request.config.getoption("--sudo"),
    )
    secrets = sorted(
        (form for secret in inventory_secrets(host).values() for form in forms(secret)), key=len, reverse=True
    )
    return drift.look(of, host, lambda text: run.without(secrets, text))


@pytest.mark.intrusive
@pytest.mark.debian("13")
def test_what_somebody_changed_is_told_and_nothing_where_nobody_did(request: pytest.FixtureRequest, host: Host) -> None:
    try:
        for path in KEPT:
            host.check_output("cp --preserve=all %s %s.kept", path, path)
        host.check_output(f"sed --in-place 's/server_tokens off/server_tokens on/' {NGINX}")
        for path in (SSHD, BROUGHT, *OF_PACKAGES):
            host.check_output("echo '# changed' >> %s", path)
        host.check_output("systemctl disable --now molam-check.timer")
        host.check_output("systemd-run --collect --unit=listener python3 -m http.server 4444")
        host.check_output(f"printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >{STRAY}")
        host.check_output(f"mkdir -p $(dirname {DROP_IN}) && printf '[Service]\\nNice=1\\n' >{DROP_IN}")
        host.check_output("systemctl daemon-reload && systemctl start stray.service")
        seen = look(request, host)
    finally:
        host.run(f"systemctl stop listener stray; rm -r {STRAY} $(dirname {DROP_IN}); systemctl daemon-reload")
        for path in KEPT:
            host.run("mv %s.kept %s", path, path)
        host.run("systemctl enable --now molam-check.timer")

    found: dict[str, Difference] = {entry.what: entry for entry in seen.differences}
    assert seen.not_seen == []
    for what, words in {
        NGINX: "has other content [role nginx, ",
        BROUGHT: "has other content",
        SSHD: "has other content than was put there",
        "molam-check.timer": "is inactive and disabled; would be started and enabled at boot [role monitoring, ",
        "port 4444/tcp": "is listened on, at 0.0.0.0, by python3 (listener.service): it is of no unit that is known",
        "stray.service": "is a unit (active, static) that no package and no role made",
        DROP_IN: "changes ssh.service, and no package and no role made it",
        OF_PACKAGES[0]: "has other content; it is a settings file of nginx-common",
        OF_PACKAGES[1]: "has other content; it is a file of base-files",
    }.items():
        assert words in found.pop(what).words
    # And no more than that.
    assert found == {}
    diffs = {entry.what: entry.diff for entry in seen.differences if entry.diff}
    assert ["".join(line.split()) for line in diffs[NGINX]] == ["-server_tokenson;", "+server_tokensoff;"]
    assert diffs[BROUGHT] == ("-# changed",)

    assert look(request, host) == Drift()
