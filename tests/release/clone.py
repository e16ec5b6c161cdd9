"""A clone of this repository that has tags of its own, and the plays that are run from it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.tree import commit, copy_tree, git

ROOT = Path(__file__).resolve().parents[2]
APP = Path("app/src/molam_webhook")

MIGRATION = '''"""{1}."""

from alembic import op

revision = "{0}"
down_revision = "{2}"
kind = "{3}"


def upgrade() -> None:
    """{1}."""
    op.execute("{4}")
'''


@dataclass(frozen=True)
class Play:
    """What a playbook said, and its exit status."""

    status: int
    said: str


class Clone:
    """A clone of this repository, as it is in the working tree, that has releases of its own."""

    def __init__(self, path: Path) -> None:
        """Copy what git would have, and share the test hosts' keys and certificates."""
        self.path = path
        copy_tree(path)
        (path / ".state").mkdir()
        for name in ("pki", "secrets", "ssh"):
            (path / ".state" / name).symlink_to(ROOT / ".state" / name)

    def _git(self, *arguments: str) -> str:
        return git(self.path, *arguments)

    def edit(self, name: str | Path, old: str, new: str) -> None:
        """Change a file at one place, which has to be there."""
        path = self.path / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new))

    def migration(self, number: int, what: str, kind: str, sql: str) -> None:
        """Add a revision of the schema, the last one."""
        revision, before = f"{number:04}", f"{number - 1:04}"
        text = MIGRATION.format(revision, what, before, kind, sql)
        (self.path / APP / "migrations" / "versions" / f"{revision}_{what}.py").write_text(text)
        self.edit(APP / "schema.py", f'NEWEST = "{before}"', f'NEWEST = "{revision}"')

    def tag(self, name: str) -> None:
        """Make a release of what the clone has now."""
        pyproject = self.path / "app" / "pyproject.toml"
        pyproject.write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{name[1:]}"', pyproject.read_text(), count=1))
        commit(self.path, f"Release {name}")
        self._git("tag", name)

    def back_to(self, name: str) -> None:
        """Have what a release had, as a start for another one."""
        self._git("checkout", "--quiet", name)

    def commit(self, name: str) -> str:
        """Return the commit of a tag."""
        return self._git("rev-parse", f"{name}^{{commit}}").strip()

    def move(self, name: str, commit: str) -> None:
        """Have a tag name another commit, which nobody should do."""
        self._git("tag", "--force", name, commit)

    def forget_bundles(self) -> None:
        """Have the next play build its bundle."""
        shutil.rmtree(self.path / ".state" / "bundles", ignore_errors=True)

    def start(self, playbook: str, **variables: object) -> subprocess.Popen[str]:
        """Start a playbook as an administrator would, in a session of its own."""
        return subprocess.Popen(
            ["ansible-playbook", "--inventory=molecule/release/inventory", playbook, "-e", json.dumps(variables)],
            cwd=self.path,
            # Molecule has settings of its own, and asks for colours in the middle of sentences.
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
                "ANSIBLE_NOCOLOR": "1",
                "PYTHONUNBUFFERED": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, playbook: str, **variables: object) -> Play:
        """Run a playbook to its end."""
        process = self.start(playbook, **variables)
        said, _ = process.communicate()
        return Play(process.returncode, said)

    def deploy(self, release: str, **variables: object) -> Play:
        """Run the deploy of a release."""
        return self.play("playbooks/deploy.yml", release=release, **variables)


def add_releases(clone: Clone) -> None:
    """Add tags of small changes to v9.0.0: good ones up to v9.2.0, then some that are no good, and a contract."""
    clone.edit(APP / "admin.py", '"release": __version__,', '"release": __version__, "built_for": "tests",')
    clone.tag("v9.1.0")
    newest = re.search(r'^NEWEST = "(\d+)"', (clone.path / APP / "schema.py").read_text(), re.MULTILINE)
    assert newest is not None
    number = int(newest[1])
    clone.migration(number + 1, "note", "expand", "ALTER TABLE orders ADD COLUMN note text")
    clone.tag("v9.2.0")
    clone.edit("app/pyproject.toml", 'build-backend = "hatchling.build"', 'build-backend = "no_such_thing"')
    clone.tag("v9.3.0")
    clone.back_to("v9.2.0")
    clone.edit(APP / "schema.py", "    return None\n\n\ndef mark", '    return "not today"\n\n\ndef mark')
    clone.tag("v9.4.0")
    clone.back_to("v9.2.0")
    clone.edit(APP / "signature.py", "hmac.compare_digest(expected, mac)", "bool(expected)")
    clone.tag("v9.5.0")
    clone.back_to("v9.2.0")
    clone.migration(number + 2, "lock", "expand", "DO $$ BEGIN LOCK TABLE event_ids; PERFORM 1 / 0; END $$")
    clone.tag("v9.6.0")
    clone.back_to("v9.2.0")
    clone.migration(number + 2, "unnote", "contract", "ALTER TABLE orders DROP COLUMN note")
    clone.tag("v9.7.0")
