"""The private parts of kafka-python that are used: an upgrade that moves one must not pass unnoticed."""

import pytest
from kafka import KafkaConsumer

from streaming.broker.compat import kafka_internals
from streaming.errors import BrokerRefused


def test_the_installed_version_has_them_all() -> None:
    kafka_internals.check()


def test_a_part_that_has_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kafka_internals._NEEDED, KafkaConsumer, ("_coordinator", "_gone"))
    with pytest.raises(BrokerRefused, match=r"KafkaConsumer\._gone.*constraints\.txt"):
        kafka_internals.check()
