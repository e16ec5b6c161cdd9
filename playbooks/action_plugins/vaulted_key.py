"""Add a webhook key to an inventory's vaulted file, or mark one as revoked there: what rotate_key.yml writes.

- vaulted_key:
    path: inventories/production/group_vars/all/vault.yml   # on the control machine
    kid: v2
    state: active     # made here when the file has no such key; or `revoked`

The file is changed as a person would change it: comments, and all else that stands there, stay. It is written only
when what was meant is what would be read from it then, whole or not at all, under the vault id and password it had. No
secret is returned.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, is_encrypted, parse_vaulttext_envelope
from ansible.plugins.action import ActionBase

LIST = "webhook_app_keys"
_HEAD = re.compile(rf"^{LIST}:[ \t]*(#.*)?$")
_ITEM = re.compile(r"^( *)- ")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """See the module's docstring."""

    _supports_check_mode = True
    _VALID_ARGS = frozenset(("path", "kid", "state"))

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Change the file; `changed` says whether there was anything to change."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        path = self._task.args["path"]
        try:
            changed = self._change(Path(path).resolve())
        except (AnsibleError, OSError, ValueError) as error:
            raise AnsibleActionFail(f"{path} was left as it is: {error}") from None
        return result | {"changed": changed}

    def _change(self, path: Path) -> bool:
        vaulted = path.read_bytes()
        if not is_encrypted(vaulted):
            raise ValueError("it is not encrypted; run ansible-vault encrypt on it first")
        vault: VaultLib = self._loader._vault
        plain, _, secret = vault.decrypt_and_get_vault_id(vaulted.decode())
        text = plain.decode()
        new = self._edit(text)
        if new == text:
            return False
        if not self._task.check_mode:
            vault_id = parse_vaulttext_envelope(vaulted)[3]
            write(path, VaultLib(vault.secrets).encrypt(new, secret=secret, vault_id=vault_id))
        return True

    def _edit(self, text: str) -> str:
        """Return what the file's text is to be. Raises ValueError where only a person can make it so."""
        kid, state = self._task.args["kid"], self._task.args["state"]
        wanted = self._keys(text)
        found = [key for key in wanted if key["kid"] == kid]
        if found and found[0]["state"] == state:
            return text
        if found:
            found[0]["state"] = state
            new = with_state(text, kid, state)
        else:
            today = datetime.now(UTC).date().isoformat()
            key = {"kid": kid, "secret": f"whsec_{secrets.token_hex(32)}", "state": state, "created": today}
            wanted.append(key)
            new = with_key(text, key)
        if not self._reads_as(new, wanted):
            raise ValueError(f"{LIST} is written there in a way that only you can change; edit it by hand")
        return new

    def _reads_as(self, text: str, keys: list[dict[str, str]]) -> bool:
        try:
            return self._keys(text) == keys
        except AnsibleError:
            # It is no YAML any more.
            return False

    def _keys(self, text: str) -> list[dict[str, str]]:
        keys = (self._loader.load(text) or {}).get(LIST)
        if not isinstance(keys, list):
            raise ValueError(f"it has no {LIST}")
        return [{name: str(value) for name, value in key.items()} for key in keys]


def span(lines: list[str]) -> tuple[int, int]:
    """Return where the list's items begin and end among the lines: (begin, end), the end being the line after."""
    begin = next((number for number, line in enumerate(lines) if _HEAD.match(line)), len(lines)) + 1
    end = last = begin
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " #-"):
        end += 1
        # What follows the last item, such as the next variable's comment, is not the list's.
        if lines[end - 1].strip() and lines[end - 1][0] != "#":
            last = end
    return begin, last


def with_key(text: str, key: dict[str, str]) -> str:
    """Return the file's text with one more key at the end of the list."""
    lines = text.splitlines()
    begin, end = span(lines)
    indents = [match[1] for line in lines[begin:end] if (match := _ITEM.match(line))]
    indent = indents[0] if indents else "  "
    parts = [f'{name}: "{value}"' if name == "created" else f"{name}: {value}" for name, value in key.items()]
    lines[end:end] = [f"{indent}{'- ' if number == 0 else '  '}{part}" for number, part in enumerate(parts)]
    return "\n".join(lines) + "\n"


def with_state(text: str, kid: str, state: str) -> str:
    """Return the file's text with another state for one key."""
    lines = text.splitlines()
    begin, end = span(lines)
    starts = [number for number in range(begin, end) if _ITEM.match(lines[number])]
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        item = lines[start:stop]
        if any(re.match(rf"^[ -]*kid: *[\"']?{re.escape(kid)}[\"']? *(#.*)?$", line) for line in item):
            lines[start:stop] = [re.sub(r"^([ -]*state: *)[\"']?\w+[\"']?", rf"\g<1>{state}", line) for line in item]
    return "\n".join(lines) + "\n"


def write(path: Path, content: bytes) -> None:
    """Put the content in place of the file's, in one step, with the file's mode."""
    mode = path.stat().st_mode & 0o777
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new = Path(name)
        new.chmod(mode)
        new.replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
