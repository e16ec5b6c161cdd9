"""What strangers may send: ten thousand requests of which none is valid, by construction.

The signature is wrong, or what it signs is no event.
"""

from itertools import product

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from molam_webhook import signature
from support import PATH, SECRET, event_body, now_ms, signed_headers

# The same requests every time, so that a failure can be seen again.
ten_thousand = settings(
    max_examples=10_000, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck]
)

MAX_BODY_BYTES = 262_144

# The contract's table, as far as these requests can get.
STATUS = {
    "not_found": 404,
    "method_not_allowed": 405,
    "unsupported_encoding": 415,
    "unsupported_media_type": 415,
    "too_large": 413,
    "missing_signature": 401,
    "malformed_signature": 401,
    "timestamp_out_of_window": 401,
    "signature_mismatch": 401,
    "unknown_key": 503,
    "invalid_json": 400,
    "invalid_event": 400,
}

Headers = list[tuple[bytes, bytes]]
Request = tuple[str, str, Headers, list[bytes]]

EVENT = event_body("evt_1")

# What goes wrong at the edges of parsers: signs, spaces, separators, digits that are none, NUL, what is not UTF-8.
junk = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"",
            b"0",
            b"-1",
            b"+5",
            b"1_2",
            "\uff11\uff12".encode(),
            b"\0",
            b"\r\n",
            b",,=",
            b"t=",
            b"\xff" * 9,
            b"9" * 4000,
        ]
    ),
)
no_names = st.one_of(st.none(), st.integers(-9, 9), st.booleans(), st.just(""), st.just("a\0"), st.just("x" * 256))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=9), st.integers(-(2**63), 2**64 - 1)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=3,
)
no_events = st.one_of(
    st.binary(max_size=60),
    st.integers(0, len(EVENT) - 1).map(lambda size: EVENT[:size]),
    values.map(lambda value: orjson.dumps([value])),
    values.map(lambda value: orjson.dumps({"id": "evt_1", "data": value})),
    no_names.map(lambda name: orjson.dumps({"id": name, "type": "payment.succeeded"})),
    no_names.map(lambda name: orjson.dumps({"id": "evt_1", "type": name})),
    st.sampled_from([b'{"id":"evt_0",' + EVENT[1:], b"\xef\xbb\xbf" + EVENT, EVENT + b"\0", EVENT[:-1] + b',"n":NaN}']),
    st.integers(1, 5000).map(lambda depth: b"[" * depth),
    st.just(b'{"id":"\\ud800","type":"a"}'),
)
bodies = st.one_of(st.just(EVENT), no_events, st.just(b" " * (MAX_BODY_BYTES + 1)))


# Much is decided by one draw: each costs more than what the application does with the request.
signers = list(product([None, "v1", "v9", "selftest", "x" * 64], [0, 0, -300_001, 400_000, 10**12]))
forms = st.sampled_from(["whole", "damaged", "damaged", "too long", "junk"])


@st.composite
def wrong_signatures(draw: st.DrawFn, body: bytes) -> bytes:
    """A header that no key of ours made: of another key, perhaps old or damaged, or junk."""
    kid, late_ms = draw(st.sampled_from(signers))
    header = signature.sign(body, SECRET[::-1].encode(), now_ms() + late_ms, kid).encode()
    match draw(forms):
        case "damaged":
            start = draw(st.integers(0, len(header)))
            return header[:start] + draw(junk) + header[start + 2 :]
        case "too long":
            return header * 9
        case "junk":
            return draw(junk)
    return header


PLAIN = ("POST", PATH, b"application/json", 1)
heads = st.sampled_from(
    [PLAIN] * 30
    + [("POST", path, b"application/json", 1) for path in (PATH + "/", "/", "", "/\0", "/../etc/passwd")]
    + [(method, PATH, b"application/json", 1) for method in ("GET", "PUT", "OPTIONS", "", "post", "\0")]
    + [("POST", PATH, kind, 1) for kind in (b"APPLICATION/JSON; charset=utf-8", b"application/jsonp", b"\xff", b"")]
    + [("POST", PATH, b"application/json", number) for number in (0, 2, 9)]
)
names = st.sampled_from([b"content-length", b"content-encoding", b"x-request-id", b"x-real-ip", b"host", b"cookie"])
extras: st.SearchStrategy[Headers] = st.one_of(
    st.just([]), st.just([]), st.lists(st.tuples(names, junk), min_size=1, max_size=1)
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A method, a path, header fields and the parts of a body."""
    method, path, kind, repeats = draw(heads)
    genuine = draw(st.booleans())
    body = draw(no_events if genuine else bodies)
    header = signed_headers(body)["molam-signature"].encode() if genuine else draw(wrong_signatures(body))
    headers = [(b"content-type", kind), *draw(extras), *[(b"molam-signature", header)] * repeats]
    cut = draw(st.integers(0, len(body)))
    return method, path, headers, [body[:cut], body[cut:]]
