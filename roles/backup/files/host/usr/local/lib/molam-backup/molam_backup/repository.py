"""The repository: which backups it has, and a restore of one of them into a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from .system import POSTGRES, RestoreError, run

STANZA = "--stanza=molam"
OTHER_KEY = "the repository is encrypted with another key than this host's backup_key; nothing was changed"
# How pgBackRest calls what it decrypts with another key.
UNREADABLE = ("[CryptoError]", "[FormatError]")


class Backup(NamedTuple):
    """A backup that is whole: its name, from when on it can be gone to, the bytes that the database has then, and the
    timeline that it was made on.
    """

    label: str
    kind: str
    end: datetime
    size: int
    timeline: str


def backrest(key: Path, *arguments: str) -> str:
    """Run pgBackRest with the key, a folder with the settings that name it."""
    return run("pgbackrest", f"--config-include-path={key}", STANZA, *arguments, user=POSTGRES)


def info(key: Path) -> list[dict[str, Any]]:
    """Return what pgBackRest says of the repository; raise RestoreError where the key is another one."""
    said = backrest(key, "--output=json", "--log-level-console=off", "info")
    try:
        told: list[dict[str, Any]] = json.loads(said)
    except ValueError:
        # It quotes what it decrypted, which most times has characters that JSON cannot have.
        raise RestoreError(OTHER_KEY) from None
    if any(message.startswith(UNREADABLE) for message in messages(told)):
        raise RestoreError(OTHER_KEY)
    return told


def messages(told: list[dict[str, Any]]) -> list[str]:
    """Return how pgBackRest found the repository."""
    return [repo["status"]["message"] for stanza in told for repo in stanza.get("repo", [])]


def segments(key: Path) -> list[str]:
    """Return the newest segment of each part of the archive; a part belongs to one major version of PostgreSQL."""
    return [part["max"] for stanza in info(key) for part in stanza["archive"] if part["max"]]


def last_segment(key: Path) -> str:
    """Return the newest segment of the log in the archive, without its timeline; nothing where there is none."""
    return max((name[8:] for name in segments(key)), default="")


def identifier(key: Path) -> str:
    """Return PostgreSQL's identifier of the cluster that the repository has; nothing where it has none."""
    return next((str(one["system-id"]) for stanza in info(key) for one in reversed(stanza["db"])), "")


def timeline(key: Path) -> str:
    """Return the newest timeline that the archive knows of, which is the one that a restore follows."""
    names = backrest(key, "--log-level-console=off", "--recurse", r"--filter=\.history$", "repo-ls", "archive/molam")
    return max((Path(name).stem for name in names.splitlines()), default="00000001")


def follow(key: Path) -> None:
    """Check that a restore would follow the newest timeline; raise RestoreError where the archive has only its log.

    PostgreSQL would not know of it, and take the one before for the newest. A backup that was made on it needs no more:
    of a repository that was begun anew nothing else tells.
    """
    newest = max((name[:8] for name in segments(key)), default="")
    if newest > max(timeline(key), *(backup.timeline for backup in backups(key))):
        raise RestoreError(
            f"the archive has log of timeline {newest}, and {newest}.history, by which PostgreSQL finds it, is missing "
            "there: nothing was changed. How to have it back: docs/runbooks/restore.md"
        )


def timeline_at(key: Path, moment: datetime) -> int:
    """Return the timeline that was written at a moment. A restore to an earlier one may have left it since."""
    asked = ("--output=json", "--recurse", r"--filter=\.history$", "repo-ls", "archive/molam")
    files: dict[str, dict[str, Any]] = json.loads(backrest(key, "--log-level-console=off", *asked))
    begun = [(Path(name).stem, float(file["time"])) for name, file in files.items()]
    # Of a repository that was begun anew nothing else tells.
    begun += [(backup.timeline, backup.end.timestamp()) for backup in backups(key)]
    return max((int(name, 16) for name, time in begun if time <= moment.timestamp()), default=1)


def backups(key: Path) -> list[Backup]:
    """Return the backups, oldest first; raise RestoreError where there is none."""
    told = info(key)
    found = [
        Backup(
            one["label"],
            one["type"],
            datetime.fromtimestamp(one["timestamp"]["stop"], UTC),
            one["info"]["size"],
            one["archive"]["stop"][:8],
        )
        for stanza in told
        for one in stanza["backup"]
        if not one.get("error")
    ]
    if not found:
        why = "; ".join(messages(told)) or "no database is known to it"
        raise RestoreError(f"the repository has no backup that is whole ({why}): docs/runbooks/restore.md")
    return found


def options(found: list[Backup], to: datetime | None, label: str | None) -> list[str]:
    """Return pgBackRest's options for a moment, for the end of one backup, or for the newest state.

    Raises RestoreError where the repository does not have it.
    """
    if label is not None:
        if label not in {backup.label for backup in found}:
            raise RestoreError(f"there is no backup {label}. There are: {', '.join(backup.label for backup in found)}")
        return [f"--set={label}", "--type=immediate", "--target-action=promote"]
    if to is None:
        return []
    if not found[0].end < to <= datetime.now(UTC):
        raise RestoreError(
            f"what can be restored begins at {found[0].end:%Y-%m-%d %H:%M:%S} UTC and ends now; {to} is outside"
        )
    return ["--type=time", f"--target={to:%Y-%m-%d %H:%M:%S.%f+00}", "--target-action=promote"]


def asking(data: Path, asks_with: Path) -> str:
    """Return the command with which PostgreSQL asks for the log, with the key in the folder `asks_with`."""
    archive = f'pgbackrest --config-include-path={asks_with} {STANZA} --pg1-path={data} archive-get %f "%p"'
    return f'{archive} || /usr/local/sbin/molam-backup-streamed %f "%p"'


def restore(key: Path, data: Path, asks_with: Path, *more: str) -> None:
    """Restore into a folder that is empty; PostgreSQL will ask for the log with the key in the folder `asks_with`."""
    asked = f"--recovery-option=restore_command={asking(data, asks_with)}"
    backrest(key, f"--pg1-path={data}", asked, *more, "restore")
