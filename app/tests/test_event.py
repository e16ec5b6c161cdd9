"""Events in bodies: strict JSON, and the members that the contract demands."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from molam_webhook import event
from molam_webhook.event import Event
from molam_webhook.outcomes import Outcome


def test_an_event_is_read() -> None:
    body = b'{"id": "evt_1", "type": "payment.succeeded", "created": 1763800000, "data": {"id": "pi_1"}}'
    created = datetime(2025, 11, 22, 8, 26, 40, tzinfo=UTC)
    assert event.parse(body) == Event("evt_1", "payment.succeeded", created, {"id": "pi_1"})


@pytest.mark.checklist("APP-1")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b'{"id":"a","type":"b","x":NaN}',
        b'{"id":"a","type":"b","x":Infinity}',
        b'{"id":"a","type":"b","x":"\\ud800"}',
        b'{"id":"\xff","type":"b"}',
        b'\xef\xbb\xbf{"id":"a","type":"b"}',
        b"{'id':'a'}",
        b'{"id":"a","type":"b",}',
        b'{"id":"a","type":"b"} {}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"id":"a","type":"b","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
    ids=range(13),
)
def test_not_strict_json(body: bytes) -> None:
    assert event.parse(body) is Outcome.INVALID_JSON


@pytest.mark.checklist("APP-1")
@pytest.mark.parametrize(
    "body",
    [
        b"[1]",
        b'"evt"',
        b"null",
        b"{}",
        b'{"type":"x"}',
        b'{"id":"x"}',
        b'{"id":"","type":"x"}',
        b'{"id":"x","type":""}',
        b'{"id":1,"type":"x"}',
        b'{"id":"x","type":null}',
        b'{"id":"x","type":["y"]}',
        b'{"id":"a\\u0000","type":"x"}',
        b'{"id":"x","type":"a\\u0000b"}',
        b'{"id":"x","type":"y","id":"x"}',
        b'{"id":"x","type":"y","\\u0069d":"z"}',
        b'{"id":"x","type":"y","data":1,"data":{"a":{}}}',
        b'{"id":"' + b"x" * 256 + b'","type":"y"}',
        b'{"id":"x","type":"' + "é".encode() * 256 + b'"}',
    ],
    ids=range(18),
)
def test_json_but_no_event(body: bytes) -> None:
    assert event.parse(body) is Outcome.INVALID_EVENT


@pytest.mark.parametrize(
    "body",
    [
        '{"id":"' + "é" * 255 + '","type":"' + "😀" * 255 + '"}',
        '{"id":"x","type":"y","data":{"a":1,"a":2}}',
        '{"id":"x:{","type":"y\\"[","data":[{"b":":"}]}',
        '{"id":"x","type":"y","n":123456789012345678901234567890}',
        '{"id":"x","type":"y","n":' + "[" * 900 + "]" * 900 + "}",
    ],
    ids=range(5),
)
def test_unusual_but_an_event(body: str) -> None:
    assert isinstance(event.parse(body.encode()), Event)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1.5, datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)),
        ("2025-11-22T08:26:40Z", datetime(2025, 11, 22, 8, 26, 40, tzinfo=UTC)),
        ("2025-11-22T09:26:40+01:00", datetime(2025, 11, 22, 8, 26, 40, tzinfo=UTC)),
        ("2025-11-22T08:26:40", datetime(2025, 11, 22, 8, 26, 40, tzinfo=UTC)),
        ("0001-01-01T00:00:00+14:00", None),
        ("yesterday", None),
        (10**30, None),
        (float("inf"), None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_read_time(value: object, expected: datetime | None) -> None:
    assert event.read_time(value) == expected


_NAMES = st.sampled_from(["id", "type", "data", "a", 'q"', "b\\", "{", "[:]", "", "é"])
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | _NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)


def _top_level_repeats(body: bytes) -> bool:
    """Python's own parser as the oracle: the last object it closes is the outermost."""
    pairs: list[list[tuple[str, Any]]] = []

    def keep(members: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append(members)
        return dict(members)

    json.loads(body, object_pairs_hook=keep)
    names = [name for name, _ in pairs[-1]]
    return len(names) != len(set(names))


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=6), st.booleans(), st.sampled_from([None, 1]))
@example([("id", "x"), ("id", "y")], True, None)
def test_repeated_members_are_seen_as_by_the_oracle(
    members: list[tuple[str, Any]], ascii_only: bool, indent: int | None
) -> None:
    every = [("id", "evt"), ("type", "t"), *members]
    # As few bytes as can be, as most senders write, or spread out.
    comma, colon, separators = (",", ":", (",", ":")) if indent is None else (",\n", " : ", None)

    def write(value: object) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)

    texts = [write(name) + colon + write(value) for name, value in every]
    try:
        body = ("{" + comma.join(texts) + "}").encode()
    except UnicodeEncodeError:
        return
    outcome = event.parse(body)
    if outcome is not Outcome.INVALID_JSON:
        assert (outcome is Outcome.INVALID_EVENT) == _top_level_repeats(body)


@given(st.binary(max_size=200))
def test_nothing_raises(body: bytes) -> None:
    event.parse(body)
