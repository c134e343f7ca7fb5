"""What a body may be: the fast decoder, the published model and the errors agree."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bentos.classify.decoding import MAX_NAMED, Decoder, pack_features
from bentos.errors import ListTooLongError, MalformedError
from bentos.releases.release import FEATURE_NAMES
from bentos.schemas import feature_range, transaction_model
from bentos.settings.sections import LimitSettings
from tests.serving_fixtures import encoded

LIMITS = LimitSettings()
DECODER = Decoder(LIMITS, max_transactions=200)
MODEL = transaction_model(LIMITS)
VALID: dict[str, Any] = dict.fromkeys(FEATURE_NAMES, 0.25)


def refusal(body: bytes | str) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        DECODER.decode(body.encode() if isinstance(body, str) else body)
    return caught.value


def raw(value: str, name: str = "V3") -> str:
    """Return a valid transaction as JSON with the text `value` in the place of a feature."""
    return json.dumps({**VALID, name: "HERE"}).replace('"HERE"', value)


def test_one_object_and_a_list() -> None:
    rows, is_single = DECODER.decode(encoded({**VALID, "transaction_id": "T-17"}))
    assert is_single and rows[0].transaction_id == "T-17"
    rows, is_single = DECODER.decode(encoded([VALID, VALID]))
    assert not is_single and len(rows) == 2


def test_features_are_packed_in_order_as_float32() -> None:
    values = {name: number + 0.5 for number, name in enumerate(FEATURE_NAMES)}
    shuffled = dict(sorted(values.items(), reverse=True))
    rows, _ = DECODER.decode(encoded(shuffled))
    packed = np.frombuffer(pack_features(rows), "<f4")
    assert packed.tolist() == [number + 0.5 for number in range(30)]


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        '"1.5"',
        "true",
        "null",
        "[1]",
        "{}",
        "1" * 400,
        "01",
        "1.",
    ],
)
def test_what_is_not_a_finite_number_is_refused(value: str) -> None:
    refusal(raw(value))
    refusal(f"[{raw('0.5')},{raw(value)}]")


@pytest.mark.parametrize("value", ["1", "-0.0", "1e2", "1E-400", "999.9999999999999999", "1000"])
def test_every_finite_json_number_within_the_limits_is_taken(value: str) -> None:
    DECODER.decode(raw(value).encode())


@pytest.mark.parametrize("name", FEATURE_NAMES)
def test_limits_are_the_published_ones(name: str) -> None:
    smallest, largest = feature_range(name, LIMITS)
    for inside in (smallest, largest):
        DECODER.decode(encoded({**VALID, name: inside}))
    for outside in (np.nextafter(smallest, -np.inf), np.nextafter(largest, np.inf)):
        error = refusal(encoded({**VALID, name: outside}))
        assert [detail["loc"] for detail in error.detail] == [[name]]


def test_bad_places_are_all_named() -> None:
    rows: list[Any] = [dict(VALID) for _ in range(6)]
    rows[1]["V1"] = "text"
    rows[1]["V2"] = 5000
    del rows[3]["Amount"]
    rows[4] = "no object"
    error = refusal(encoded(rows))
    assert {tuple(detail["loc"][:2]) for detail in error.detail} == {
        (1, "V1"),
        (1, "V2"),
        (3, "Amount"),
        (4,),
    }
    assert error.message == "3 invalid transactions"


@pytest.mark.parametrize("value", ["1e999", "1" * 400])
def test_numbers_beyond_float_have_their_place(value: str) -> None:
    assert refusal(f"[{raw('1')},{raw(value)}]").detail[0]["loc"] == [1, "V3"]


def test_the_first_hundred_bad_rows_are_named_each() -> None:
    error = refusal(encoded([{} for _ in range(150)]))
    named = {detail["loc"][0] for detail in error.detail}
    assert named == set(range(MAX_NAMED))


def test_no_value_of_a_transaction_is_repeated() -> None:
    secret = "4929123412341234"
    rows = [
        {**VALID, "V1": secret},
        {**VALID, "transaction_id": int(secret)},
        {**VALID, secret: 1, "V2": None},
    ]
    error = refusal(encoded(rows))
    assert len({detail["loc"][0] for detail in error.detail}) == 3
    assert secret not in json.dumps(error.detail) + error.message


@pytest.mark.parametrize(
    "body", [b"", b" ", b"null", b"3", b'"x"', b"[", b"{", b"[]]", b"{}{}", b"\xef\xbb\xbf{}"]
)
def test_what_is_no_transaction_is_refused(body: bytes) -> None:
    refusal(body)


def test_an_empty_list_is_refused() -> None:
    assert refusal(b"[]").reason == "empty_list"


def test_a_long_list_is_refused_good_or_bad() -> None:
    for row in (VALID, {}):
        with pytest.raises(ListTooLongError):
            DECODER.decode(encoded([row] * 201))


@pytest.mark.parametrize("field", ["transaction_id", "note"])
def test_broken_utf8_is_refused_wherever_it_is(field: str) -> None:
    body = encoded({**VALID, field: "HERE"}).replace(b"HERE", b"\xff\xfe")
    assert refusal(body).reason == "encoding"


def test_lone_surrogates_are_refused() -> None:
    refusal(encoded({**VALID, "transaction_id": "HERE"}).replace(b"HERE", b"\\ud800"))


@pytest.mark.parametrize("name", ["V3", "transaction_id", "note", "V\\u0033"])
def test_a_key_given_twice_is_refused(name: str) -> None:
    body = json.dumps({**VALID, "transaction_id": "a", "note": 1})[:-1] + f', "{name}": 0.5}}'
    if name == "transaction_id":
        body = body.replace('"transaction_id": 0.5', '"transaction_id": "b"')
    error = refusal(f"[{json.dumps(VALID)},{body}]")
    assert error.detail[0]["loc"][0] == 1
    assert error.detail[0]["type"] == "duplicate_key"
    refusal(body)


def test_other_fields_are_ignored_whatever_they_hold() -> None:
    others = {
        'qu"ote': 'a "quoted" text',
        "nested": {"V1": "x", "V": [{"V1": None}]},
        "Class": 1,
        "back\\": "\\",
    }
    rows, _ = DECODER.decode(encoded([{**VALID, **others}, VALID]))
    assert len(rows) == 2


def test_deep_nesting_is_refused_not_fatal() -> None:
    depth = 200_000
    refusal(json.dumps(VALID)[:-1] + ', "x": ' + "[" * depth + "]" * depth + "}")


@pytest.mark.parametrize("identity", ["", "x" * 128, "é" * 128, "Ü-1"])
def test_identities_up_to_128_characters(identity: str) -> None:
    rows, _ = DECODER.decode(encoded({**VALID, "transaction_id": identity}))
    assert rows[0].transaction_id == identity


@pytest.mark.parametrize("identity", ["x" * 129, "é" * 129, None, 17, True, ["a"]])
def test_other_identities_are_refused(identity: Any) -> None:
    assert refusal(encoded({**VALID, "transaction_id": identity})).detail[0]["loc"] == ["transaction_id"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=140),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([*FEATURE_NAMES, "transaction_id", "other"]), JSON, max_size=3),
    st.booleans(),
)
def test_the_decoder_and_the_published_model_agree(spoilt: dict[str, Any], drop: bool) -> None:
    row = {**VALID, **spoilt}
    if drop:
        row.pop("V7")
    body = json.dumps(row, allow_nan=False).encode()
    try:
        MODEL.model_validate_json(body)
    except ValidationError as error:
        expected = {fault["loc"][0] for fault in error.errors()}
        assert {detail["loc"][0] for detail in refusal(body).detail} == expected
    else:
        DECODER.decode(body)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    try:
        DECODER.decode(body)
    except (MalformedError, ListTooLongError) as error:
        json.dumps(error.detail)


@given(st.data())
def test_a_spoilt_byte_never_passes_as_something_else(data: st.DataObject) -> None:
    """Whatever one changed byte makes of a body, it is taken only as the published model reads it."""
    body = bytearray(encoded({**VALID, "transaction_id": "T-1"}))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        rows, _ = DECODER.decode(bytes(body))
    except (MalformedError, ListTooLongError):
        return
    published = MODEL.model_validate_json(bytes(body)).model_dump()
    assert [getattr(rows[0], name) for name in FEATURE_NAMES] == [published[name] for name in FEATURE_NAMES]
