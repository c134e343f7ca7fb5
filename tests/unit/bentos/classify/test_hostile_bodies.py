"""Bodies made to hurt: their cost is bounded, their faults are named, and every decoder reads them alike."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.classify.decoding import Decoder
from bentos.errors import ListTooLongError, MalformedError
from bentos.releases.release import FEATURE_NAMES
from bentos.schemas import transaction_model
from bentos.settings.sections import LimitSettings
from tests.serving_fixtures import encoded

LIMITS = LimitSettings()
DECODER = Decoder(LIMITS, max_transactions=200)
MODEL = transaction_model(LIMITS)
VALID: dict[str, Any] = dict.fromkeys(FEATURE_NAMES, 0.25)
# The escape in the key leaves the fast decoder without a proof that each key comes once.
ESCAPED_KEY = '"q\\"": 1'


def refusal(body: bytes | str) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        DECODER.decode(body.encode() if isinstance(body, str) else body)
    return caught.value


def transaction(*members: str) -> str:
    """Return a valid transaction as JSON with further members."""
    return json.dumps(VALID)[:-1] + "".join(f", {member}" for member in members) + "}"


def with_v3(value: str) -> str:
    """Return a transaction as JSON with the text `value` for V3."""
    return json.dumps({**VALID, "V3": "HERE"}).replace('"HERE"', value)


def listed(*rows: str) -> str:
    return "[" + ",".join(rows) + "]"


def nested(levels: int) -> str:
    """Return a member whose value is so many levels deep."""
    return '"x": ' + "[" * levels + "]" * levels


@pytest.mark.parametrize("levels", [100, 500, 968, 969, 970, 971, 972, 973, 974, 975, 980, 1000, 200_000])
def test_nesting_over_the_limit_is_refused_by_index(levels: int) -> None:
    deep = transaction(nested(levels))
    assert refusal(deep).detail[0]["type"] == "too_deep"
    error = refusal(listed(deep, with_v3("1"), with_v3("null"), transaction(nested(99))))
    faults = [(detail["loc"][0], detail["type"]) for detail in error.detail]
    assert faults == [(0, "too_deep"), (2, "float_type")]


def test_nesting_up_to_the_limit_is_ignored() -> None:
    row = transaction(nested(99))
    assert len(DECODER.decode(row.encode()).transactions) == 1
    assert len(DECODER.decode(listed(row, row).encode()).transactions) == 2


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e5000", "0." + "9" * 5000])
def test_an_ignored_number_may_have_any_size(number: str) -> None:
    """It was a 5xx beside a bad row, and a repeated key beside it was scored."""
    ignored = f'"z": {number}'
    row, twice = transaction(ignored, ESCAPED_KEY), transaction(ignored, '"V1": 7')
    assert len(DECODER.decode(row.encode()).transactions) == 1
    assert {detail["loc"][0] for detail in refusal(listed('{"V1": 1}', row)).detail} == {0}
    assert refusal(twice).reason == "duplicate_key"
    assert [detail["loc"] for detail in refusal(listed(row, twice)).detail] == [[1, "V1"]]


@pytest.mark.parametrize("number", ["1e5000", "1" + "0" * 5000, "-1e400"])
def test_a_number_out_of_range_names_its_place(number: str) -> None:
    fault = {"loc": ["V3"], "type": "finite_number", "msg": "Input should be a finite number"}
    assert refusal(with_v3(number)).detail == [fault]


LONGEST = {
    "keys": transaction(*(f'"k{number}": 0' for number in range(1_000_000)), ESCAPED_KEY),
    "repeated": transaction(*['"V1": 0'] * 1_000_000),
    "numbers": transaction('"x": [' + "0," * 7_000_000 + "0]", ESCAPED_KEY),
    "objects": transaction('"x": [' + '{"a": 0},' * 1_500_000 + "0]", '"V1": 1'),
    "list": "[" + "0," * 7_000_000 + "0]",
    "brackets": "[" * 7_000_000 + "]" * 7_000_000,
    "mixed": listed('{"":[' * 100_000 + "]}" * 100_000),
    "escapes": '["' + "\\\\" * 7_000_000 + '"]',
    "rows": listed(*[transaction('"x": [' + "[]," * 300 + "1]")] * 10_000),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", LONGEST)
def test_the_longest_bodies_are_read_in_linear_time_and_memory(kind: str) -> None:
    """A look that is quadratic takes hours for 15 MB; a list of zeros took 75 times its length."""
    body = LONGEST[kind].encode()
    assert len(body) < 17_000_000
    tracemalloc.start()
    try:
        Decoder(LIMITS, 10_000).decode(body)
    except (MalformedError, ListTooLongError) as error:
        assert len(error.detail) <= 100 * 32
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 20 * len(body)


def test_faults_of_a_row_are_bounded() -> None:
    """58 kB of repeated keys made 3,000 details."""
    for times in (3, 100):
        members = [f'"{name}": null' for name in FEATURE_NAMES * times]
        assert 30 <= len(refusal("{" + ",".join(members) + "}").detail) <= 32
    invented = [f'"k{number % 5}": 0' for number in range(3000)]
    assert [detail["loc"] for detail in refusal(listed(transaction(*invented))).detail] == [[0]]
    error = refusal(listed(*[transaction('"k": 0', '"k": 1', '"V1": 1', '"V2": 0')] * 150))
    assert len(error.detail) == 200
    assert error.message == "150 invalid transactions"


def test_transactions_are_counted_not_their_faults() -> None:
    error = refusal("{}")
    assert (error.message, len(error.detail)) == ("1 invalid transaction", 30)


def test_half_a_surrogate_pair_is_refused_by_index() -> None:
    rows = [json.dumps({**VALID, "transaction_id": "a"})] * 150
    rows[120] = rows[120].replace('"a"', '"\\ud800"')
    assert [detail["loc"] for detail in refusal(listed(*rows)).detail] == [[120]]


def test_a_row_that_is_not_utf8_is_refused_by_index() -> None:
    row = encoded({**VALID, "note": "HERE"})
    error = refusal(b"[" + row.replace(b"HERE", "é".encode()) + b"," + row.replace(b"HERE", b"\xff") + b"]")
    assert [(detail["loc"], detail["type"]) for detail in error.detail] == [([1], "string_unicode")]


SPACE = st.sampled_from(["", " ", "\n\t", "\r\n "])
KEYS = ("V1", "V\\u0031", "Time", "Amount", "transaction_id", "x", '\\"', "a:{[,", "\\ud800")
KEY = st.sampled_from([f'"{key}"' for key in KEYS])
TEXTS = ("\\\\", "]},:{", '\\"\\\\\\"', "\\u0022", "é", "x", "\\ud83d\\ude00", "\\udc00", "\\x", "\t")
NUMBERS = ("1", "-0", "1e5", "1e999", "01", "1.", "NaN", "true", "null", "9" * 400)
SCALAR = st.sampled_from([*NUMBERS, *(f'"{text}"' for text in TEXTS)])
VALUE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: listed(*values))
        | st.lists(st.tuples(KEY, inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key} :{value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)


@st.composite
def hostile_row(draw: st.DrawFn) -> str:
    """Return a transaction as text, with members added, perhaps one taken away, or something else."""
    members = [f'"{name}": 0.25' for name in FEATURE_NAMES]
    if draw(st.booleans()):
        members.pop(draw(st.integers(0, 29)))
    for key, value in draw(st.lists(st.tuples(KEY, VALUE), max_size=3)):
        member = f"{draw(SPACE)}{key}{draw(SPACE)}:{draw(SPACE)}{value}"
        members.insert(draw(st.integers(0, len(members))), member)
    text = "{" + ",".join(members) + "}"
    return draw(st.sampled_from([text] * 8 + ["", "[]", "{}", "0", '"{"', text + text, text[:-1], text[1:]]))


def reference(text: str) -> list[dict[str, float]]:
    """Return the features of each row as the standard library's decoder reads them, or raise ValueError."""

    def refuse(constant: str) -> float:
        raise ValueError(constant)

    document = json.loads(text, parse_int=float, parse_constant=refuse)
    members = json.loads(text, parse_int=float, object_pairs_hook=tuple)
    rows, pairs = (document, members) if isinstance(document, list) else ([document], [members])
    whole_pairs_out = text.replace("\\ud83d\\ude00", "")
    if not rows or "\\ud8" in whole_pairs_out or "\\udc" in whole_pairs_out:
        raise ValueError("an empty list, or half a surrogate pair")
    for row, of_row in zip(rows, pairs, strict=True):
        if not isinstance(row, dict) or len(row) != len(of_row):
            raise ValueError("no object, or a repeated key")
    return [MODEL.model_validate(row).model_dump() for row in rows]


@settings(max_examples=800)
@given(st.lists(hostile_row(), max_size=3), st.booleans(), SPACE)
def test_every_decoder_agrees_with_the_standard_library(rows: list[str], is_list: bool, space: str) -> None:
    text = space + (listed(*rows) if is_list else "".join(rows[:1])) + space
    try:
        expected = [[row[name] for name in FEATURE_NAMES] for row in reference(text)]
    except ValueError:
        expected = []
    for decode in (DECODER.decode, DECODER.decode_strictly):
        try:
            decoded = decode(text.encode()).transactions
        except (MalformedError, ListTooLongError):
            decoded = []
        assert [[getattr(row, name) for name in FEATURE_NAMES] for row in decoded] == expected, text
