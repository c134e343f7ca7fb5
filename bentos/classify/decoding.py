"""Bytes of a request body to transactions, strictly; every bad one is named by its place.

The typed decoder takes 1 µs a transaction and stops at the first fault without naming every one.
A refused body gets a second, slower look, row by row, that does.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

import msgspec
from pydantic import ValidationError

from bentos.errors import Detail, ListTooLongError, MalformedError
from bentos.releases.release import FEATURE_NAMES
from bentos.schemas import MAX_ID_CHARACTERS, feature_range, transaction_model
from bentos.settings.sections import LimitSettings

# So many bad transactions of a list are named; each with all its faults.
MAX_NAMED = 100
FEATURES = len(FEATURE_NAMES)
ROW_BYTES = 4 * FEATURES
_PACK = struct.Struct(f"<{FEATURES}f").pack
_QUOTE = b'"'
_NUMBERS = frozenset(FEATURE_NAMES)
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raws = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode

Transaction = Any
"""One decoded transaction: the features in order, then its identity (`msgspec.UNSET` where absent)."""


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
        self._model = transaction_model(limits)
        self._max_transactions = max_transactions

    def decode(self, body: bytes) -> tuple[list[Transaction], bool]:
        """Return the transactions of `body`, and whether it was one bare object.

        Raises
        ------
        MalformedError
            If anything in it is against the contract.
        ListTooLongError
            If the list is over the limit.
        """
        if not body.isascii():
            _require_utf8(body)
        try:
            decoded = self._decode(body)
        except (msgspec.DecodeError, RecursionError, ValueError):
            self._refuse(body)
        is_single = not isinstance(decoded, list)
        rows = [decoded] if is_single else decoded
        self._require_length(len(rows))
        if _may_repeat_keys(body, rows) and not _holds_each_key_once(body, is_single):
            self._refuse_repeated_keys(body)
        return rows, is_single

    def _require_length(self, length: int) -> None:
        if length == 0:
            raise MalformedError(
                "The list is empty.",
                [Detail(loc=[], type="too_short", msg="List should have at least 1 item")],
                reason="empty_list",
            )
        if length > self._max_transactions:
            raise ListTooLongError(f"At most {self._max_transactions} transactions per request.")

    def _refuse(self, body: bytes) -> None:
        """Look again at a body the typed decoder refused, and raise everything wrong with it."""
        rows, is_single = _split(body)
        self._require_length(len(rows))
        bad = (index for index, row in enumerate(rows) if self._is_bad(row))
        details = [
            detail
            for index in islice(bad, MAX_NAMED)
            for detail in self._faults(rows[index], [] if is_single else [index])
        ]
        raise _bad_transactions(details)

    def _is_bad(self, row: bytes) -> bool:
        try:
            decoded = self._decode_row(row)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return True
        return _may_repeat_keys(row, [decoded]) and bool(_repeated_keys(row))

    def _faults(self, row: bytes, place: list[int | str]) -> list[Detail]:
        try:
            self._model.model_validate_json(row)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            return [
                Detail(loc=[*place, *fault["loc"]], type=fault["type"], msg=fault["msg"]) for fault in faults
            ]
        return _repeated_keys_details(row, place) or [
            Detail(loc=place, type="json_invalid", msg="Not a valid transaction")
        ]

    def _refuse_repeated_keys(self, body: bytes) -> None:
        rows, is_single = _split(body)
        named = (_repeated_keys_details(row, [] if is_single else [i]) for i, row in enumerate(rows))
        details = [detail for details in islice(filter(None, named), MAX_NAMED) for detail in details]
        if details:
            raise _bad_transactions(details, reason="duplicate_key")


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


def _require_utf8(body: bytes) -> None:
    """Refuse broken UTF-8 anywhere: the typed decoder does not look inside the fields it skips."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("The body is not valid UTF-8.", reason="encoding") from None


def _may_repeat_keys(body: bytes, rows: Sequence[Transaction]) -> bool:
    """Say whether `body` holds more quotation marks than its known keys and identities need.

    JSON text in quotes holds none unless escaped, so an exact count proves that there is nothing but the
    known keys, once each. 0.3 µs a transaction; a body with further fields gets an exact look.
    """
    identities = sum(row.transaction_id is not msgspec.UNSET for row in rows)
    return body.count(_QUOTE) != 2 * (FEATURES * len(rows) + 2 * identities)


def _holds_each_key_once(body: bytes, is_single: bool) -> bool:
    """Say whether every quotation mark of a body with further fields is accounted for, keys counted once.

    5 µs a transaction. An escaped mark in a key is not accounted for: then each row is looked at.
    """
    try:
        rows = [_decode_raw(body)] if is_single else _decode_raws(body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return False
    return body.count(_QUOTE) == sum(map(_quotes, rows))


def _quotes(row: dict[str, msgspec.Raw]) -> int:
    """Return how many quotation marks a row needs: two a key, and those within what is no number."""
    others = row.keys() - _NUMBERS
    return 2 * len(row) + sum(bytes(row[key]).count(_QUOTE) for key in others)


def _split(body: bytes) -> tuple[list[bytes], bool]:
    """Return the raw rows of `body`, and whether it was one bare object."""
    try:
        if body.lstrip(b" \t\r\n").startswith(b"["):
            return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])], False
        return [bytes(msgspec.json.decode(body, type=msgspec.Raw))], True
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError("The body is not JSON.", reason="not_json") from None


def _repeated_keys(row: bytes) -> list[str]:
    """Return the keys that come twice in the object `row`; nested objects are ignored."""
    if _holds_each_key_once(row, is_single=True):
        return []
    keys = [key for key, _ in json.loads(row, object_pairs_hook=list)]
    return sorted({key for key in keys if keys.count(key) > 1})


def _repeated_keys_details(row: bytes, place: list[int | str]) -> list[Detail]:
    known = {*FEATURE_NAMES, "transaction_id"}
    try:
        repeated = _repeated_keys(row)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return []
    # A key the caller made up is not repeated in an answer: it might hold anything.
    return [
        Detail(loc=[*place, key] if key in known else place, type="duplicate_key", msg="Key given twice")
        for key in repeated
    ]


def _bad_transactions(details: list[Detail], reason: str = "invalid_transaction") -> MalformedError:
    if not details:
        return MalformedError("The body is not JSON.", reason="not_json")
    items = {tuple(detail["loc"][:1]) for detail in details}
    return MalformedError(
        f"{len(items)} invalid transaction{'s' if len(items) > 1 else ''}", details, reason=reason
    )
