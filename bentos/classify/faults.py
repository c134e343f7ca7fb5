"""What is wrong with a transaction, field by field, in the words of the published model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite

import msgspec

from bentos.errors import Detail
from bentos.releases.release import FEATURE_NAMES
from bentos.schemas import MAX_ID_CHARACTERS, feature_range
from bentos.settings.sections import LimitSettings

IDENTITY = "transaction_id"
KNOWN_FIELDS = frozenset({*FEATURE_NAMES, IDENTITY})
# A limit of our own: where a parser gives up depends on the stack it is called from.
MAX_DEPTH = 100
MISSING = ("missing", "Field required")
NUMBER_STARTS = b"-0123456789"
_decode_text = msgspec.json.Decoder(str).decode

Place = list[int | str]
Members = Mapping[str, msgspec.Raw]


def field_faults(members: Members, place: Place, limits: LimitSettings) -> list[Detail]:
    """Return at most one fault for each known field of an object.

    Parameters
    ----------
    members : mapping
        Value of each key, as JSON.
    place : list
        Index of the object in the list, if it was in one.
    limits : LimitSettings
        What a feature may be.
    """
    faults: list[Detail] = []
    for name in FEATURE_NAMES:
        text = bytes(members.get(name, b""))
        fault = _number_fault(text, *feature_range(name, limits)) if text else MISSING
        if fault:
            faults.append(Detail(loc=[*place, name], type=fault[0], msg=fault[1]))
    fault = _identity_fault(bytes(members[IDENTITY])) if IDENTITY in members else None
    if fault:
        faults.append(Detail(loc=[*place, IDENTITY], type=fault[0], msg=fault[1]))
    return faults


def repeated_key_faults(keys: Sequence[str], place: Place) -> list[Detail]:
    """Return one fault for each known key that is repeated, and one for all others together.

    A key that the caller made up is not named: it might hold anything.
    """
    repeated = [key for key, count in Counter(keys).items() if count > 1]
    places = [[*place, key] for key in sorted(KNOWN_FIELDS.intersection(repeated))] or [place]
    return [Detail(loc=where, type="duplicate_key", msg="Key given twice") for where in places]


def _number_fault(text: bytes, smallest: float, largest: float) -> tuple[str, str] | None:
    if text[:1] not in NUMBER_STARTS:
        return "float_type", "Input should be a valid number"
    number = float(text)
    if not isfinite(number):
        return "finite_number", "Input should be a finite number"
    if number < smallest:
        return "greater_than_equal", f"Input should be greater than or equal to {smallest:g}"
    if number > largest:
        return "less_than_equal", f"Input should be less than or equal to {largest:g}"
    return None


def _identity_fault(text: bytes) -> tuple[str, str] | None:
    if text[:1] != b'"':
        return "string_type", "Input should be a valid string"
    if len(_decode_text(text)) > MAX_ID_CHARACTERS:
        return "string_too_long", f"String should have at most {MAX_ID_CHARACTERS} characters"
    return None
