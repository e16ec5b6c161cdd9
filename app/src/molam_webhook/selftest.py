"""The self-test of a running receiver: signed events of its own go in, a forged one does not (contract,
"Self-test").
"""

import uuid
from pathlib import Path
from typing import NamedTuple

import orjson

from molam_webhook.config import ReceiverSettings
from molam_webhook.keyring import SELFTEST_KID
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
    """Send an event, the same again, and a forged one to the receiver on the socket `uds`.

    All under the self-test's key, whose events no handler reads. Raises ValueError where that key is not configured.
    """
    key = settings.keyring.keys.get(SELFTEST_KID.encode())
    if key is None:
        raise ValueError("SELFTEST_SECRET is missing: there is no key for a self-test")
    name = f"selftest_{uuid.uuid4().hex}"
    event = make_event("payment.succeeded", name, payment_intent=name, order_id=name, amount=0, currency="XOF")
    url = f"http://localhost{settings.molam_webhook_path}"

    def ask(*, forge: bool = False) -> Report:
        sender = Sender(url=url, secret=key.secret, kid=SELFTEST_KID, forge=forge, connect_to=f"unix:{uds}")
        return send(sender, [event])[0]

    return [
        Proof("an event is stored", Outcome.ACCEPTED, ask()),
        Proof("the same event again is known", Outcome.DUPLICATE, ask()),
        Proof("a forged event is refused", Outcome.SIGNATURE_MISMATCH, ask(forge=True)),
    ]
