"""Bytes of a request body to transactions, strictly; every bad one is named by its index.

One parser, msgspec, reads every value. The fast decoder takes 1 µs a transaction. A body that it refuses, or
cannot prove to hold each key once, is read again item by item: slower, linear in the body, and by the same
parser, so that both accept the same bodies.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from bentos.classify.faults import MAX_DEPTH, Place, field_faults, repeated_key_faults
from bentos.classify.json_structure import Structure, TooManyItemsError, find_structure, keys_of
from bentos.errors import Detail, ListTooLongError, MalformedError
from bentos.releases.release import FEATURE_NAMES
from bentos.schemas import MAX_ID_CHARACTERS, feature_range
from bentos.settings.sections import LimitSettings

# How many bad transactions of a list are named; each has at most one fault a field.
MAX_NAMED = 100
# Of an object with more keys it is only said that keys are repeated, not which.
MAX_KEYS_NAMED = 1000
# A body with this many times the keys that it needs is read item by item at once.
MANY_FIELDS = 4
FEATURES = len(FEATURE_NAMES)
_PACK = struct.Struct(f"<{FEATURES}f").pack
_QUOTE = b'"'
_NUMBERS = frozenset(FEATURE_NAMES)
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_lists_members = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode_key = msgspec.json.Decoder(str).decode

Transaction = Any
"""One decoded transaction: the features in order, then its identity (`msgspec.UNSET` where absent)."""
# A RecursionError is raised for deep nesting, a ValueError for text that is not UTF-8.
REFUSALS = (msgspec.DecodeError, RecursionError, ValueError)


class Decoded(NamedTuple):
    """The transactions of a body, and whether it was one bare object."""

    transactions: list[Transaction]
    is_single: bool


class Decoder:
    """Turns a body into transactions, or raises what is wrong with it.

    Parameters
    ----------
    limits : LimitSettings
        What a feature may be.
    max_transactions : int
        Longest list.
    """

    def __init__(self, limits: LimitSettings, max_transactions: int) -> None:
        row = _transaction_struct(limits)
        self._decode = msgspec.json.Decoder(row | list[row]).decode  # type: ignore[valid-type]
        self._decode_row = msgspec.json.Decoder(row).decode
        self._limits = limits
        self._max_transactions = max_transactions

    def decode(self, body: bytes) -> Decoded:
        """Return the transactions of `body`.

        Raises
        ------
        MalformedError
            If anything in it is against the contract.
        ListTooLongError
            If the list is over the limit.
        """
        return self.decode_fast(body) or self.decode_strictly(body)

    def decode_fast(self, body: bytes) -> Decoded | None:
        """Return the transactions of `body`, or None where only `decode_strictly` can tell.

        Raises
        ------
        MalformedError, ListTooLongError
            As `decode` does.
        """
        try:
            if not body.isascii():
                body.decode("utf-8")  # msgspec does not look inside the values that it skips
            decoded = self._decode(body)
        except REFUSALS:
            return None
        is_single = not isinstance(decoded, list)
        rows = [decoded] if is_single else decoded
        self._require_length(len(rows))
        return Decoded(rows, is_single) if _holds_each_key_once(body, rows, is_single) else None

    def decode_strictly(self, body: bytes) -> Decoded:
        """Return what `decode` returns, item by item, naming each that is against the contract."""
        try:
            structure = find_structure(body, self._max_transactions)
        except TooManyItemsError:
            raise self._too_long() from None
        if structure is None:
            raise _not_json()
        self._require_length(len(structure))
        rows: list[Transaction] = []
        details: list[Detail] = []
        bad = 0
        for index in range(len(structure)):
            row = self._decode_item(body, structure, index)
            rows.append(row)
            if row is None:
                bad += 1
                if bad <= MAX_NAMED:
                    details += self._describe(body, structure, index)
        if bad:
            raise _bad_transactions(bad, details)
        return Decoded(rows, not structure.is_list)

    def _decode_item(self, body: bytes, structure: Structure, index: int) -> Transaction | None:
        """Return one transaction, or None if anything about it is against the contract."""
        if structure.depths[index] > MAX_DEPTH:
            return None
        text = body[structure.starts[index] : structure.ends[index]]
        try:
            text.isascii() or text.decode("utf-8")
            row = self._decode_row(text)
            return row if len(_decode_members(text)) == structure.members[index] else None
        except REFUSALS:
            return None

    def _describe(self, body: bytes, structure: Structure, index: int) -> list[Detail]:
        """Return what is wrong with one item."""
        place: Place = [index] if structure.is_list else []
        if structure.depths[index] > MAX_DEPTH:
            return [Detail(loc=place, type="too_deep", msg=f"Nested more than {MAX_DEPTH} levels deep")]
        text = body[structure.starts[index] : structure.ends[index]]
        try:
            text.decode("utf-8")
            members = _decode_members(text)
        except UnicodeDecodeError:
            return [Detail(loc=place, type="string_unicode", msg="Not valid UTF-8")]
        except msgspec.ValidationError:
            return [Detail(loc=place, type="model_type", msg="Input should be an object")]
        except REFUSALS:
            return [Detail(loc=place, type="json_invalid", msg="Not valid JSON")]
        faults = field_faults(members, place, self._limits)
        if len(members) != structure.members[index]:
            keys = keys_of(text) if structure.members[index] <= MAX_KEYS_NAMED else []
            repeated = repeated_key_faults([_decode_key(key) for key in keys], place)
            named = [fault["loc"] for fault in repeated]
            faults = repeated + [fault for fault in faults if fault["loc"] not in named]
        return faults or [Detail(loc=place, type="value_error", msg="Not a valid transaction")]

    def _require_length(self, length: int) -> None:
        if length == 0:
            raise MalformedError(
                "The list is empty.",
                [Detail(loc=[], type="too_short", msg="List should have at least 1 item")],
                reason="empty_list",
            )
        if length > self._max_transactions:
            raise self._too_long()

    def _too_long(self) -> ListTooLongError:
        return ListTooLongError(f"At most {self._max_transactions} transactions per request.")


def pack_features(rows: Sequence[Transaction]) -> bytes:
    """Return the features of `rows` as little-endian float32, row after row.

    Examples
    --------
    >>> row = _transaction_struct(LimitSettings())(*range(30))
    >>> len(pack_features([row, row]))
    240
    """
    fields = msgspec.structs.astuple
    return b"".join([_PACK(*fields(row)[:FEATURES]) for row in rows])


def _transaction_struct(limits: LimitSettings) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for name in FEATURE_NAMES:
        smallest, largest = feature_range(name, limits)
        fields.append((name, Annotated[float, msgspec.Meta(ge=smallest, le=largest)]))
    identity = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARACTERS)]
    fields.append(("transaction_id", identity | msgspec.UnsetType, msgspec.UNSET))
    # gc=False: floats and text cannot form cycles, and the collector need not walk a list of 10,000.
    return msgspec.defstruct("Transaction", fields, gc=False)


def _holds_each_key_once(body: bytes, rows: Sequence[Transaction], is_single: bool) -> bool:
    """Say whether `body` provably holds each key once; if not, it may all the same.

    Text in quotes holds no quotation mark unless escaped. So if there are as many as the known keys and the
    identities need, there is nothing but those, once each: 0.3 µs a transaction.
    """
    identities = sum(row.transaction_id is not msgspec.UNSET for row in rows)
    needed = 2 * (FEATURES * len(rows) + 2 * identities)
    quotes = body.count(_QUOTE)
    return quotes == needed or (
        quotes < MANY_FIELDS * needed and _is_accounted_for(body, len(rows), is_single)
    )


def _is_accounted_for(body: bytes, length: int, is_single: bool) -> bool:
    """Say whether every quotation mark belongs to a key, counted once, or to the value of a further field.

    A key needs two, and what is no number those that it holds. 5 µs a transaction. An escaped mark in a key
    is not accounted for, nor is nesting or a bracket in text.
    """
    if body.count(b"{") != length or body.count(b"[") != int(not is_single):
        return False
    try:
        rows = [_decode_members(body)] if is_single else _decode_lists_members(body)
    except REFUSALS:
        return False
    keys = 2 * sum(map(len, rows))
    within = sum(bytes(row[key]).count(_QUOTE) for row in rows for key in row.keys() - _NUMBERS)
    return body.count(_QUOTE) == keys + within


def _not_json() -> MalformedError:
    return MalformedError("The body is not JSON.", reason="not_json")


def _bad_transactions(count: int, details: list[Detail]) -> MalformedError:
    """Return the refusal of `count` transactions, of which the first are described."""
    whole_body = {detail["type"] for detail in details if not detail["loc"]}
    if "json_invalid" in whole_body:
        return _not_json()
    if "string_unicode" in whole_body:
        return MalformedError("The body is not valid UTF-8.", reason="encoding")
    is_repetition = all(detail["type"] == "duplicate_key" for detail in details)
    return MalformedError(
        f"{count} invalid transaction{'s' if count > 1 else ''}",
        details,
        reason="duplicate_key" if is_repetition else "invalid_transaction",
    )
