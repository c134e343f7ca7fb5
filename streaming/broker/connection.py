"""Turns settings into what kafka-python wants, and its errors into ours."""

import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kafka import errors as kafka_errors

from streaming.broker.compat.connection_failures import explain_failure, speaks_tls, watch_connections
from streaming.broker.compat.selector import FastLookupSelector
from streaming.broker.known_brokers import addresses_of
from streaming.errors import (
    BrokerRefused,
    BrokerUnavailable,
    CorruptInput,
    Fenced,
    MessageTooLarge,
    PublishFailed,
    SettingsError,
    StreamingError,
)
from streaming.settings.load import read_secret
from streaming.settings.sections import KafkaSettings

Result = TypeVar("Result")

BOOTSTRAP_TIMEOUT_S = 3.0
# A connection that was there and was closed by the other side.
CLOSED = ("reset by peer", "disconnected", "closed", "EOF", "Broken pipe")
# A connection that was there, and a request on it that was not answered.
UNANSWERED = "RequestTimedOutError"
WANTS_TLS = "it wants TLS on this port: set kafka.security_protocol to SSL or SASL_SSL"

FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.FencedInstanceIdError,
)
TOO_LARGE = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
)
REFUSED = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.KafkaConfigurationError,
)

ADVICE = {
    kafka_errors.InconsistentGroupProtocolError: "Other members of the group assign partitions in another "
    "way, as bridges of an earlier version do: stop all of them, then start again.",
    kafka_errors.GroupAuthorizationFailedError: "Grant READ on the consumer group.",
    kafka_errors.TransactionalIdAuthorizationFailedError: "Grant WRITE on the transactional id.",
}


def client_config(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return the part of the configuration that consumer, producer and admin client share."""
    watch_connections()
    config: dict[str, Any] = {
        "bootstrap_servers": addresses_of(settings.bootstrap_servers, settings.servers),
        "client_id": client_id,
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": int(settings.request_timeout_s * 1000),
        # An address that does not answer must leave time for the others: whoever connects tries again.
        "bootstrap_timeout_ms": int(min(settings.request_timeout_s, BOOTSTRAP_TIMEOUT_S) * 1000),
        # With the default of 30 s a client stands still for up to half a minute after the broker is back.
        "reconnect_backoff_max_ms": 1000,
    }
    if settings.security_protocol.endswith("SSL"):
        config |= _tls(settings)
    if settings.security_protocol.startswith("SASL"):
        config |= _sasl(settings)
    return config


# For consumers and producers; the admin client knows no such setting.
CLIENT_OPTIONS = {
    "metrics_enabled": False,  # a quarter of the cost of sending, and nobody reads them
    "selector": FastLookupSelector,
}


def _tls(settings: KafkaSettings) -> dict[str, Any]:
    files = {
        "ssl_cafile": settings.ssl_cafile,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
    }
    config: dict[str, Any] = {name: str(path) for name, path in files.items() if path is not None}
    for name, path in files.items():
        if path is not None and not path.is_file():
            raise SettingsError(f"kafka.{name} names {path}, which does not exist.")
    if settings.ssl_cafile is not None:
        _require_pem(settings.ssl_cafile)
    config["ssl_check_hostname"] = settings.ssl_check_hostname
    password = read_secret(settings.ssl_password, settings.ssl_password_file, "kafka.ssl_password_file")
    if password is not None:
        config["ssl_password"] = password
    return config


def _require_pem(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=str(path))
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"kafka.ssl_cafile names {path}, which is no PEM file: convert it (a Java truststore: `keytool "
            "-exportcert -rfc`)."
        ) from error


def _sasl(settings: KafkaSettings) -> dict[str, Any]:
    password = read_secret(settings.sasl_password, settings.sasl_password_file, "kafka.sasl_password_file")
    return {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": password,
    }


def translate_error(error: Exception, doing: str) -> StreamingError:
    """Return the error of ours that says what to do about one of kafka-python's.

    Parameters
    ----------
    error : Exception
    doing : str
        What failed, to begin the sentence with.
    """
    causes = _causes(error)
    text = f"{doing}: {_name(error)}"
    if "DNS" in text:
        # Only the log says which name it was.
        text = f"{doing}: {explain_failure(watch_connections().since(0.0) or text)[0]}"
    if any(isinstance(cause, FENCED) for cause in causes):
        return Fenced(text)
    if any(isinstance(cause, kafka_errors.InvalidSessionTimeoutError) for cause in causes):
        return SettingsError(
            "Wrong settings: bridge.session_timeout_ms: the broker takes only what lies between its "
            "group.min.session.timeout.ms and group.max.session.timeout.ms."
        )
    for kind, advice in ADVICE.items():
        if any(isinstance(cause, kind) for cause in causes):
            return BrokerRefused(f"{text}. {advice}")
    if any(isinstance(cause, REFUSED) for cause in causes):
        return BrokerRefused(
            f"{text}. Check the address, the credentials and the rights in configs/streaming.yaml."
        )
    if any(isinstance(cause, TOO_LARGE) for cause in causes):
        return MessageTooLarge(text)
    return PublishFailed(text)


def translate_consumer_error(error: Exception, doing: str) -> StreamingError:
    """Return the error of ours for one that a consumer raised.

    Once it has met a batch with a wrong checksum, kafka-python 3.0.12 spins for ever in the next ``poll()``,
    so that only a new process can go on.
    """
    if isinstance(error, kafka_errors.CorruptRecordError):
        return CorruptInput(
            f"{doing}: {_name(error)}. Nothing of that batch was used: start again, and if it comes again, "
            "the broker's copy is damaged: see its log."
        )
    return translate_error(error, doing)


def _causes(error: BaseException) -> list[BaseException]:
    # kafka-python wraps the reason as an argument of a bare KafkaError, or as its class.
    found: list[BaseException] = []
    open_ends: list[Any] = [error]
    while open_ends and len(found) < 20:
        one = open_ends.pop()
        if isinstance(one, type) and issubclass(one, BaseException):
            one = one()
        if isinstance(one, BaseException) and not any(one is other for other in found):
            found.append(one)
            open_ends += [one.__cause__, one.__context__, *one.args]
    return found


def _name(error: Exception) -> str:
    text = str(error).strip().split("\n")[0][:200]
    name = type(error).__name__
    return text if name in text else f"{name} {text}".strip()


def _advise(failure: str) -> str:
    """Return what a person should look at, from how connections fail."""
    if any(mark in failure for mark in CLOSED):
        return (
            "It is there, but closes every connection: check kafka.security_protocol, the "
            "credentials (kafka.sasl_username and its password) and the broker's log."
        )
    if UNANSWERED in failure:
        return (
            "It is there, but does not answer in time: see whether it is overloaded, check that the port "
            "is Kafka's, or raise kafka.connect_timeout_s."
        )
    return "Start it, or set KAFKA_BOOTSTRAP_SERVERS or --bootstrap-servers."


def retry_until_reached(
    attempt: Callable[[], Result], timeout_s: float, servers: str, plain_servers: Sequence[str] = ()
) -> Result:
    """Repeat an attempt while the broker cannot be reached.

    Parameters
    ----------
    attempt : callable
    timeout_s : float
    servers : str
        For messages.
    plain_servers : sequence of str
        host:port of those that are spoken to without TLS: where they want it, that is said.

    Raises
    ------
    BrokerUnavailable
        When it could not be reached within `timeout_s` seconds.
    BrokerRefused
        At once, when it answers and says no.
    """
    begun = time.monotonic()
    while True:
        try:
            return attempt()
        except kafka_errors.KafkaError as error:
            ours = translate_error(error, f"Kafka at {servers} refuses the connection")
            if isinstance(ours, BrokerRefused):
                raise ours from error
            failure = watch_connections().since(begun)
            reason, is_permanent = explain_failure(failure) if failure else ("it does not answer", False)
            is_closed = any(mark in (failure or "") for mark in CLOSED)
            if is_closed and not is_permanent:
                is_permanent = speaks_tls(plain_servers)
                reason = WANTS_TLS if is_permanent else reason
            if is_permanent:
                raise BrokerRefused(f"Kafka at {servers} cannot be used: {reason}.") from error
            if time.monotonic() > begun + timeout_s:
                raise BrokerUnavailable(
                    f"Kafka cannot be reached at {servers} within {timeout_s:g} s: {reason}. "
                    f"{_advise(failure or '')}"
                ) from error
        time.sleep(0.2)
