"""API keys, compared in constant time, and the paths that are open without one."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from time import monotonic

from bentos.errors import SettingsError, UnauthorizedError
from bentos.settings.secrets import read_text
from bentos.settings.sections import SecuritySettings

HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
METRICS_PATHS = frozenset({"/metrics"})
BEARER = b"bearer "
# How often the file of keys is looked at.
LOOK_INTERVAL_S = 1.0

# Below BentoML's logger: of any other it shows warnings only.
log = logging.getLogger(f"bentoml.{__name__}")


class ApiKeyAuth:
    """Lets a request with a key through, and refuses every other.

    The file of keys is read again when it has changed, so that keys are rotated without a restart. A file
    that went missing, or holds no key, changes nothing: a service meant to be closed must not open.

    Parameters
    ----------
    settings : SecuritySettings
        Keys and what is open without one.

    Raises
    ------
    SettingsError
        If the file of keys cannot be read or holds none.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self._settings = settings
        self._stamp = self._file_stamp()
        self._digests = [_digest(key) for key in read_keys(settings)]
        self._next_look = monotonic() + LOOK_INTERVAL_S

    def authorize(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Return if `path` is open or the request carries a key.

        Raises
        ------
        UnauthorizedError
            Without saying whether the key was missing or wrong.
        """
        if monotonic() >= self._next_look:
            self._look_at_file()
        if self._digests and not self._is_open(path) and not self._is_known(_presented(headers)):
            raise UnauthorizedError

    def _look_at_file(self) -> None:
        self._next_look = monotonic() + LOOK_INTERVAL_S
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._digests = [_digest(key) for key in read_keys(self._settings)]
        except SettingsError as error:
            log.error("The keys stay as they were: %s", error)
        else:
            log.info("The keys were read again: %d are valid.", len(self._digests))

    def _file_stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._settings.api_keys_file.stat() if self._settings.api_keys_file else None
        except OSError:
            return None
        return found and (found.st_mtime_ns, found.st_size, found.st_ino)

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


def read_keys(settings: SecuritySettings) -> list[bytes]:
    """Return the keys that open the service; none where it is open to all.

    Raises
    ------
    SettingsError
        If the file of keys cannot be read or holds none.
    """
    keys = [key.get_secret_value().strip() for key in settings.api_keys]
    if settings.api_keys_file is not None:
        lines = read_text(settings.api_keys_file, "security.api_keys_file").splitlines()
        in_file = [line.strip() for line in lines if line.strip()]
        if not in_file:
            raise SettingsError(f"security.api_keys_file: {settings.api_keys_file} holds no key.")
        keys += in_file
    return [key.encode() for key in keys]


def _presented(headers: Mapping[bytes, bytes]) -> bytes:
    if b"x-api-key" in headers:
        return headers[b"x-api-key"]
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    return b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
