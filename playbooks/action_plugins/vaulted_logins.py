"""Give the database's logins in an inventory's vaulted file other users and new passwords.

- vaulted_logins:
    path: inventories/production/group_vars/all/vault.yml   # on the control machine
    users: {receiver: molam_webhook_b, worker: molam_webhook_worker_b, owner: molam_webhook_owner_b}

The passwords are made here. The file is treated as `vaulted_key` treats it, whose way this is.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.loader import action_loader

VARIABLE = "webhook_app_database_logins"


class ActionModule(action_loader.get("vaulted_key", class_only=True)):  # type: ignore[misc]  # Ansible has no types
    """See the module's docstring."""

    _VALID_ARGS = frozenset(("path", "users"))

    def _edit(self, text: str) -> str:
        """Return what the file's text is to be. Raises ValueError where only a person can make it so."""
        wanted = self._loader.load(text) or {}
        if VARIABLE not in wanted:
            raise ValueError(f"it has no {VARIABLE}")
        by_hand = ValueError(f"{VARIABLE} is written there in a way that only you can change; edit it by hand")
        new = text
        try:
            # What stands there once, for several jobs, is each one's own from now on.
            wanted[VARIABLE] = {job: dict(login) for job, login in wanted[VARIABLE].items()}
            for job, user in self._task.args["users"].items():
                for name, value in {"user": user, "password": secrets.token_hex(32)}.items():
                    if "{{" in wanted[VARIABLE][job][name]:
                        raise by_hand
                    wanted[VARIABLE][job][name] = value
                    new = with_value(new, [VARIABLE, job, name], value)
            if self._loader.load(new) != wanted:
                raise by_hand
        except (AnsibleError, AttributeError, KeyError, TypeError, yaml.YAMLError):
            raise by_hand from None
        return new


def with_value(text: str, names: list[str], value: str) -> str:
    """Return YAML text with another value where these names, one within the other, lead to."""
    node: Any = yaml.compose(text, yaml.SafeLoader)
    for name in names:
        (node,) = [inner for key, inner in node.value if key.value == name]
    return text[: node.start_mark.index] + json.dumps(value) + text[node.end_mark.index :]
