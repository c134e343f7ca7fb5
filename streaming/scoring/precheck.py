"""Looks at each record before it joins a request, so that one malformed record cannot poison the others."""

import json
from typing import Any

import msgspec

from streaming.records import Rejection

_decode = msgspec.json.Decoder().decode


def precheck(value: bytes | None) -> str | Rejection | None:  # noqa: PLR0911  # one per decision
    """Check that a value is one JSON object with distinct keys.

    Parameters
    ----------
    value : bytes or None
        Value of an input record; None is a tombstone.

    Returns
    -------
    str or None or Rejection
        The ``transaction_id`` where it is a text, None where there is none, or what is wrong.

    Notes
    -----
    Each key brings a colon, so as many colons as distinct keys prove that no key is repeated.
    Only values with further colons (nested objects, texts with times) take the slow second look.

    Examples
    --------
    >>> precheck(b'{"transaction_id": "T-17", "Amount": 1.5}')
    'T-17'
    >>> precheck(b'{"Amount": 1, "Amount": 2}').reason
    'duplicate_key'
    >>> precheck(None).reason
    'tombstone'
    """
    if not value:
        if value is None:
            return Rejection("parse", "tombstone", "The record has no value.")
        return Rejection("parse", "empty", "The value is empty.")
    try:
        found = _decode(value)
    except UnicodeDecodeError:
        return Rejection("parse", "not_utf8", "The value is not UTF-8.")
    except RecursionError:
        return Rejection("parse", "too_deep", "The value is nested too deeply.")
    except msgspec.ValidationError:
        return Rejection("parse", "number_out_of_range", "A number is beyond the range of a double.")
    except ValueError:
        return Rejection("parse", "not_json", "The value is not JSON.")
    if type(found) is not dict:
        return Rejection("parse", "not_object", "The value is JSON, but not an object.")
    if value.count(b":") != len(found) and _repeats_a_key(value):
        return Rejection("parse", "duplicate_key", "A key occurs twice in the object.")
    identity = found.get("transaction_id")
    return identity if type(identity) is str else None


class _Pairs(list[tuple[str, Any]]):
    """The members of one object, repeated keys included."""


def _repeats_a_key(value: bytes) -> bool:
    try:
        pairs = json.loads(value, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return True  # the two parsers disagree: do not pass it on
    return len({key for key, _ in pairs}) != len(pairs)
