"""The private parts of kafka-python that are used: an upgrade that moves one must not pass unnoticed."""

from types import SimpleNamespace

import pytest
from kafka import KafkaConsumer
from kafka import errors as kafka_errors
from kafka.producer.transaction_manager import TransactionManager

from streaming.broker.compat import kafka_internals
from streaming.errors import BrokerRefused


def test_the_installed_version_has_them_all() -> None:
    kafka_internals.check()


def test_a_part_that_has_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kafka_internals._NEEDED, KafkaConsumer, ("_coordinator", "_gone"))
    with pytest.raises(BrokerRefused, match=r"KafkaConsumer\._gone.*constraints\.txt"):
        kafka_internals.check()


@pytest.mark.parametrize(
    "refusal", [kafka_errors.InvalidProducerEpochError, kafka_errors.OutOfOrderSequenceNumberError]
)
def test_a_producer_whose_epoch_is_refused_asks_for_no_other(refusal: type[Exception]) -> None:
    """The defect first: should it be mended one day, this test says so."""
    manager = TransactionManager(transactional_id="id", api_version=(4, 1))
    assert manager.classify_batch_error(refusal(), None) == manager.ERROR_CLASS_NEEDS_EPOCH_BUMP
    kafka_internals.forbid_epoch_bumps(SimpleNamespace(_transaction_manager=manager))
    assert manager.classify_batch_error(refusal(), None) == manager.ERROR_CLASS_FATAL
