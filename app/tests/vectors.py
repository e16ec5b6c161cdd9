"""The contract's signature vectors, and the same cases as of now."""

import base64
import hmac
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molam_webhook.keyring import Key, Keyring

FILE = Path(__file__).parent / "contract" / "signature-vectors.json"

# How far a case at the window's edge is moved away from it: over HTTP, time goes on before the clock is read.
_MARGIN_MS = 30_000
_WINDOW_MS = 300_000


@dataclass(frozen=True)
class Vector:
    """One case of the file."""

    name: str
    now_ms: int
    keys: dict[str, str]
    revoked: frozenset[str]
    header: str | None
    body: bytes
    outcome: str
    status: int

    @classmethod
    def read(cls, case: dict[str, Any]) -> "Vector":
        return cls(
            case["name"],
            case["now_ms"],
            case["keys"],
            frozenset(case.get("revoked", [])),
            case["header"],
            base64.b64decode(case["body_base64"]),
            case["outcome"],
            case["status"],
        )

    def keyring(self) -> Keyring:
        keys = {kid.encode(): Key(secret.encode(), kid not in self.revoked) for kid, secret in self.keys.items()}
        return Keyring(keys, b"v1")

    def header_at(self, now_ms: int) -> str | None:
        """The header with its time moved by as much as the clock, and each right MAC made right again."""
        if self.header is None or not (sent := re.search(r"t=(\d{13})(?=,|$)", self.header)):
            return self.header
        offset = int(sent[1]) - self.now_ms
        if offset:
            margin = _MARGIN_MS if abs(offset) > _WINDOW_MS else -_MARGIN_MS
            offset += margin if offset > 0 else -margin
        time = str(now_ms + offset)

        def resign(match: re.Match[str]) -> str:
            for secret in self.keys.values():
                if self._mac(secret, sent[1]) == match[1].lower():
                    mac = self._mac(secret, time)
                    return "v1=" + (mac.upper() if match[1].isupper() else mac)
            return match[0]

        moved = self.header.replace(sent[0], f"t={time}")
        return re.sub(r"v1=([0-9a-fA-F]{64})", resign, moved)

    def _mac(self, secret: str, time: str) -> str:
        return hmac.digest(secret.encode(), time.encode() + b"." + self.body, "sha256").hex()


VECTORS = [Vector.read(case) for case in json.loads(FILE.read_bytes())]
