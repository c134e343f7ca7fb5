"""API keys, compared in constant time, and the paths that are open without one."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from bentos.errors import UnauthorizedError
from bentos.settings.sections import SecuritySettings

HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
METRICS_PATHS = frozenset({"/metrics"})
BEARER = b"bearer "


class ApiKeyAuth:
    """Lets a request with a key through, and refuses every other.

    Parameters
    ----------
    settings : SecuritySettings
        Keys and what is open without one.

    Raises
    ------
    OSError
        If the file of keys cannot be read.
    ValueError
        If the file of keys holds none: a service meant to be closed must not open.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self._digests = [_digest(key.encode()) for key in _keys(settings)]
        self._settings = settings

    def authorize(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Return if `path` is open or the request carries a key.

        Raises
        ------
        UnauthorizedError
            Without saying whether the key was missing or wrong.
        """
        if self._digests and not self._is_open(path) and not self._is_known(_presented(headers)):
            raise UnauthorizedError

    def _is_open(self, path: str) -> bool:
        if path in HEALTH_PATHS:
            return self._settings.open_health
        if path in METRICS_PATHS:
            return self._settings.open_metrics
        return self._settings.open_docs and path not in ("/classify", "/info")

    def _is_known(self, key: bytes) -> bool:
        # All digests have one length and each is compared, so the time taken says nothing about a key.
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


def _keys(settings: SecuritySettings) -> list[str]:
    keys = [key.get_secret_value() for key in settings.api_keys]
    if settings.api_keys_file is not None:
        lines = settings.api_keys_file.read_text(encoding="utf-8").splitlines()
        keys += [line.strip() for line in lines]
        if not any(keys):
            raise ValueError(f"{settings.api_keys_file} holds no key")
    return [key for key in keys if key]


def _presented(headers: Mapping[bytes, bytes]) -> bytes:
    if b"x-api-key" in headers:
        return headers[b"x-api-key"]
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    return b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
