"""Keep the backups' key as encrypted credentials that no other host can read.

Takes a JSON object, credential to text, from its input; prints the names of those that were changed, or with the
argument `check` would be. Another key is refused where there are backups, which it could not read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CREDENTIALS = Path("/etc/molam-backup")
REPOSITORY = Path("/var/lib/pgbackrest")


def creds(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run systemd-creds with this input."""
    command = ["/usr/bin/systemd-creds", *arguments]
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603  ours


def present(name: str) -> str:
    """Return what a credential holds; nothing where there is none, or none that this host can read."""
    path = CREDENTIALS / f"{name}.cred"
    return creds("decrypt", f"--name={name}", path, "-").stdout if path.exists() else ""


wanted = json.load(sys.stdin)
changed = [name for name, text in wanted.items() if present(name) != text]
if changed and (REPOSITORY / "backup").exists():
    sys.exit(
        f"Nothing was changed. {REPOSITORY} is encrypted with another key, or this host's credentials were lost, and a "
        "repository keeps its key. Put that key back into the inventory. To begin anew with this one: "
        "playbooks/rotate_backup_key.yml, docs/backups.md."
    )
if changed and sys.argv[1:] != ["check"]:
    os.umask(0o022)
    CREDENTIALS.mkdir(exist_ok=True)
    REPOSITORY.mkdir(mode=0o750, exist_ok=True)
    os.umask(0o077)
    for name in changed:
        new = CREDENTIALS / f".{name}.new"
        new.unlink(missing_ok=True)
        creds("encrypt", f"--name={name}", "-", new, text=wanted[name]).check_returncode()
        new.replace(CREDENTIALS / f"{name}.cred")
print(*changed)
