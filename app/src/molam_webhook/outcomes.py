"""What can become of a delivery, and the HTTP status that says so (contract, "What is answered")."""

from enum import StrEnum
from http import HTTPStatus


class Outcome(StrEnum):
    """The outcome of one request; its value is the word the sender reads."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_LARGE = "too_large"
    MISSING_SIGNATURE = "missing_signature"
    MALFORMED_SIGNATURE = "malformed_signature"
    TIMESTAMP_OUT_OF_WINDOW = "timestamp_out_of_window"
    CLOCK_UNSYNCHRONISED = "clock_unsynchronised"
    UNKNOWN_KEY = "unknown_key"
    REVOKED_KEY = "revoked_key"
    SIGNATURE_MISMATCH = "signature_mismatch"
    RATE_LIMITED = "rate_limited"
    INVALID_JSON = "invalid_json"
    INVALID_EVENT = "invalid_event"
    UNAVAILABLE = "unavailable"


# 2xx only after COMMIT; 4xx only for what can never become valid; what may be our fault is 503.
STATUS: dict[Outcome, HTTPStatus] = {
    Outcome.ACCEPTED: HTTPStatus.OK,
    Outcome.DUPLICATE: HTTPStatus.OK,
    Outcome.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Outcome.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    Outcome.UNSUPPORTED_ENCODING: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Outcome.UNSUPPORTED_MEDIA_TYPE: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Outcome.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Outcome.MISSING_SIGNATURE: HTTPStatus.UNAUTHORIZED,
    Outcome.MALFORMED_SIGNATURE: HTTPStatus.UNAUTHORIZED,
    Outcome.TIMESTAMP_OUT_OF_WINDOW: HTTPStatus.UNAUTHORIZED,
    Outcome.CLOCK_UNSYNCHRONISED: HTTPStatus.SERVICE_UNAVAILABLE,
    Outcome.UNKNOWN_KEY: HTTPStatus.SERVICE_UNAVAILABLE,
    Outcome.REVOKED_KEY: HTTPStatus.UNAUTHORIZED,
    Outcome.SIGNATURE_MISMATCH: HTTPStatus.UNAUTHORIZED,
    Outcome.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    Outcome.INVALID_JSON: HTTPStatus.BAD_REQUEST,
    Outcome.INVALID_EVENT: HTTPStatus.BAD_REQUEST,
    Outcome.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}

# What counts against the caller: it has not shown that it holds a key of ours.
UNVERIFIED = frozenset(
    (
        Outcome.MISSING_SIGNATURE,
        Outcome.MALFORMED_SIGNATURE,
        Outcome.TIMESTAMP_OUT_OF_WINDOW,
        Outcome.UNKNOWN_KEY,
        Outcome.REVOKED_KEY,
        Outcome.SIGNATURE_MISMATCH,
    )
)
