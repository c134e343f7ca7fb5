"""Topics on genuine Kafka: made as production needs them, and looked at where they exist."""

import uuid

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from structlog.testing import capture_logs

from streaming.broker.admin import Admin
from streaming.broker.topics import prepare_topics
from streaming.errors import BrokerRefused
from streaming.settings.load import Settings

KEYS = ("cleanup.policy", "min.insync.replicas", "retention.ms", "max.message.bytes")


def settings(address: str, **topics: object) -> Settings:
    run = uuid.uuid4().hex[:8]
    names = {"input": f"in-{run}", "output": f"out-{run}", "dead_letter": f"dead-{run}"}
    return Settings.model_validate({"kafka": {"bootstrap_servers": address}, "topics": names | topics})


def test_topics_are_created_as_the_settings_say(genuine_broker: str) -> None:
    chosen = settings(
        genuine_broker, min_insync_replicas=1, input_retention_hours=48, output_retention_hours=100
    )
    prepare_topics(chosen)
    with Admin(chosen.kafka) as admin:
        found = {name: admin.topic_configs(name, KEYS) for name in _names(chosen)}
    hours = {name: int(one["retention.ms"]) / 3_600_000 for name, one in found.items()}
    assert list(hours.values()) == [48, 100, 720]
    assert {one["min.insync.replicas"] for one in found.values()} == {"1"}
    assert {one["cleanup.policy"] for one in found.values()} == {"delete"}


def test_a_compacted_output_is_refused_at_the_start(genuine_broker: str) -> None:
    """A record without a key would be refused for ever: two aborts a second without end."""
    chosen = settings(genuine_broker)
    client = KafkaAdminClient(bootstrap_servers=genuine_broker)
    compacted = NewTopic(chosen.topics.output, 4, 1, topic_configs={"cleanup.policy": "compact"})
    client.create_topics([compacted])
    client.wait_for_topics([chosen.topics.output])
    client.close()
    with pytest.raises(BrokerRefused, match=r"out-.* is compacted .*cleanup\.policy=delete"):
        prepare_topics(chosen)


def test_a_topic_that_keeps_letters_for_a_day_is_told(genuine_broker: str) -> None:
    short = settings(genuine_broker, dead_letter_retention_hours=24)
    prepare_topics(short)
    names = {"input": short.topics.input, "output": short.topics.output}
    longer = settings(genuine_broker, **names, dead_letter=short.topics.dead_letter)
    with capture_logs() as logs:
        prepare_topics(longer)
    (told,) = [one for one in logs if one["event"] == "topic_keeps_shorter"]
    assert (told["topic"], told["found_hours"], told["wanted_hours"]) == (short.topics.dead_letter, 24, 720)


def test_topics_with_one_copy_are_told(genuine_broker: str) -> None:
    chosen = settings(genuine_broker)
    with capture_logs() as logs:
        prepare_topics(chosen)
    (told,) = [one for one in logs if one["event"] == "topics_have_one_copy"]
    assert told["topics"] == list(_names(chosen))
    assert told["log_level"] == "warning"


def _names(chosen: Settings) -> tuple[str, str, str]:
    return chosen.topics.input, chosen.topics.output, chosen.topics.dead_letter
