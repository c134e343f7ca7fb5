"""Gives uvicorn the password of the TLS key, and certificates that changed, without a restart.

BentoML (1.4.40) passes the password to its workers as an argument, which every user of the machine can read
in the list of processes; uvicorn (0.54) reads certificate, key and the clients' CA once.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn.config

from bentos.compat.assumptions import require

log = logging.getLogger(f"bentoml.{__name__}")
Password = Callable[[], str | None]


@dataclass
class ServedCertificate:
    """What new connections of a port are secured with: made again, as a whole, when a file changes.

    An `ssl.SSLContext` cannot forget a CA that it has loaded, so there is a new one; the context that uvicorn
    listens with hands each connection over to it.
    """

    make: Callable[[], ssl.SSLContext]
    certificate: str
    key: str | None
    client_ca: str | None
    password: Password
    context: ssl.SSLContext = field(init=False)
    stamp: tuple[object, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.stamp = self._stamp()
        self.context = self.make()

    def reload_if_changed(self) -> None:
        """Make the context again if a file has changed; files that do not fit together are not taken."""
        stamp = self._stamp()
        if stamp == self.stamp:
            return
        self.stamp = stamp
        try:
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.certificate, self.key, self.password())
            self.context = self.make()
        except (OSError, ssl.SSLError) as error:
            log.error("The new certificate cannot be used, the one before stays: %s", error)
        else:
            log.info("A new certificate is in use.")

    def hand_over(self, connection: ssl.SSLObject, *_: object) -> None:
        """Secure a connection that has just said hello with what is served now."""
        connection.context = self.context

    def _stamp(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.client_ca) if path)


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
        def make() -> ssl.SSLContext:
            return original(**{**options, "password": password() or options.get("password")})

        served = ServedCertificate(
            make, str(options["certfile"]), options.get("keyfile"), options.get("ca_certs"), password
        )
        context = served.context
        context.sni_callback = served.hand_over
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
