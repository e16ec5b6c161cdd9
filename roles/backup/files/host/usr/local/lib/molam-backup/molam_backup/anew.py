"""A repository that begins anew, with another key: playbooks/rotate_backup_key.yml runs this.

What there was is put aside within the repository's folder, which may be a disk of its own, and is whole there:
everything that was committed before is in it. What is committed afterwards waits in PostgreSQL's own folder until the
new repository takes it. Cut off at any moment, the same again finishes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import second
from .restore import BACKING_UP, COPYING
from .second import REPOSITORY
from .system import POSTGRES, RestoreError, archived, run, say, stamp

BEGUN = REPOSITORY / "before.new"
TIMERS = ["molam-backup.timer", "molam-backup-drill.timer", "molam-backup-measure.timer", COPYING[0]]


def put_aside(*, although_incomplete: bool) -> None:
    """Put the repository aside, with everything in it that is committed by now."""
    if not (BEGUN.exists() or although_incomplete):
        # Where the archive takes nothing, that is told while all goes on; then once more, with nobody else at work.
        say("archive what was committed")
        archived()
    run("systemctl", "stop", *TIMERS, *BACKING_UP, COPYING[1])
    if second.SYNCHRONOUS.exists():
        # Until the other host has the new one, commits wait for what is no use to it.
        second.not_synchronous()
    if not BEGUN.exists():
        if not although_incomplete:
            archived()
        run("mkdir", "--mode=0750", BEGUN, user=POSTGRES)
    second.move(REPOSITORY, BEGUN)


def aside() -> Path | None:
    """Return where the repository is that was put aside now, or by a run that was cut off; None where there is none."""
    if not BEGUN.exists():
        return None
    named = REPOSITORY / f"before-{stamp()}"
    run("mv", "--no-target-directory", BEGUN, named, user=POSTGRES)
    return named


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="molam-backup-anew", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    step = steps.add_parser("aside", help="put the repository aside, and print where it is")
    step.add_argument("--although-incomplete", action="store_true", help="also where the archive takes nothing")
    steps.add_parser("goes-on", help="finish putting it aside where that was cut off, and print where it is")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("molam-backup-anew: run it as root", file=sys.stderr)
        return 1
    try:
        if arguments.step == "aside":
            put_aside(although_incomplete=arguments.although_incomplete)
        print(aside() or "unchanged")
    except (RestoreError, OSError) as error:
        print(f"molam-backup-anew: {error}", file=sys.stderr)
        return 1
    return 0
