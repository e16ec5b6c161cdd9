"""The `Molam-Signature` header: reading, verifying and making it (contract, "What is sent" and "What is
answered").
"""

import binascii
import hmac
import re
from typing import NamedTuple

from molam_webhook.keyring import Key, Keyring
from molam_webhook.outcomes import Outcome

WINDOW_MS = 300_000
MAX_HEADER_BYTES = 1024
MAX_MACS = 8

# Bytes throughout: int() would take other scripts' digits, and str would need decoding first.
_SEPARATOR = re.compile(rb",[ \t]*")
_FIELD = re.compile(rb"([A-Za-z0-9_.-]+)=([\x20-\x7e]*)")
_TIME = re.compile(rb"[0-9]{13}")
_MAC = re.compile(rb"[0-9A-Fa-f]{64}")
_KID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


class Signature(NamedTuple):
    """A well-formed header: the signed time as sent (13 digits), the raw MACs (1 to 8), the kid if one was
    named.
    """

    time: bytes
    macs: list[bytes]
    kid: bytes | None


def parse(header: bytes) -> Signature | None:
    """Read a header by the contract's grammar; None when it does not parse."""
    if len(header) > MAX_HEADER_BYTES:
        return None
    time: bytes | None = None
    kid: bytes | None = None
    macs: list[bytes] = []
    for part in _SEPARATOR.split(header):
        match = _FIELD.fullmatch(part)
        if match is None:
            return None
        name, value = match.groups()
        if name == b"v1":
            if not _MAC.fullmatch(value):
                return None
            macs.append(binascii.unhexlify(value))
        elif name == b"t":
            if time is not None or not _TIME.fullmatch(value):
                return None
            time = value
        elif name == b"kid":
            if kid is not None or not _KID.fullmatch(value):
                return None
            kid = value
    if time is None or not 1 <= len(macs) <= MAX_MACS:
        return None
    return Signature(time, macs, kid)


class Verdict(NamedTuple):
    """What verification found, and the kid that the signature is under (None where the header does not
    parse).
    """

    outcome: Outcome
    kid: str | None


def verify(header: bytes | None, body: bytes, now_ms: int, keyring: Keyring, *, clock_trusted: bool = True) -> Verdict:
    """Say whether `body` was signed, in time, with one of our keys. Pure.

    `header` is the raw header value (None when absent), `body` the raw request body, `now_ms` the host's
    time in unix milliseconds. `clock_trusted` is False only while the host's clock is known to be
    unsynchronised: a right MAC outside the window is then CLOCK_UNSYNCHRONISED rather than
    TIMESTAMP_OUT_OF_WINDOW.

    The outcome is ACCEPTED, or the first that applies in the contract's order: header, window, kid, MAC.
    """
    if not header:
        return Verdict(Outcome.MISSING_SIGNATURE, None)
    signature = parse(header)
    if signature is None:
        return Verdict(Outcome.MALFORMED_SIGNATURE, None)
    kid = keyring.default_kid if signature.kid is None else signature.kid
    in_window = abs(now_ms - int(signature.time)) <= WINDOW_MS
    outcome = Outcome.TIMESTAMP_OUT_OF_WINDOW
    if in_window or not clock_trusted:
        found = _verify_mac(signature, body, keyring.keys.get(kid))
        if in_window:
            outcome = found
        elif found is Outcome.ACCEPTED:
            outcome = Outcome.CLOCK_UNSYNCHRONISED
    return Verdict(outcome, kid.decode())


def sign(body: bytes, secret: bytes, now_ms: int, kid: str | None) -> str:
    """Make the header a sender would send for `body` at `now_ms` (unix milliseconds)."""
    header = f"t={now_ms:013d},v1={_mac(secret, b'%013d' % now_ms, body).hex()}"
    return header if kid is None else f"{header},kid={kid}"


def _verify_mac(signature: Signature, body: bytes, key: Key | None) -> Outcome:
    if key is None:
        return Outcome.UNKNOWN_KEY
    if not key.active:
        return Outcome.REVOKED_KEY
    expected = _mac(key.secret, signature.time, body)
    # Every MAC is compared, so the time taken does not tell which one matched.
    matches = [hmac.compare_digest(expected, mac) for mac in signature.macs]
    return Outcome.ACCEPTED if any(matches) else Outcome.SIGNATURE_MISMATCH


def _mac(secret: bytes, time: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, time + b"." + body, "sha256")
