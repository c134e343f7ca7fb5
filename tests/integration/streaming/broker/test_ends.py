"""The end of a log is behind its last record, on each of the brokers."""

import pytest

from streaming.broker.idempotent_producer import IdempotentProducer
from streaming.broker.range_reader import RangeReader
from streaming.broker.topics import prepare_topics
from tests.streaming_fixtures import MakeSettings


@pytest.mark.timeout(60)
def test_every_record_of_the_last_batch_lies_before_the_end(fresh_settings: MakeSettings) -> None:
    settings = fresh_settings()
    prepare_topics(settings)
    topic = settings.topics.input
    sender = IdempotentProducer(settings.kafka, 10)
    for batch in (3, 40):
        for _ in range(batch):
            sender.send(topic, b"k", b"{}", partition=1)
        sender.flush()
    sender.close()
    with RangeReader(settings.kafka) as reader:
        first, last = (reader.resolve(topic, bound) for bound in ("earliest", "latest"))
        assert last == {0: 0, 1: 43, 2: 0, 3: 0}
        assert sum(map(len, reader.read(topic, first, last))) == 43
