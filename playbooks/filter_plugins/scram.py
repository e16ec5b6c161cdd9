"""What PostgreSQL keeps of a password, so that the password itself is in no statement and in no log of the server."""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import b64encode
from collections.abc import Callable

# PostgreSQL's own number (scram_iterations).
ITERATIONS = 4096


def scram_sha_256(password: str, salt: bytes | None = None) -> str:
    """Return the verifier of a password in ASCII, as PostgreSQL stores it; the salt, 16 bytes, is random."""
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{salt_text}${stored_text}:{server_text}"


class FilterModule:
    """See the module's docstring."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters by name."""
        return {"scram_sha_256": scram_sha_256}
