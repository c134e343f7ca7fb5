"""What can go wrong while answering, each with the HTTP status it becomes.

::

    ServingError
    ├── ReleaseError           no pair of models to serve (at start; never an answer)
    └── RequestError           an answer with a status
        ├── MalformedRequest   400
        ├── Unauthorized       401
        ├── BodyTimeout        408
        ├── BodyTooLarge       413
        ├── TooManyTransactions 413
        ├── UnsupportedMedia   415
        └── Unavailable        503, with Retry-After
            ├── Overloaded
            └── RunnerUnavailable

No message names a value of a transaction: an answer may be logged by whoever receives it.
"""

from __future__ import annotations

from typing import ClassVar, TypedDict


class Detail(TypedDict):
    """One thing wrong with a request body, and where."""

    loc: list[int | str]
    type: str
    msg: str


class ServingError(Exception):
    """Everything this package raises on purpose."""


class ReleaseError(ServingError):
    """The model store holds no complete release to serve."""


class RequestError(ServingError):
    """A request that gets an error for an answer.

    Parameters
    ----------
    message : str
        The sentence the caller reads.
    detail : list of Detail, optional
        Every bad item, where that is known.
    """

    status: ClassVar[int] = 400
    reason: ClassVar[str] = "malformed"

    def __init__(self, message: str, detail: list[Detail] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail or []

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers the answer carries besides its type and length."""
        return []


class MalformedRequest(RequestError):
    """The body is not what the contract says."""

    def __init__(self, message: str, detail: list[Detail] | None = None, reason: str = "malformed") -> None:
        super().__init__(message, detail)
        self.reason = reason  # type: ignore[misc]  # a class-wide default, narrowed by the decoder


class Unauthorized(RequestError):
    """No key, or not one of ours; which of the two is not said."""

    status = 401
    reason = "unauthorized"

    def __init__(self) -> None:
        super().__init__("unauthorized")

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Name the scheme, as RFC 9110 asks of every 401."""
        return [(b"www-authenticate", b"Bearer")]


class BodyTimeout(RequestError):
    """The body did not arrive in time."""

    status = 408
    reason = "slow_body"


class BodyTooLarge(RequestError):
    """More bytes than the limit."""

    status = 413
    reason = "body_too_large"


class TooManyTransactions(RequestError):
    """More transactions than the limit."""

    status = 413
    reason = "list_too_long"


class UnsupportedMedia(RequestError):
    """The body is not declared as JSON."""

    status = 415
    reason = "media_type"


class Unavailable(RequestError):
    """Not now; worth trying again after `retry_after_s`."""

    status = 503
    reason = "unavailable"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Say when to come back."""
        return [(b"retry-after", str(self.retry_after_s).encode())]


class Overloaded(Unavailable):
    """The queue is full."""

    reason = "overloaded"


class RunnerUnavailable(Unavailable):
    """A runner is dead, restarting, or slower than the deadline."""

    reason = "runner_unavailable"
