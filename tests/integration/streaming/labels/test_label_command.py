"""``streaming label`` and ``export`` against a broker: each label once, and out again."""

import itertools
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from pyarrow import parquet

from streaming.broker.admin import Admin
from streaming.broker.idempotent_producer import IdempotentProducer
from streaming.broker.range_reader import RangeReader
from streaming.labels.records import Label, read_label
from streaming.replay.data_files import FEATURES
from streaming.settings.load import Settings
from tests.conftest import ROOT
from tests.streaming_fixtures import MakeSettings


def run(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    names = settings.topics
    env = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "STREAMING__TOPICS__INPUT": names.input,
        "STREAMING__TOPICS__LABELS": names.labels,
        "STREAMING__TOPICS__LABELS_DEAD_LETTER": names.labels_dead_letter,
    }
    command = [sys.executable, "-m", "streaming", *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def settings(fresh_settings: MakeSettings) -> Settings:
    plain = fresh_settings()
    topic = plain.topics.input
    return fresh_settings(topics={"labels": f"{topic}.labels", "labels_dead_letter": f"{topic}.labels-dead"})


def read_all(settings: Settings, topic: str) -> list[tuple[int, bytes | None, bytes | None, int]]:
    with RangeReader(settings.kafka) as reader:
        first, last = (reader.resolve(topic, bound) for bound in ("earliest", "latest"))
        return [
            (one.partition, one.key, one.value, one.timestamp_ms)
            for lot in reader.read(topic, first, last)
            for one in lot
        ]


def test_labels_meet_their_transactions_and_each_is_there_once(settings: Settings, tmp_path: Path) -> None:
    data = tmp_path / "t.csv"
    rows = [",".join([f"T-{n}", *["0.5"] * len(FEATURES), str(n % 3 % 2)]) for n in range(3000)]
    bad = ",".join(["T-bad", *["0.5"] * len(FEATURES), "maybe"])
    data.write_text("\n".join([",".join(["transaction_id", *FEATURES, "Class"]), *rows, bad]) + "\n")
    assert run(settings, "replay", "--data", str(data), "--rate", "0").returncode == 0
    done = run(settings, "label", "--data", str(data))
    assert done.returncode == 0, done.stderr
    assert "3000 labels" in done.stdout and "1 rows are no labels" in done.stdout
    where = {key: partition for partition, key, _, _ in read_all(settings, settings.topics.input)}
    found: dict[str, list[Label]] = defaultdict(list)
    for partition, key, value, at_ms in read_all(settings, settings.topics.labels):
        label = read_label(key, value, at_ms)
        assert isinstance(label, Label) and where[key] == partition
        found[label.transaction_id].append(label)
    assert {name: [one.is_fraud for one in ones] for name, ones in found.items()} == {
        f"T-{n}": [n % 3 % 2 == 1] for n in range(3000)
    }
    assert [key for _, key, _, _ in read_all(settings, settings.topics.labels_dead_letter)] == [b"T-bad"]


def test_a_topic_of_labels_with_other_partitions_is_refused(settings: Settings, tmp_path: Path) -> None:
    with Admin(settings.kafka) as admin:
        admin.create(settings.topics.input, 4, settings.topics)
        admin.create(settings.topics.labels, 3, settings.topics)
    (tmp_path / "t.csv").write_text("transaction_id,Class\na,1\n")
    done = run(settings, "label", "--data", str(tmp_path / "t.csv"))
    assert done.returncode == 1
    assert "3 partitions" in done.stderr and "miss their transactions" in done.stderr


def test_without_a_file_the_usage_is_wrong(settings: Settings) -> None:
    done = run(settings, "label")
    assert done.returncode == 2
    assert "--data is missing" in done.stderr


def test_an_export_holds_what_was_replayed_decided_and_labelled(settings: Settings, tmp_path: Path) -> None:
    names = settings.topics
    data = tmp_path / "t.csv"
    rows = [",".join([f"T-{n}", *["0.5"] * len(FEATURES), str(int(n % 10 == 0))]) for n in range(500)]
    data.write_text("\n".join([",".join(["transaction_id", *FEATURES, "Class"]), *rows]) + "\n")
    assert run(settings, "replay", "--data", str(data), "--rate", "0").returncode == 0
    assert run(settings, "label", "--data", str(data), "--limit", "400").returncode == 0
    with Admin(settings.kafka) as admin:
        admin.create(names.output, 4, names)
    producer = IdempotentProducer(settings.kafka, 10.0)
    with RangeReader(settings.kafka) as reader:
        bounds = [reader.resolve(names.input, bound) for bound in ("earliest", "latest")]
        for record in itertools.chain.from_iterable(reader.read(names.input, *bounds)):
            decision = {
                **{"transaction_id": record.key.decode(), "decision": "approve", "release": "7"},
                "source": {"topic": names.input, "partition": record.partition, "offset": record.offset},
                "decided_at_ms": record.timestamp_ms,
            }
            producer.send(names.output, record.key, json.dumps(decision).encode(), None, record.partition)
    producer.flush()
    producer.close()
    topics = ("--decisions-topic", names.output, "--labels-topic", names.labels)
    done = run(settings, "export", "--output", str(tmp_path / "out.parquet"), *topics)
    assert done.returncode == 0, done.stderr
    assert "400 transactions, 40 frauds" in done.stdout
    assert "100 transactions have no label" in done.stdout
    table = parquet.read_table(tmp_path / "out.parquet").to_pandas()
    expected = {f"T-{n}": int(n % 10 == 0) for n in range(400)}
    assert dict(zip(table["transaction_id"], table["Class"], strict=True)) == expected
    again = run(settings, "export", "--output", str(tmp_path), *topics)
    assert again.returncode == 1 and "wants a file" in again.stderr
    assert run(settings, "export").returncode == 2
