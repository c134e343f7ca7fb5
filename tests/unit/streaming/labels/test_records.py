"""A label record: what is read, what is refused with its reason, and which of several labels counts."""

import itertools
import json
from typing import Any

import pytest

from streaming.labels.records import Label, LabelRejection, read_label, write_label

NOW = 1_700_000_000_000
GOOD = {"transaction_id": "T-17", "is_fraud": True, "labelled_at_ms": NOW, "origin": "chargeback"}


def read(value: Any, key: bytes | None = b"T-17") -> Label | LabelRejection:
    return read_label(key, value if isinstance(value, bytes | None) else json.dumps(value).encode(), NOW)


def test_what_is_written_is_read() -> None:
    for verdict, origin in itertools.product([True, False, None], ["chargeback", "investigation", "control"]):
        label = Label("Ünit-1", verdict, NOW, origin)
        key, value = write_label(label)
        assert read_label(key, value, NOW) == label
        assert key == "Ünit-1".encode()


def test_more_fields_and_no_key_do_no_harm() -> None:
    assert read({**GOOD, "comment": "x"}, key=None) == Label(**GOOD)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 100_000, "not_json"),
        ([GOOD], "not_object"),
        (b"17", "not_object"),
        ({name: GOOD[name] for name in GOOD if name != "is_fraud"}, "missing"),
        ({**GOOD, "is_fraud": 1}, "is_fraud"),
        ({**GOOD, "is_fraud": "true"}, "is_fraud"),
        ({**GOOD, "labelled_at_ms": "yesterday"}, "labelled_at_ms"),
        ({**GOOD, "labelled_at_ms": -1}, "labelled_at_ms"),
        ({**GOOD, "labelled_at_ms": NOW + 2 * 24 * 3600 * 1000}, "labelled_at_ms"),
        ({**GOOD, "labelled_at_ms": 1e400}, "not_json"),
        ({**GOOD, "origin": "hearsay-4711"}, "origin"),
        ({**GOOD, "transaction_id": ""}, "transaction_id"),
        ({**GOOD, "transaction_id": "x" * 129}, "transaction_id"),
        ({**GOOD, "transaction_id": 17}, "transaction_id"),
        ({**GOOD, "transaction_id": "T-18"}, "wrong_key"),
    ],
)
def test_what_is_no_label_is_refused_with_its_reason_and_without_its_values(value: Any, reason: str) -> None:
    found = read(value)
    assert isinstance(found, LabelRejection)
    assert found.reason == reason
    assert not any(text in found.message for text in ("hearsay", "yesterday", "T-1", "x" * 9))


def test_an_empty_value_withdraws_at_the_time_of_the_record() -> None:
    assert read(None) == Label("T-17", None, NOW, "investigation")
    assert read(b"") == Label("T-17", None, NOW, "investigation")
    for key in (None, b"", b"\xff", b"x" * 129):
        rejection = read(None, key=key)
        assert isinstance(rejection, LabelRejection) and rejection.reason == "no_key"


def test_the_newest_counts_then_the_origin_then_the_verdict_whatever_the_order() -> None:
    ranked = [
        Label("T", True, NOW, "control"),
        Label("T", None, NOW + 1, "chargeback"),
        Label("T", False, NOW + 1, "chargeback"),
        Label("T", True, NOW + 1, "chargeback"),
        Label("T", None, NOW + 1, "investigation"),
        Label("T", False, NOW + 1, "control"),
        Label("T", None, NOW + 2, "chargeback"),
    ]
    for arrived in itertools.permutations(ranked):
        assert sorted(arrived, key=lambda label: label.precedence) == ranked
