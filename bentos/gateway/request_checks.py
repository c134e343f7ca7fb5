"""What the head of a request to /classify must say: JSON in UTF-8, not compressed, and which reasons."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message
from urllib.parse import parse_qs

from bentos.classify.explainer import Explain
from bentos.errors import MalformedError, MediaTypeError

JSON_TYPE = b"application/json"
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})


def require_json(headers: Mapping[bytes, bytes]) -> None:
    """Return if the body is declared as JSON in UTF-8 without an encoding.

    Raises
    ------
    MediaTypeError
        If it is declared as anything else.
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise MediaTypeError("The body must not be compressed.")
    declared = headers.get(b"content-type", b"")
    if declared == JSON_TYPE:
        return
    head = Message()
    head["content-type"] = declared.decode("latin-1")
    (name, _), *parameters = head.get_params(failobj=[("", "")])
    if name.strip().lower() != JSON_TYPE.decode():
        raise MediaTypeError("The body must be application/json.")
    charsets = [value.strip().lower() for key, value in parameters if key.strip().lower() == "charset"]
    if not CHARSETS.issuperset(charsets):
        raise MediaTypeError("The body must be UTF-8.")


def wanted_reasons(query: bytes) -> Explain:
    """Return for which decisions the query asks reasons.

    Raises
    ------
    MalformedError
        If ``explain`` is given twice, or is none of its values.
    """
    if not query:
        return Explain.NONE
    answers = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("explain", [Explain.NONE.value])
    if len(answers) == 1 and answers[0] in {mode.value for mode in Explain}:
        return Explain(answers[0])
    choices = " or ".join(f"'{mode.value}'" for mode in Explain)
    raise MalformedError(
        "explain is true, false or alarms.",
        [{"loc": ["query", "explain"], "type": "enum", "msg": f"Input should be {choices}"}],
        reason="query",
    )
