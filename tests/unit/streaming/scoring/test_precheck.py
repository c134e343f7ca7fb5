import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.records import Rejection
from streaming.scoring.precheck import precheck
from tests.e2e.bad_records import all_kinds, bad_values, strange_but_good
from tests.e2e.verifier import deserves


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "empty"),
        (b"\xff", "not_json"),
        (b'{"a":"\xff"}', "not_utf8"),
        (b"{", "not_json"),
        (b"[]", "not_object"),
        (b"7", "not_object"),
        (b'{"a":1,"a":1}', "duplicate_key"),
        (b'{"a":1,"b":":","a":1}', "duplicate_key"),
        (b'{"a":1e999}', "number_out_of_range"),
        (b'{"a":' * 100_000, "too_deep"),
        (b"{},{}", "not_json"),
    ],
)
def test_malformed_records_are_told_apart(value: bytes | None, reason: str) -> None:
    found = precheck(value)
    assert isinstance(found, Rejection)
    assert (found.stage, found.reason) == ("parse", reason)


def test_a_key_repeated_in_a_nested_object_is_the_services_business() -> None:
    assert precheck(b'{"transaction_id":"T","x":{"a":1,"a":2}}') == "T"


def test_every_kind_of_bad_record_agrees_with_the_verifier() -> None:
    assert len(bad_values()) >= 100
    for _, value in all_kinds():
        is_parse_fault = isinstance(precheck(value), Rejection)
        assert is_parse_fault == (deserves(value) == "parse"), value


def test_odd_but_sound_records_pass() -> None:
    for value in strange_but_good():
        assert not isinstance(precheck(value), Rejection), value


def test_messages_hold_no_value() -> None:
    for _, value in all_kinds():
        found = precheck(value)
        if isinstance(found, Rejection):
            assert len(found.message) < 80


plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


nested = st.recursive(plain, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3))


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), nested, max_size=5))
def test_every_json_object_passes(found: dict[str, Any]) -> None:
    value = json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
    expected = found.get("transaction_id")
    assert precheck(value) == (expected if isinstance(expected, str) else None)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), plain), max_size=6))
def test_a_repeated_key_is_always_found(pairs: list[tuple[str, Any]]) -> None:
    members = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs)
    is_repeated = len({name for name, _ in pairs}) < len(pairs)
    found = precheck(b"{%b}" % members.encode())
    assert isinstance(found, Rejection) == is_repeated


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_no_bytes_are_too_strange(value: bytes) -> None:
    assert isinstance(precheck(value), str | Rejection | None)
