"""What to do where a line of the checklist does not hold."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("advice.yml")


@cache
def of_all() -> dict[str, str]:
    """Return the advice of each line, by its id."""
    advice: dict[str, str] = yaml.safe_load(FILE.read_text())
    return advice
