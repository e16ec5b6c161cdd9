"""What is counted, and that a sender's own words never become a label."""

import pytest
from molam_webhook import metrics
from molam_webhook.outcomes import Outcome
from prometheus_client import REGISTRY


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("payment.succeeded", "payment.succeeded"),
        ("refund.created", "refund.created"),
        ("dispute.opened.again", "dispute"),
        ("payment_intent.created", "payment_intent"),
        ("subscription", "subscription"),
        ("payment.invented", "other"),
        ("disputed.opened", "other"),
        ("", "other"),
    ],
)
def test_types_are_bounded(name: str, label: str) -> None:
    assert metrics.event_type(name) == label


def test_a_request_is_counted_with_its_time() -> None:
    def sample(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def read() -> tuple[float, ...]:
        return (
            sample("molam_webhooks_total", event_type="unverified", status="unknown_key"),
            sample("molam_webhook_duration_seconds_sum", event_type="unverified"),
            sample("molam_webhook_unknown_keys_total"),
        )

    before = read()
    metrics.count(metrics.UNVERIFIED, Outcome.UNKNOWN_KEY, 0.25)
    metrics.count(metrics.UNVERIFIED, Outcome.SIGNATURE_MISMATCH, 0.25)
    assert [after - earlier for after, earlier in zip(read(), before, strict=True)] == [1, 0.5, 1]
