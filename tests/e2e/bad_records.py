"""About a hundred kinds of record that no service should decide, and a few strange ones that it should."""

import json
from typing import Any

from tests.scripted_service import FEATURES

Record = tuple[bytes | None, bytes | None]


def good(**changes: Any) -> dict[str, Any]:
    """Return a sound transaction with changes."""
    return {**{name: round(0.25 * place, 2) for place, name in enumerate(FEATURES)}, **changes}


def _json(found: Any) -> bytes:
    return json.dumps(found).encode()


def _raw(name: str, text: str) -> bytes:
    """Return a transaction in which one member is written as it is given."""
    return _json(good(**{name: "@"})).replace(b'"@"', text.encode("utf-8", "surrogatepass"))


NUMBERS = [
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "1e400",
        "01",
        "1.",
        ".5",
        "+1",
        "0x10",
        "1e",
        "--1",
    ),
    *("1_000", "1,5", "1e+", "-", "", "nan", "inf", "NULL", "True", "'1'", "1 2", "1/2", "1;", "\\u0031"),
]
VALUES = ["null", "true", "false", '"1.5"', '""', "[]", "[1]", "{}", '{"a":1}', "1e13", "-1e8", "9" * 400]
TEXTS = [
    *(
        b"",
        b" ",
        b"\n",
        b"null",
        b"true",
        b"0",
        b"1.5",
        b'"text"',
        b"[]",
        b"[1,2]",
        b"[{}]",
        b"{}",
        b"{",
        b"}",
    ),
    *(b"{]", b"[}", b"{}{}", b"{} {}", b"{},{}", b'{"a"}', b'{"a":}', b"{a:1}", b"{'a':1}", b'{"a":1,}'),
    *(b'{"a":1 "b":2}', b"\xff\xfe", b"\x00", b"\x00\x01\x02\x03", b"\xef\xbb\xbf{}", b"not json at all"),
    *(b"<xml/>", b"a,b,c", b"[" * 50_000, b'{"a":' * 50_000, b'{"a":"\xff"}', b'{"a":"\xc3\x28"}'),
    *(
        b'{"a":"\\ud800"}',
        b'{"a":"\\x"}',
        b'{"a":"\n"}',
        b'{"Time":1,"Time":2}',
        b'"' + b"x" * 5000,
        b'{"a":1}]',
    ),
    *(b"],[", b"1],[1", b"{}]}", b"\xed\xa0\x80", b"//comment\n{}", b'{"a":1/*x*/}', b"\x1f\x8b\x08\x00gzip"),
    *(b"\x80\x04pickle", b"Obj\x01avro"),
]


def bad_values() -> list[bytes]:
    """Return values that deserve a dead letter."""
    whole = _json(good())
    cut = [whole[:length] for length in (1, 10, len(whole) // 2, len(whole) - 1)]
    numbers = [_raw("V3", text) for text in NUMBERS]
    values = [_raw("Amount", text) for text in VALUES]
    without = [_json({k: v for k, v in good().items() if k != name}) for name in ("Time", "V14", "Amount")]
    limits = [
        _json(good(Time=-1)),
        _json(good(Amount=-0.01)),
        _json(good(V28=1000.5)),
        _json(good(Time=1e10 + 1)),
    ]
    ids = [_json(good(transaction_id=found)) for found in (1, None, [], {}, True, "x" * 129)]
    doubled = [whole[:-1] + b',"V1":0}', whole[:-1] + b',"other":1,"other":2}', b'{"V1":0,' + whole[1:]]
    renamed = [whole.replace(b'"V1"', b'"v1"'), whole.replace(b'"Amount"', b'" Amount"')]
    joined = [whole + b"," + whole, b"[" + whole + b"]", whole + whole, whole + b"x"]
    return [*TEXTS, *cut, *numbers, *values, *without, *limits, *ids, *doubled, *renamed, *joined]


def strange_but_good() -> list[bytes]:
    """Return values that look odd and deserve a decision all the same."""
    return [
        b"  " + _json(good()) + b"\n\t ",
        json.dumps(good(), indent=4).encode(),
        json.dumps(dict(reversed(good().items()))).encode(),
        json.dumps(good(transaction_id="Käse 💳 \u2028"), ensure_ascii=False).encode(),
        json.dumps(good(transaction_id='\\u0000 " ] } :')).encode(),
        _json(good(transaction_id="")),
        _json(good(note="a: b: c", when="12:30:59")),
        _json(good(nested={"a": {"b": [1, {"c": None}]}})),
        _json(good(Class=1, sample_weight=15.1)),
        _raw("V3", "1e-400"),
        _raw("V3", "-0"),
        _raw("V3", "1E2"),
        _raw("V3", "0." + "1" * 300),
    ]


def all_kinds() -> list[Record]:
    """Return keys and values of every kind, records without value or key among them."""
    found: list[Record] = [(f"k{place}".encode(), value) for place, value in enumerate(bad_values())]
    found += [
        (b"tombstone", None),
        (b"", None),
        (None, b""),
        (None, b"{"),
        (b"\xff\xfe\x00", b"{"),
        (b"", b"x"),
    ]
    found += [(f"odd{place}".encode(), value) for place, value in enumerate(strange_but_good())]
    found += [(None, _json(good())), (b"", _json(good())), (b"\xff\x00", _json(good()))]
    return found
