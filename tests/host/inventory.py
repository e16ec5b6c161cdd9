"""What an inventory says of a host, templated by Ansible as a playbook would have it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from testinfra.host import Host

# Answers that are known already, by expression: a question takes seconds of Ansible's, and a verification asks it once
# for all of its processes.
_known: dict[str, Any] = {}


def ask(host: Host, wanted: Mapping[str, str]) -> dict[str, Any]:
    """Return what each Jinja expression gives for a host, by name; raise ValueError with what Ansible says."""
    if not _known.keys() >= set(wanted.values()):
        return _ask(host, wanted)
    return {name: _known[expression] for name, expression in wanted.items()}


def remember(answers: Mapping[str, Any]) -> None:
    """Take answers, by expression, as known from here on in this process, whose tests are of one host."""
    _known.update(answers)


def _ask(host: Host, wanted: Mapping[str, str]) -> dict[str, Any]:
    members = ", ".join(f"'{name}': {expression}" for name, expression in wanted.items())
    answer = host.ansible("debug", f'msg="{{{{ {{{members}}} | to_json }}}}"', check=False)
    if "msg" not in answer or answer.get("failed"):
        raise ValueError(str(answer.get("msg", answer)))
    said = answer["msg"]
    return cast("dict[str, Any]", said if isinstance(said, dict) else json.loads(said))
