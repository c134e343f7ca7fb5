"""Gives uvicorn the password of the TLS key, and certificates that changed, without a restart.

BentoML (1.4.40) passes the password to its workers as an argument, which every user of the machine can read
in the list of processes; uvicorn (0.54) reads certificate and key once.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn.config

from bentos.compat.assumptions import require

log = logging.getLogger(f"bentoml.{__name__}")
Password = Callable[[], str | None]


@dataclass
class ServedCertificate:
    """A certificate with its key, and the context that connections get it from."""

    context: ssl.SSLContext
    certificate: str
    key: str | None
    password: Password
    stamp: tuple[object, ...] = ()

    def reload_if_changed(self) -> None:
        """Load certificate and key again if a file has changed; a pair that does not fit is not taken."""
        stamp = tuple(_stamp(path) for path in (self.certificate, self.key or self.certificate))
        if stamp == self.stamp:
            return
        before, self.stamp = self.stamp, stamp
        if not before:
            return  # as uvicorn has loaded it
        try:
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.certificate, self.key, self.password())
            load_pair(self.context, self.certificate, self.key, self.password())
        except (OSError, ssl.SSLError) as error:
            log.error("The new certificate cannot be used, the one before stays: %s", error)
        else:
            log.info("A new certificate is in use.")


_served: list[ServedCertificate] = []


def check_assumptions() -> None:
    """Return if uvicorn makes its context as `install` takes for granted.

    Raises
    ------
    BrokenAssumptionError
        If it makes it otherwise.
    """
    require(
        "uvicorn",
        "`uvicorn.config.create_ssl_context` makes the context of a server",
        callable(getattr(uvicorn.config, "create_ssl_context", None)),
    )


def install(password: Password) -> None:
    """Have uvicorn make its context with this password, and remember it for `reload_changed`."""
    original = uvicorn.config.create_ssl_context

    def create(**options: Any) -> ssl.SSLContext:  # noqa: ANN401  # uvicorn's
        context = original(**{**options, "password": password() or options.get("password")})
        served = ServedCertificate(context, str(options["certfile"]), options.get("keyfile"), password)
        served.reload_if_changed()
        _served.append(served)
        return context

    uvicorn.config.create_ssl_context = create  # type: ignore[assignment]  # called with keywords only


def reload_changed() -> None:
    """Load every certificate again whose file has changed; new connections get it."""
    for certificate in _served:
        certificate.reload_if_changed()


def load_pair(context: ssl.SSLContext, certificate: str, key: str | None, password: str | None) -> None:
    """Load certificate and key into `context`; without a password never ask for one on the terminal."""
    context.load_cert_chain(certificate, key, lambda: password or "")


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # follows the links by which a cluster changes its secrets
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
