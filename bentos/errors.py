"""What can go wrong while answering, each with the HTTP status it becomes.

::

    ServingError
    ├── StartError                      ends `bentoml serve` with one sentence; never an answer
    │   ├── SettingsError               exit code 2: a setting is wrong
    │   └── ReleaseError                exit code 1: a pair of models that cannot be served; while serving
    │       │                           it is refused, and the old one stays
    │       └── NoReleaseError          the store holds no such pair
    └── RequestError                    an answer with a status
        ├── MalformedError              400
        ├── UnauthorizedError           401
        ├── NotFoundError               404
        ├── MethodError                 405
        ├── BodyTimeoutError            408
        ├── BodyTooLargeError           413
        ├── ListTooLongError            413
        ├── MediaTypeError              415
        ├── DefectError                 500
        └── UnavailableError            503, with Retry-After
            ├── NotReadyError
            ├── OverloadedError
            └── RunnerUnavailableError
                └── ScoringFailedError  a defect: nothing that waiting mends

No message holds a value of a transaction: the caller may log the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

Headers = list[tuple[bytes, bytes]]


class Detail(TypedDict):
    """One thing wrong with a request, and where."""

    loc: list[int | str]
    type: str
    msg: str


class ServingError(Exception):
    """Everything this package raises on purpose."""


class StartError(ServingError):
    """The service cannot start; a person reads the message as one sentence."""

    exit_code = 1


class SettingsError(StartError):
    """A setting is unknown, out of range, or names a file that cannot be used.

    Parameters
    ----------
    what : str
        Each key, its source and what is wrong with it; never a value.
    """

    exit_code = 2

    def __init__(self, what: str) -> None:
        super().__init__(f"Wrong settings: {what}")


class ReleaseError(StartError):
    """A release of the model store cannot be served."""


class NoReleaseError(ReleaseError):
    """The model store does not hold the release that is asked for."""


class RequestError(ServingError):
    """A request that gets an error for an answer.

    Parameters
    ----------
    message : str
        The sentence the caller reads.
    detail : list of Detail, optional
        Every bad item, where that is known.
    """

    status: int = 400
    reason: str = "malformed"
    """How the metrics call it."""

    def __init__(self, message: str, detail: list[Detail] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail or []

    @property
    def headers(self) -> Headers:
        """Headers the answer carries besides its type and length."""
        return []


class MalformedError(RequestError):
    """The request is not what the contract says.

    Parameters
    ----------
    message, detail
        As in `RequestError`.
    reason : str
        How the metrics call it.
    """

    def __init__(self, message: str, detail: list[Detail] | None = None, reason: str = "malformed") -> None:
        super().__init__(message, detail)
        self.reason = reason


class UnauthorizedError(RequestError):
    """No key, or not one of ours; which of the two is not said."""

    status = 401
    reason = "unauthorized"

    def __init__(self) -> None:
        super().__init__("unauthorized")

    @property
    def headers(self) -> Headers:
        """Name the scheme, as RFC 9110 asks of every 401."""
        return [(b"www-authenticate", b"Bearer")]


class NotFoundError(RequestError):
    """No such path."""

    status = 404
    reason = "not_found"

    def __init__(self) -> None:
        super().__init__("There is nothing here; /docs.json lists what there is.")


class MethodError(RequestError):
    """The path exists, but not for this method."""

    status = 405
    reason = "method"

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = ", ".join(allowed)
        super().__init__(f"Use {self._allowed} here.")

    @property
    def headers(self) -> Headers:
        """Name the methods, as RFC 9110 asks of every 405."""
        return [(b"allow", self._allowed.encode())]


class BodyTimeoutError(RequestError):
    """The body did not arrive in time."""

    status = 408
    reason = "slow_body"

    @property
    def headers(self) -> Headers:
        """Close: what is left of the body would be taken for the next request."""
        return [(b"connection", b"close")]


class BodyTooLargeError(RequestError):
    """More bytes than the limit."""

    status = 413
    reason = "body_too_large"

    @property
    def headers(self) -> Headers:
        """Close: the rest of the body is not read."""
        return [(b"connection", b"close")]


class ListTooLongError(RequestError):
    """More transactions than the limit."""

    status = 413
    reason = "list_too_long"


class MediaTypeError(RequestError):
    """The body is not declared as JSON."""

    status = 415
    reason = "media_type"


class DefectError(RequestError):
    """Code is at fault; the log holds the traceback."""

    status = 500
    reason = "defect"

    @property
    def headers(self) -> Headers:
        """Close the connection, as it is unknown how much of the request was read."""
        return [(b"connection", b"close")]


class UnavailableError(RequestError):
    """Not now; worth trying again after `retry_after_s`."""

    status = 503
    reason = "unavailable"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> Headers:
        """Say when to come back."""
        return [(b"retry-after", str(self.retry_after_s).encode())]


class NotReadyError(UnavailableError):
    """A runner does not answer."""

    reason = "not_ready"


class OverloadedError(UnavailableError):
    """The queue is full."""

    reason = "overloaded"


class RunnerUnavailableError(UnavailableError):
    """A runner is dead, restarting, or slower than the deadline."""

    reason = "runner_unavailable"


class ScoringFailedError(RunnerUnavailableError):
    """Code or model is at fault. Still a 503: no input is to blame, and bridges keep what they hold."""

    reason = "scoring_failed"
