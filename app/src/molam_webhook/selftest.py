"""The self-test of a running receiver: signed events of its own go in, a forged one does not, and each of the sender's
keys is what it is said to be (contract, "Self-test").
"""

import ssl
import uuid
from typing import Any, NamedTuple

import orjson

from molam_webhook.config import ReceiverSettings
from molam_webhook.keyring import SELFTEST_KID, Key
from molam_webhook.outcomes import STATUS, Outcome
from molam_webhook.send import Report, Sender, make_event, send, spread


class Door(NamedTuple):
    """The way in that is tried: its URL, where to connect instead (HOST:PORT or unix:PATH), and whose certificates
    hold, None being the system's list.
    """

    url: str
    connect_to: str | None = None
    trust: ssl.SSLContext | None = None


class Proof(NamedTuple):
    """One thing that was tried, once or several times: what it was, what the answer should be, and the answers."""

    name: str
    wanted: Outcome
    reports: list[Report]

    @property
    def passed(self) -> bool:
        """Whether status and outcome are the wanted ones, each time."""
        return all(map(self._holds, self.reports))

    @property
    def report(self) -> Report:
        """The first one that is not as wanted, if there is one."""
        return next((report for report in self.reports if not self._holds(report)), self.reports[0])

    def _holds(self, report: Report) -> bool:
        try:
            answer = orjson.loads(report.answer)
        except orjson.JSONDecodeError:
            return False
        outcome = answer.get("status") or answer.get("error") if isinstance(answer, dict) else None
        return report.status == STATUS[self.wanted] and outcome == self.wanted


class Result(NamedTuple):
    """What was proved, and how long the timed events took (`send.spread`): None where there were none."""

    proofs: list[Proof]
    latency: dict[str, float] | None

    @property
    def passed(self) -> bool:
        """Whether all was proved."""
        return all(proof.passed for proof in self.proofs)


def run(settings: ReceiverSettings, door: Door, timed: int) -> Result:
    """Send an event, the same again, and a forged one; then one signature of each of the sender's keys; then `timed`
    more events, one after the other over one connection, unless something failed before.

    The events are under the self-test's key, whose events no handler reads. What the other keys sign is no event: the
    receiver says so once it has verified the signature, and stores nothing. Raises ValueError where the self-test has
    no key.
    """
    key = settings.keyring.keys.get(SELFTEST_KID.encode())
    if key is None:
        raise ValueError("SELFTEST_SECRET is missing: there is no key for a self-test")

    def ask(kid: str, key: Key, *events: dict[str, Any], forge: bool = False) -> list[Report]:
        return send(Sender(**door._asdict(), secret=key.secret, kid=kid, forge=forge), events)

    def ask_under(name: bytes, key: Key) -> Proof:
        kid = name.decode()
        reports = ask(kid, key, event | {"id": ""})
        if key.active:
            return Proof(f"a signature of {kid} holds", Outcome.INVALID_EVENT, reports)
        return Proof(f"a signature of {kid} is refused", Outcome.REVOKED_KEY, reports)

    event = _event()
    proofs = [
        Proof("an event is stored", Outcome.ACCEPTED, ask(SELFTEST_KID, key, event)),
        Proof("the same event again is known", Outcome.DUPLICATE, ask(SELFTEST_KID, key, event)),
        Proof("a forged event is refused", Outcome.SIGNATURE_MISMATCH, ask(SELFTEST_KID, key, event, forge=True)),
        *(ask_under(kid, other) for kid, other in settings.keyring.keys.items() if other is not key),
    ]
    if not timed or not all(proof.passed for proof in proofs):
        return Result(proofs, None)
    reports = ask(SELFTEST_KID, key, *(_event() for _ in range(timed)))
    return Result([*proofs, Proof(f"{timed} more are stored", Outcome.ACCEPTED, reports)], spread(reports))


def _event() -> dict[str, Any]:
    name = f"selftest_{uuid.uuid4().hex}"
    return make_event("payment.succeeded", name, payment_intent=name, order_id=name, amount=0, currency="XOF")
