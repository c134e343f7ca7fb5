# ruff: noqa: ANN401  # kafka-python is untyped
"""Sends records without transactions: for replay and redrive, every one acknowledged or an error."""

import contextlib
import time
from collections import deque
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from streaming.broker.compat import kafka_internals
from streaming.broker.connection import CLIENT_OPTIONS, client_config, retry_until_reached, translate_error
from streaming.broker.transactional_producer import BATCH_BYTES, MAX_REQUEST_BYTES
from streaming.errors import BrokerUnavailable
from streaming.records import Headers
from streaming.settings.sections import KafkaSettings

# kafka-python's send() has no memory bound of its own.
MAX_OUTSTANDING = 20_000


class IdempotentProducer:
    """An idempotent producer that remembers what is not acknowledged yet.

    Parameters
    ----------
    settings : KafkaSettings
    delivery_timeout_s : float
        How long a record may take, seconds.
    """

    def __init__(self, settings: KafkaSettings, delivery_timeout_s: float) -> None:
        config = client_config(settings, "replay")
        self._timeout_s = delivery_timeout_s
        self._outstanding: deque[Any] = deque()
        self._producer = retry_until_reached(
            lambda: KafkaProducer(
                **config,
                **CLIENT_OPTIONS,
                delivery_timeout_ms=int(delivery_timeout_s * 1000),
                max_block_ms=int(delivery_timeout_s * 1000),
                retry_backoff_ms=20,
                batch_size=BATCH_BYTES,
                linger_ms=2,
                max_request_size=MAX_REQUEST_BYTES,
                allow_auto_create_topics=False,
            ),
            settings.connect_timeout_s,
            settings.bootstrap_servers,
        )
        kafka_internals.prepare_producer(self._producer)

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> None:
        """Hand one record over; waits when too many are on their way.

        Raises
        ------
        BrokerError
            When a record could not be delivered: this one, or one sent before.
        """
        try:
            self._outstanding.append(
                self._producer.send(topic, value=value, key=key, headers=headers, partition=partition)
            )
        except kafka_errors.KafkaError as error:
            raise translate_error(error, f"Sending to {topic}") from error
        while self._outstanding and self._outstanding[0].is_done:
            self._check(self._outstanding.popleft(), 0.0)
        if len(self._outstanding) >= MAX_OUTSTANDING:
            self._settle(MAX_OUTSTANDING // 2)

    def flush(self) -> None:
        """Wait until everything is acknowledged."""
        self._settle(0)

    def _settle(self, down_to: int) -> None:
        deadline = time.monotonic() + self._timeout_s + 5.0
        while len(self._outstanding) > down_to:
            self._check(self._outstanding[0], max(0.0, deadline - time.monotonic()))
            self._outstanding.popleft()

    def _check(self, future: Any, timeout_s: float) -> None:
        try:
            future.get(timeout_s)
        except kafka_errors.KafkaTimeoutError as error:
            message = f"The broker has not acknowledged a record for {self._timeout_s:g} s: is it up?"
            raise BrokerUnavailable(message) from error
        except kafka_errors.KafkaError as error:
            raise translate_error(error, "Sending") from error

    def close(self) -> None:
        """Give up the connections; `flush` before."""
        with contextlib.suppress(kafka_errors.KafkaError):
            self._producer.close(timeout=2)
