"""Signatures as a pure function: the contract's vectors, its grammar, and the traps around it."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from molam_webhook import event, signature
from molam_webhook.keyring import Key, Keyring
from molam_webhook.outcomes import STATUS, Outcome
from support import KEYRING, SECRET
from vectors import FILE, VECTORS, Vector

NOW = 1_763_800_000_000
BODY = b'{"id":"evt_1","type":"t"}'
MAC = "ab" * 32


def verify(header: bytes | None, now_ms: int = NOW, *, clock_trusted: bool = True) -> Outcome:
    return signature.verify(header, BODY, now_ms, KEYRING, clock_trusted=clock_trusted).outcome


def sign(now_ms: int = NOW, kid: str | None = None) -> bytes:
    return signature.sign(BODY, SECRET.encode(), now_ms, kid).encode()


@pytest.mark.checklist("HOOK-1")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_vector(vector: Vector) -> None:
    header = None if vector.header is None else vector.header.encode()
    outcome = signature.verify(header, vector.body, vector.now_ms, vector.keyring()).outcome
    if outcome is Outcome.ACCEPTED:
        parsed = event.parse(vector.body)
        outcome = parsed if isinstance(parsed, Outcome) else outcome
    assert (outcome, STATUS[outcome]) == (vector.outcome, vector.status)


def test_vectors_are_the_contracts() -> None:
    original = Path(__file__).parents[3] / "shared" / "contract" / "signature-vectors.json"
    if not original.exists():
        pytest.skip("the contract is not beside the repository")
    assert FILE.read_bytes() == original.read_bytes()


def test_every_outcome_has_a_status() -> None:
    assert set(STATUS) == set(Outcome)


@pytest.mark.checklist("HOOK-2")
@pytest.mark.parametrize("offset", [-300_000, 0, 300_000])
def test_the_window_includes_its_edges(offset: int) -> None:
    assert verify(sign(), NOW + offset) is Outcome.ACCEPTED


@pytest.mark.checklist("HOOK-2")
@pytest.mark.parametrize("offset", [-300_001, 300_001])
def test_one_millisecond_beyond_is_too_much(offset: int) -> None:
    assert verify(sign(), NOW + offset) is Outcome.TIMESTAMP_OUT_OF_WINDOW


def test_a_right_mac_against_a_clock_known_to_be_wrong_is_our_fault() -> None:
    assert verify(sign(), NOW + 10**9, clock_trusted=False) is Outcome.CLOCK_UNSYNCHRONISED
    assert STATUS[Outcome.CLOCK_UNSYNCHRONISED] == 503
    forged = f"t={NOW},v1={MAC}".encode()
    assert verify(forged, NOW + 10**9, clock_trusted=False) is Outcome.TIMESTAMP_OUT_OF_WINDOW
    assert verify(sign(), clock_trusted=False) is Outcome.ACCEPTED


@pytest.mark.parametrize(
    "time",
    [
        "1_763_800_0000",
        "+176380000000",
        " 176380000000",
        "".join(chr(0xFF10 + int(digit)) for digit in str(NOW)),
        "176380000000",
        "17638000000000",
        "",
    ],
)
def test_a_time_that_only_int_would_take_is_malformed(time: str) -> None:
    assert verify(f"t={time},v1={MAC}".encode()) is Outcome.MALFORMED_SIGNATURE


@pytest.mark.parametrize(
    "header",
    [
        f"t={NOW},t={NOW},v1={MAC}",
        f"t={NOW},v1={MAC},kid=a,kid=a",
        f"t={NOW},v1={MAC},kid=",
        f"t={NOW},v1={MAC},kid={'a' * 65}",
        f"t={NOW},v1={MAC},kid=a/b",
        f"t={NOW},v1={MAC},",
        f",t={NOW},v1={MAC}",
        f"t={NOW};v1={MAC}",
        f"t={NOW},v1={MAC} ",
        f"t={NOW} ,v1={MAC}",
        f" t={NOW},v1={MAC}",
        f"t={NOW},v1={MAC}\n",
        f"t={NOW},v1={MAC},é=1",
        f"t={NOW},v1={chr(0xFF41) * 64}",
        f"t={NOW}," + ",".join([f"v1={MAC}"] * 9),
        f"t={NOW},v1={MAC},x={'y' * 1024}",
    ],
)
def test_malformed(header: str) -> None:
    assert verify(header.encode()) is Outcome.MALFORMED_SIGNATURE


def test_unknown_fields_and_any_order_are_fine() -> None:
    time, mac = sign().split(b",")
    assert verify(b",\t".join([b"v2=x=y", mac, b"kid=v1", time])) is Outcome.ACCEPTED
    assert verify(b",".join([time, *[f"v1={MAC}".encode()] * 7, mac])) is Outcome.ACCEPTED


def test_a_header_of_just_a_kibibyte_is_read() -> None:
    header = sign() + b",x="
    assert verify(header.ljust(1024, b"y")) is Outcome.ACCEPTED
    assert verify(header.ljust(1025, b"y")) is Outcome.MALFORMED_SIGNATURE


def test_the_kid_is_looked_at_before_the_mac_and_after_the_window() -> None:
    keyring = Keyring({b"v1": Key(SECRET.encode(), active=True), b"v0": Key(SECRET.encode(), active=False)}, b"v1")
    cases = {"v0": Outcome.REVOKED_KEY, "v9": Outcome.UNKNOWN_KEY, "v1": Outcome.SIGNATURE_MISMATCH}
    for kid, outcome in cases.items():
        header = f"t={NOW},v1={MAC},kid={kid}".encode()
        assert signature.verify(header, BODY, NOW, keyring) == (outcome, kid)
        assert signature.verify(header, BODY, 0, keyring) == (Outcome.TIMESTAMP_OUT_OF_WINDOW, kid)


@given(st.binary(max_size=1100))
def test_no_header_is_too_strange(header: bytes) -> None:
    expected = Outcome.MALFORMED_SIGNATURE if header else Outcome.MISSING_SIGNATURE
    assert verify(header) is expected


_KIDS = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=64)


@given(
    macs=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=8),
    kid=st.none() | _KIDS,
    unknown=st.lists(st.sampled_from(["v2=", "a=b", "scheme=x y"]), max_size=3),
    upper=st.booleans(),
    space=st.sampled_from(["", " ", "\t "]),
    time=st.integers(0, 10**13 - 1),
    order=st.randoms(use_true_random=False),
)
def test_what_is_written_by_the_grammar_is_read_back(
    macs: list[bytes], kid: str | None, unknown: list[str], upper: bool, space: str, time: int, order: object
) -> None:
    digits = f"{time:013d}"
    fields = [f"v1={mac.hex().upper() if upper else mac.hex()}" for mac in macs]
    others = [f"t={digits}", *([f"kid={kid}"] if kid else []), *unknown]
    order.shuffle(others)  # type: ignore[attr-defined]
    header = f",{space}".join([*others, *fields]).encode()
    if len(header) <= signature.MAX_HEADER_BYTES:
        expected = signature.Signature(digits.encode(), macs, kid.encode() if kid else None)
        assert signature.parse(header) == expected
    else:
        assert signature.parse(header) is None
