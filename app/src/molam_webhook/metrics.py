"""What the receiver counts, for Prometheus. Importing this module registers it all with the process's registry.

Labels come from bounded sets: a sender's own words never become one.
"""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from molam_webhook.outcomes import Outcome

UNVERIFIED = "unverified"
SELFTEST = "selftest"
OTHER = "other"

_TYPES = frozenset(
    ("payment.succeeded", "payment.failed", "refund.succeeded", "refund.failed", "refund.created")
)  # fmt: skip
_FAMILIES = frozenset(("dispute", "payout", "customer", "subscription", "payment_intent"))

_WEBHOOKS = Counter(
    "molam_webhooks",
    "Requests to the webhook by what they were (event_type) and what became of them (status).",
    ["event_type", "status"],
)
_DURATION = Histogram(
    "molam_webhook_duration_seconds",
    "From a request's head to its answer, the commit included.",
    ["event_type"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
QUEUE_DEPTH = Gauge("molam_webhook_queue_depth", "Verified events that wait for a writer.")
BATCH_SIZE = Histogram(
    "molam_webhook_batch_size",
    "Events committed together.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
COMMIT_SECONDS = Histogram(
    "molam_webhook_commit_seconds",
    "Storing one batch, from asking for a connection to the commit.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
CONFLICTS = Counter("molam_webhook_conflicts", "Deliveries with another body under a known id.")
_UNKNOWN_KEYS = Counter("molam_webhook_unknown_keys", "Requests under a key id that is not configured.")


def event_type(name: str) -> str:
    """The label for an event's type: a type that the contract names, the family of one that it has seen, or
    `other`.
    """
    family = name.partition(".")[0]
    return name if name in _TYPES else family if family in _FAMILIES else OTHER


def count(label: str, outcome: Outcome, seconds: float) -> None:
    """Count one request to the webhook that took `seconds`."""
    requests, duration = _children(label, outcome)
    requests.inc()
    duration.observe(seconds)
    if outcome is Outcome.UNKNOWN_KEY:
        _UNKNOWN_KEYS.inc()


@cache
def _children(label: str, outcome: Outcome) -> tuple[Counter, Histogram]:
    # Looked up once: finding a labelled child costs more than counting.
    return _WEBHOOKS.labels(label, outcome), _DURATION.labels(label)
