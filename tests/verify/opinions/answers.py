"""Why findings of outside tools are not followed: answers.yml, the one place where that stands."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from tests.verify.opinions.opinion import Finding, Opinion

FILE = Path(__file__).with_name("answers.yml")


@dataclass(frozen=True)
class Answer:
    """Why some findings of a tool are not followed.

    It holds up to a score, `at_most`, and where `only` names a kind of host, on such hosts alone.
    """

    ids: tuple[str, ...]
    why: str
    only: str = ""
    at_most: float | None = None

    def holds(self, finding: Finding, kinds: Collection[str]) -> bool:
        """Whether it answers a finding on a host of these kinds."""
        within = self.at_most is None or (finding.score is not None and finding.score <= self.at_most)
        return finding.id in self.ids and within and (not self.only or self.only in kinds)


@cache
def of_all() -> dict[str, list[Answer]]:
    """Return the answers by tool."""
    tools = yaml.safe_load(FILE.read_text())
    return {
        tool: [Answer(**entry | {"ids": tuple(entry["ids"])}) for entry in entries] for tool, entries in tools.items()
    }


def answered(opinion: Opinion, kinds: Collection[str]) -> Opinion:
    """Part what an opinion leaves open into what has an answer, on a host of these kinds, and what has none."""
    unfollowed, unanswered = list(opinion.unfollowed), []
    for finding in opinion.unanswered:
        for answer in of_all().get(opinion.tool, []):
            if answer.holds(finding, kinds):
                unfollowed.append(replace(finding, why=answer.why))
                break
        else:
            unanswered.append(finding)
    return replace(opinion, unfollowed=unfollowed, unanswered=unanswered)
