"""The self-test of a running receiver: signed events of its own go in, a forged one does not, and each of the sender's
keys is what it is said to be (contract, "Self-test").
"""

import uuid
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from molam_webhook.config import ReceiverSettings
from molam_webhook.keyring import SELFTEST_KID, Key
from molam_webhook.outcomes import STATUS, Outcome
from molam_webhook.send import Report, Sender, make_event, send


class Proof(NamedTuple):
    """One thing that was tried: what it was, what the answer should be, and the answer."""

    name: str
    wanted: Outcome
    report: Report

    @property
    def passed(self) -> bool:
        """Whether status and outcome are the wanted ones."""
        try:
            answer = orjson.loads(self.report.answer)
        except orjson.JSONDecodeError:
            return False
        outcome = answer.get("status") or answer.get("error") if isinstance(answer, dict) else None
        return self.report.status == STATUS[self.wanted] and outcome == self.wanted


def run(settings: ReceiverSettings, uds: Path) -> list[Proof]:
    """Send an event, the same again, and a forged one to the receiver on the socket `uds`; then one signature of each
    of the sender's keys.

    The events are under the self-test's key, whose events no handler reads. What the other keys sign is no event: the
    receiver says so once it has verified the signature, and stores nothing. Raises ValueError where the self-test has
    no key.
    """
    key = settings.keyring.keys.get(SELFTEST_KID.encode())
    if key is None:
        raise ValueError("SELFTEST_SECRET is missing: there is no key for a self-test")
    name = f"selftest_{uuid.uuid4().hex}"
    event = make_event("payment.succeeded", name, payment_intent=name, order_id=name, amount=0, currency="XOF")
    url = f"http://localhost{settings.molam_webhook_path}"

    def ask(kid: str, key: Key, event: dict[str, Any], *, forge: bool = False) -> Report:
        sender = Sender(url=url, secret=key.secret, kid=kid, forge=forge, connect_to=f"unix:{uds}")
        return send(sender, [event])[0]

    def ask_under(name: bytes, key: Key) -> Proof:
        kid = name.decode()
        report = ask(kid, key, event | {"id": ""})
        if key.active:
            return Proof(f"a signature of {kid} holds", Outcome.INVALID_EVENT, report)
        return Proof(f"a signature of {kid} is refused", Outcome.REVOKED_KEY, report)

    return [
        Proof("an event is stored", Outcome.ACCEPTED, ask(SELFTEST_KID, key, event)),
        Proof("the same event again is known", Outcome.DUPLICATE, ask(SELFTEST_KID, key, event)),
        Proof("a forged event is refused", Outcome.SIGNATURE_MISMATCH, ask(SELFTEST_KID, key, event, forge=True)),
        *(ask_under(kid, other) for kid, other in settings.keyring.keys.items() if other is not key),
    ]
