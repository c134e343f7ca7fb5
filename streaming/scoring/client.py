"""Calls the scoring service over HTTP and turns its answers into decisions or errors."""

import contextlib
import email.utils
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
from typing_extensions import override

from streaming.errors import (
    BatchRejected,
    BatchTooLarge,
    RejectedItem,
    ServiceError,
    ServiceRefused,
    ServiceUnavailable,
    SettingsError,
)
from streaming.ports import Classifier
from streaming.records import ServiceDecision
from streaming.scoring.answer import read_answer
from streaming.settings.load import read_secret
from streaming.settings.sections import ServiceSettings

# An answer is about 400 bytes a transaction; a longer one does not come from a scoring service.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
# A readiness probe has a short timeout of its own.
READY_TIMEOUT_S = 2.0


class HttpClassifier(Classifier):
    """``POST /classify`` over kept-alive connections.

    Parameters
    ----------
    settings : ServiceSettings
    transport : httpx.BaseTransport, optional
        Replaces the network in tests.

    Raises
    ------
    SettingsError
        If address, key or certificate authority cannot be used.
    """

    def __init__(self, settings: ServiceSettings, transport: httpx.BaseTransport | None = None) -> None:
        self._settings = settings
        self._renewal = _Renewal(settings.connection_max_age_s, settings.concurrency + 1)
        self._address = _address(settings)
        key = service_key(settings)
        self._client = httpx.Client(
            headers={"content-type": "application/json", **({"x-api-key": key} if key else {})},
            timeout=httpx.Timeout(settings.request_timeout_s, connect=settings.connect_timeout_s),
            limits=httpx.Limits(max_connections=settings.concurrency + 1, keepalive_expiry=30.0),
            verify=service_trust(settings),
            follow_redirects=False,
            trust_env=False,  # a proxy for the internet must not see card data
            transport=transport,
        )

    @override
    def classify(
        self, transactions: Sequence[bytes], identities: Sequence[str | None]
    ) -> list[ServiceDecision]:
        status, headers, body = self._post(b"[" + b",".join(transactions) + b"]")
        if status == 200:
            return read_answer(body, identities)
        raise _error_for(status, headers, body)

    def _post(self, body: bytes) -> tuple[int, httpx.Headers, bytes]:
        deadline = time.monotonic() + self._settings.request_timeout_s
        headers = {"connection": "close"} if self._renewal.is_due() else None
        try:
            with self._client.stream("POST", self._address, content=body, headers=headers) as response:
                return response.status_code, response.headers, _read_body(response, deadline)
        except httpx.TimeoutException as error:
            raise ServiceUnavailable("The service did not answer in time.", "timeout") from error
        except httpx.ConnectError as error:
            raise ServiceUnavailable("The service cannot be reached.", "connect") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise ServiceUnavailable(f"The answer broke off: {type(error).__name__}.", "transport") from error

    @override
    def is_ready(self) -> bool:
        try:
            return self._client.get(self._address.join("readyz"), timeout=READY_TIMEOUT_S).status_code == 200
        except httpx.HTTPError:
            return False

    @override
    def close(self) -> None:
        self._client.close()


class _Renewal:
    """Says which requests end their connection, so that replicas added under load get their share.

    A kept-alive connection stays with the replica that it met first, whatever stands behind the address.
    """

    def __init__(self, max_age_s: float, connections: int) -> None:
        self._max_age_s, self._connections = max_age_s, connections
        self._lock = threading.Lock()
        self._due_at = time.monotonic() + max_age_s
        self._left = 0

    def is_due(self) -> bool:
        """Return whether this request is to be the last of its connection; once a period for each."""
        with self._lock:
            now = time.monotonic()
            if now >= self._due_at:
                self._due_at, self._left = now + self._max_age_s, self._connections
            if self._left == 0:
                return False
            self._left -= 1
            return True


def _address(settings: ServiceSettings) -> httpx.URL:
    try:
        address = httpx.URL(settings.classify_url)
    except httpx.InvalidURL as error:
        raise SettingsError(f"service.classify_url is no address: {error}.") from error
    if not address.host or (address.port is not None and not 0 < address.port <= 65_535):
        raise SettingsError("service.classify_url is no address: it names no host, or no port that can be.")
    explain = {"none": None, "alarms": "alarms", "all": "true"}[settings.reasons]
    return address if explain is None else address.copy_set_param("explain", explain)


def service_key(settings: ServiceSettings) -> str | None:
    """Return the key that the service wants, or None.

    Raises
    ------
    SettingsError
        If it cannot be read, or cannot stand in a header.
    """
    key = read_secret(settings.api_key, settings.api_key_file, "service.api_key_file")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise SettingsError("service.api_key cannot be sent: it holds more than printable ASCII characters.")
    return key


def service_trust(settings: ServiceSettings) -> ssl.SSLContext:
    """Return which certificate authorities the service's certificate may come from.

    Raises
    ------
    SettingsError
        If the file cannot be read.
    """
    if settings.ca_file is None:
        return ssl.create_default_context()  # the system's; httpx would take a list of its own
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"service.ca_file cannot be read: {error}") from error


def _read_body(response: httpx.Response, deadline: float) -> bytes:
    # httpx limits the silence between two pieces, not the whole: a dripping service would hold us for ever.
    pieces = []
    size = 0
    for piece in response.iter_bytes():
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:
            raise ServiceUnavailable("The service did not finish its answer in time.", "timeout")
        if size > MAX_ANSWER_BYTES:
            raise ServiceUnavailable("The answer is too large for decisions.", "answer")
    return b"".join(pieces)


def _error_for(status: int, headers: httpx.Headers, body: bytes) -> ServiceError:
    if status in (400, 422):
        return _rejected(status, body)
    if status == 413:
        return BatchTooLarge("The service refused the size of the request.")
    if status in (408, 425, 429) or status >= 500:
        wish = retry_after_s(headers.get("retry-after"))
        return ServiceUnavailable(f"The service answered {status}.", str(status), wish)
    if status == 401:
        return ServiceRefused("The service answered 401: set service.api_key_file to a valid key.")
    if status in (403, 404, 405):
        return ServiceRefused(
            f"The service answered {status}: check service.classify_url and the key's rights."
        )
    return ServiceRefused(
        f"The service answered {status}, which POST /classify never does: check service.classify_url."
    )


class _Refusal(msgspec.Struct):
    """What the contract promises as the body of a 400."""

    error: str
    detail: list[Any]


_read_refusal = msgspec.json.Decoder(_Refusal).decode


def _rejected(status: int, body: bytes) -> ServiceError:
    try:
        refusal = _read_refusal(body)
    except ValueError:
        # A proxy's page, or a server that could not even read the request: the transactions may be sound.
        return ServiceRefused(
            f"Something else than POST /classify answered {status}: check service.classify_url "
            "and what stands before it."
        )
    if any(_is_of_query(fault) for fault in refusal.detail):
        # Every request would meet it: halving the batch would make dead letters of sound transactions.
        return ServiceRefused(
            f"The service answered {status} to the query of the address: it does not know what "
            "service.reasons or service.classify_url asks for."
        )
    first: dict[int, RejectedItem] = {}
    for fault in refusal.detail:
        item = _item(fault)
        if item is not None:
            first.setdefault(item.position, item)
    return BatchRejected("The service refused items of the request.", tuple(first.values()))


def _is_of_query(fault: Any) -> bool:  # noqa: ANN401  # whatever the list holds
    location = fault.get("loc") if isinstance(fault, dict) else None
    return isinstance(location, list) and location[:1] == ["query"]


def _item(fault: Any) -> RejectedItem | None:  # noqa: ANN401  # whatever the list holds
    if not isinstance(fault, dict) or not isinstance(fault.get("loc"), list):
        return None
    location = [part for part in fault["loc"] if part != "body"]
    if not location or type(location[0]) is not int:
        return None
    field = ".".join(str(part) for part in location[1:]) or "item"
    return RejectedItem(
        location[0], str(fault.get("type", "invalid")), f"{field}: {fault.get('msg', 'invalid')}"
    )


def retry_after_s(value: str | None) -> float | None:
    """Read a ``Retry-After`` header: seconds or a date; None where it says nothing usable.

    Examples
    --------
    >>> retry_after_s("2")
    2.0
    >>> retry_after_s("soon") is None
    True
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        return None
    return seconds if 0 <= seconds < float("inf") else None
