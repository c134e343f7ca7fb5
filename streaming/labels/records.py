"""A label as a record of the labels topic: how it is written, read, checked, and which of several counts.

A transaction can be labelled before its decision, long after it, more than once and by people who
disagree. The label with the greatest `precedence` counts, whatever the order of arrival:

- the newest ``labelled_at_ms``;
- of the same moment, the origin that looked hardest: control, then investigation, then chargeback;
- of the same origin, fraud before genuine before withdrawn.

The same label again changes nothing. A label with ``"is_fraud": null``, or a record with a key and no
value, withdraws: when it counts, the transaction has no label.
"""

from typing import Any, Final, Literal

import msgspec

Origin = Literal["chargeback", "investigation", "control"]

# In the order of trust: a chargeback is a customer's word, an investigator has looked, the control
# sample was looked at whatever the decision had been.
ORIGINS: Final = ("chargeback", "investigation", "control")
MAX_ID_CHARACTERS = 128
# Clocks differ; but a label from the future would count for ever.
MAX_AHEAD_MS = 24 * 3600 * 1000


class Label(msgspec.Struct, frozen=True, gc=False):
    """One label.

    Attributes
    ----------
    transaction_id : str
        1 to 128 characters.
    is_fraud : bool or None
        None withdraws the labels before.
    labelled_at_ms : int
        When somebody found it out, milliseconds since 1970.
    origin : {"chargeback", "investigation", "control"}
        ``control``: the transaction belongs to a random sample that is looked at whatever was decided.
    """

    transaction_id: str
    is_fraud: bool | None
    labelled_at_ms: int
    origin: Origin

    @property
    def precedence(self) -> tuple[int, int, int]:
        """Of several labels of a transaction the one with the greatest counts.

        Examples
        --------
        >>> early = Label("T-17", True, 1000, "control")
        >>> late = Label("T-17", False, 2000, "chargeback")
        >>> max(early, late, key=lambda label: label.precedence) is late
        True
        """
        verdict = 0 if self.is_fraud is None else 1 + self.is_fraud
        return self.labelled_at_ms, ORIGINS.index(self.origin), verdict


class LabelRejection(msgspec.Struct, frozen=True, gc=False):
    """Why a record is no label: a short reason for metrics, and a sentence without any value of it."""

    reason: str
    message: str


class _Value(msgspec.Struct, gc=False):
    """The value of a label record; `is_fraud` may be null but not missing."""

    transaction_id: str
    is_fraud: bool | None
    labelled_at_ms: int
    origin: str


_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def write_label(label: Label) -> tuple[bytes, bytes]:
    """Return key and value of the record.

    Examples
    --------
    >>> write_label(Label("T-17", True, 1000, "chargeback"))[1].decode()
    '{"transaction_id":"T-17","is_fraud":true,"labelled_at_ms":1000,"origin":"chargeback"}'
    """
    return label.transaction_id.encode(), _encode(label)


def read_label(key: bytes | None, value: bytes | None, timestamp_ms: int) -> Label | LabelRejection:
    """Return the label in a record, or what is wrong with it.

    Parameters
    ----------
    key, value : bytes or None
        As they came. A missing value withdraws, at the record's time.
    timestamp_ms : int
        The record's time, milliseconds since 1970.

    Examples
    --------
    >>> read_label(b"T-17", None, 1000).is_fraud is None
    True
    >>> read_label(b"T-17", b'{"transaction_id":"T-18"}', 1000).reason
    'missing'
    """
    if not value:
        return _withdrawal(key, timestamp_ms)
    try:
        found = _decode_any(value)
    except (ValueError, RecursionError):
        return LabelRejection("not_json", "The value is not JSON.")
    label = check_label(found, timestamp_ms)
    if isinstance(label, Label) and key is not None and key != label.transaction_id.encode():
        return LabelRejection(
            "wrong_key", "The key is not the transaction_id: the label would never meet it."
        )
    return label


def check_label(found: Any, now_ms: int) -> Label | LabelRejection:  # noqa: ANN401  # whatever JSON or a file held
    """Return a label of named values, or what is wrong with them.

    Parameters
    ----------
    found : mapping
        ``transaction_id``, ``is_fraud``, ``labelled_at_ms`` and ``origin``; more is ignored.
    now_ms : int
        A label may be a day ahead of it.
    """
    try:
        value = msgspec.convert(found, _Value)
    except msgspec.ValidationError as error:
        return _invalid(str(error))
    if not 0 < len(value.transaction_id) <= MAX_ID_CHARACTERS:
        return LabelRejection(
            "transaction_id", f"transaction_id: must have 1 to {MAX_ID_CHARACTERS} characters."
        )
    if value.origin not in ORIGINS:
        return LabelRejection("origin", f"origin: must be one of {', '.join(ORIGINS)}.")
    if value.labelled_at_ms < 0 or value.labelled_at_ms > now_ms + MAX_AHEAD_MS:
        return LabelRejection("labelled_at_ms", "labelled_at_ms: must lie between 1970 and a day from now.")
    origin: Origin = ORIGINS[ORIGINS.index(value.origin)]
    return Label(value.transaction_id, value.is_fraud, value.labelled_at_ms, origin)


def _withdrawal(key: bytes | None, timestamp_ms: int) -> Label | LabelRejection:
    try:
        name = (key or b"").decode()
    except UnicodeDecodeError:
        name = ""
    if not 0 < len(name) <= MAX_ID_CHARACTERS:
        return LabelRejection("no_key", "The record has neither a value nor a transaction_id as its key.")
    return Label(name, None, timestamp_ms, "investigation")


def _invalid(text: str) -> LabelRejection:
    # msgspec: "Expected `int`, got `str` - at `$.labelled_at_ms`", "Object missing required field `origin`".
    if "missing required field" in text:
        field = text.rsplit("`", 2)[1]
        return LabelRejection("missing", f"{field}: is missing.")
    field = text.rsplit("$.", 1)[1].rstrip("`") if "$." in text else ""
    if not field:
        return LabelRejection("not_object", "The value is no JSON object.")
    return LabelRejection(field, f"{field}: has the wrong type.")
