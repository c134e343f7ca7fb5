"""Why connections to brokers fail: kafka-python 3.0 only logs it, and then reports that time has passed."""

import logging
import socket
import ssl
import time
from collections.abc import Iterable

from kafka import errors as kafka_errors
from typing_extensions import override

# Text of a failure to what a person should do; none of these passes by itself.
PERMANENT = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted, or is for another name: check "
    "kafka.ssl_cafile and the addresses",
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port: check kafka.security_protocol and the port",
    "SaslAuthenticationFailed": "it refuses the credentials: check kafka.sasl_username and its password",
    "UnsupportedSaslMechanism": "it does not take this mechanism: check kafka.sasl_mechanism",
}
PASSING = {
    "DNS": "a name that is set here, or that a broker advertises (advertised.listeners), cannot be resolved",
}

# For this long a permanent failure is kept as the cause, whatever failures follow from it.
KEPT_S = 30.0


class ConnectionFailures(logging.Handler):
    """Remembers the last failed connection that kafka-python has logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last: tuple[float, str] | None = None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        # A timeout is what follows from the failure that was logged before it.
        failed = [
            one
            for one in arguments
            if isinstance(one, BaseException) and not isinstance(one, kafka_errors.KafkaTimeoutError)
        ]
        is_lookup = "DNS lookup failed" in record.getMessage()
        if (
            self._last is not None
            and "DNS lookup" in self._last[1]
            and not is_lookup
            and "DNS" in str(failed)
        ):
            return  # it only says that the lookup failed, not of which name
        if failed or is_lookup:
            causes = "; ".join(f"{type(one).__name__}: {one}" for one in failed) or record.getMessage()
            now = time.monotonic()
            is_old = self._last is not None and now - self._last[0] > KEPT_S
            if self._last is None or is_old or is_permanent(causes) or not is_permanent(self._last[1]):
                self._last = now, causes

    def since(self, moment: float) -> str | None:
        """Return the last failure after a moment of ``time.monotonic()``, or None."""
        return self._last[1] if self._last is not None and self._last[0] >= moment else None


FAILURES = ConnectionFailures()


def watch_connections() -> ConnectionFailures:
    """Begin to remember failed connections."""
    for name in ("kafka.net.manager", "kafka.net.inet", "kafka.net.connection"):
        logger = logging.getLogger(name)
        if FAILURES not in logger.handlers:
            logger.addHandler(FAILURES)
            # A failed bootstrap connection is only a warning there; our own errors say what came of it.
            logger.setLevel(logging.WARNING)
            logger.propagate = False
    return FAILURES


def speaks_tls(servers: Iterable[str], timeout_s: float = 2.0) -> bool:
    """Return whether one of some host:port answers a TLS handshake.

    A broker that expects TLS only closes a plain connection, as one does that restarts.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            with (
                socket.create_connection((host.strip("[]"), int(port)), timeout_s) as plain,
                context.wrap_socket(plain),
            ):
                return True
        except ssl.SSLError as error:
            # It asks for a client certificate, or for another version: TLS all the same.
            if "WRONG_VERSION_NUMBER" not in str(error) and "EOF" not in str(error):
                return True
        except OSError:
            continue
    return False


def is_permanent(failure: str) -> bool:
    """Return whether no retry can help against a failure."""
    return any(mark in failure for mark in PERMANENT)


def explain_failure(failure: str) -> tuple[str, bool]:
    """Return a failure as part of a sentence, and whether no retry can help."""
    for mark, meaning in PERMANENT.items():
        if mark in failure:
            return meaning, True
    for mark, meaning in PASSING.items():
        if mark in failure:
            return f"{meaning} ({failure})", False
    return failure, False
