"""A migration that would lock, rewrite or break what is serving is refused by the linter."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Each asks the linter of migrations, which takes a second.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "app" / "src" / "molam_webhook" / "migrations"

REVISION = """
from alembic import op

revision = "9999"
down_revision = "{0}"
kind = "{1}"


def upgrade() -> None:
    op.execute("{2}")
"""


def lint(folder: Path, kind: str, statement: str) -> subprocess.CompletedProcess[str]:
    """Lint the app's migrations with one more of this kind and statement."""
    shutil.copytree(MIGRATIONS, folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    versions = folder / "migrations" / "versions"
    last = max(path.name[:4] for path in versions.glob("*.py"))
    (versions / "9999_test.py").write_text(REVISION.format(last, kind, statement))
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "lint-migrations", folder / "migrations"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("kind", "statement", "rule"),
    [
        ("expand", "ALTER TABLE orders DROP COLUMN status", "ban-drop-column"),
        ("expand", "DROP TABLE orders", "ban-drop-table"),
        ("expand", "ALTER TABLE orders RENAME COLUMN status TO state", "renaming-column"),
        ("contract", "ALTER TABLE orders RENAME COLUMN status TO state", "renaming-column"),
        ("contract", "ALTER TABLE orders ALTER COLUMN amount TYPE text", "changing-column-type"),
        ("expand", "ALTER TABLE orders ADD COLUMN more text NOT NULL", "adding-required-field"),
        ("expand", "CREATE INDEX more ON webhook_deliveries (kid)", "require-concurrent-index-creation"),
        ("expand", "this is no SQL", "syntax-error"),
    ],
)
def test_bad_statement_is_refused(tmp_path: Path, kind: str, statement: str, rule: str) -> None:
    answer = lint(tmp_path, kind, statement)
    assert answer.returncode == 1
    findings = [line for line in answer.stdout.splitlines() if ".sql:" in line]
    assert findings != []
    assert all(line.startswith("9999_test.sql:") for line in findings)
    assert rule in answer.stdout


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("expand", "ALTER TABLE orders ADD COLUMN more text"),
        ("contract", "ALTER TABLE orders DROP COLUMN currency"),
        ("contract", "DROP TABLE orders"),
    ],
)
def test_good_statement_is_not(tmp_path: Path, kind: str, statement: str) -> None:
    answer = lint(tmp_path, kind, statement)
    assert answer.returncode == 0, answer.stdout
