"""Bodies made to slow `/classify` down, to crash it, or to slip past its checks; drawn at random."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.serving_original import FEATURES

MAX_BYTES = 16 * 2**20
FEW_BYTES = 100
QUERIES = ("", "", "", "?explain=true", "?explain=alarms", "?explain=2", "?explain=true&explain=true")


@dataclass(frozen=True)
class HostileBody:
    """A body, what it is made of, and the query it is sent with."""

    kind: str
    content: bytes
    query: str


def draw_body(draw: random.Random) -> HostileBody:
    """Return a body of a random kind, up to the longest that is taken and a little more.

    Lengths are as likely between 100 and 1,000 bytes as between 1 and 10 million.
    """
    size = int(FEW_BYTES * (1.01 * MAX_BYTES / FEW_BYTES) ** draw.random())
    kind = draw.choice(sorted(KINDS))
    content = KINDS[kind](draw, size)
    return HostileBody(kind, content[: MAX_BYTES + 1], draw.choice(QUERIES))


def valid_row(draw: random.Random, **others: object) -> dict[str, object]:
    """Return a transaction that is taken."""
    return {**{name: round(draw.uniform(0, 3), 4) for name in FEATURES}, **others}


def _text(draw: random.Random, **others: object) -> bytes:
    return json.dumps(valid_row(draw, **others)).encode()


def _members(draw: random.Random) -> bytes:
    """Return a transaction without its braces."""
    return _text(draw)[1:-1]


def _fill(piece: bytes, size: int) -> bytes:
    return piece * max(1, size // len(piece))


def many_keys(draw: random.Random, size: int) -> bytes:
    """Return further keys, each once, and one that holds a quotation mark."""
    keys = b"".join(b',"k%d":0' % number for number in range(size // 12))
    return b"{" + _members(draw) + keys + b',"q\\"":0}'


def repeated_keys(draw: random.Random, size: int) -> bytes:
    """Return one key over and over, known or not, perhaps spelt with an escape."""
    key = draw.choice([b'"V1"', b'"V\\u0031"', b'"x"', b'"transaction_id"', b'"\\""'])
    return b"{" + _members(draw) + _fill(b"," + key + b":0", size) + b"}"


def nested(draw: random.Random, size: int) -> bytes:
    """Return nesting, closed or left open, in a field that is ignored or on its own."""
    opening, closing = draw.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
    depth = draw.choice([90, 101, 970, 1100, size // len(opening + closing)])
    inner = opening * depth + b"0" + closing * draw.choice([depth, 0, depth - 1])
    return draw.choice([inner, b"{" + _members(draw) + b',"z":' + inner + b"}"])


def long_numbers(draw: random.Random, size: int) -> bytes:
    """Return numbers of many digits, out of range, or not of JSON."""
    digits = b"9" * min(size, draw.choice([400, 5000, 10**6]))
    number = draw.choice(
        [digits, b"1e5000", b"-" + digits, b"0." + digits, b"1e-" + digits, b"NaN", b"0" + digits]
    )
    key = draw.choice([b'"V1"', b'"z"', b'"Amount"'])
    return b"{" + _members(draw) + b"," + key + b":" + number + b"}"


def wide_list(draw: random.Random, size: int) -> bytes:
    """Return a list of nothing that is a transaction."""
    piece = draw.choice([b"0,", b"{},", b"[],", b'"",', b"null,", b'{"V1":1},', b"[[]],", b",", b" ", b"{,"])
    return b"[" + _fill(piece, size) + draw.choice([b"0]", b"]", b""])


def long_text(draw: random.Random, size: int) -> bytes:
    """Return one text of much that must be looked at twice."""
    piece = draw.choice([b"\\\\", b'\\"', b"\\u0022", b"\\ud800", b"a", "é".encode(), b"\xff", b"]},:{["])
    key = draw.choice([b'"transaction_id"', b'"note"'])
    return b"{" + _members(draw) + b"," + key + b':"' + _fill(piece, size) + draw.choice([b'"}', b""])


def bad_rows(draw: random.Random, size: int) -> bytes:
    """Return a list of transactions of which some or all are against the contract."""
    spoilt = draw.choice(
        [{"V1": None}, {"V1": "1"}, {"Amount": -1}, {"transaction_id": 7}, {"V1": [[]]}, {'q"': 1}]
    )
    good, bad = _text(draw), _text(draw, **spoilt)
    count = min(10_001, max(1, size // len(bad)))
    share = draw.choice([0.0, 0.001, 1.0])
    rows = [bad if draw.random() < share else good for _ in range(count)]
    return b"[" + b",".join([*rows, bad]) + b"]"


def costly_but_right(draw: random.Random, size: int) -> bytes:
    """Return as many transactions as may be, with further fields or without."""
    row = draw.choice([_text(draw), _text(draw, note='a "quoted" text')])
    return b"[" + b",".join([row] * min(10_000, max(1, size // len(row)))) + b"]"


def spoilt_bytes(draw: random.Random, size: int) -> bytes:
    """Return transactions with a few bytes changed, taken out or cut off."""
    body = bytearray(costly_but_right(draw, min(size, 2**20)))
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(len(body))
        body[place : place + draw.choice([0, 1, 1, 1])] = draw.randbytes(draw.choice([0, 1, 1, 4]))
    return bytes(body[: draw.choice([len(body), draw.randrange(1, len(body) + 1)])])


def noise(draw: random.Random, size: int) -> bytes:
    """Return random bytes, or random pieces of JSON."""
    if draw.random() < 0.3:
        return draw.randbytes(size)
    pieces = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b" ", b"0", b"1e9", b"true", b'"V1"', b"\n"]
    return b"".join(draw.choices(pieces, k=min(size, 2**18)))


KINDS: dict[str, Callable[[random.Random, int], bytes]] = {
    function.__name__: function
    for function in (
        many_keys,
        repeated_keys,
        nested,
        long_numbers,
        wide_list,
        long_text,
        bad_rows,
        costly_but_right,
        spoilt_bytes,
        noise,
    )
}
