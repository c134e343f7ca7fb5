# ruff: noqa: ANN401  # kafka-python is untyped
"""Where a log ends on the embedded broker of the demo.

Asked for the end, Tansu 0.6.0 tells the first record of the last batch: a reader that stops there leaves the
rest of the batch out. The answer to a fetch has the right end.
"""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition

CLUSTER_ID = "tansu_cluster"
POLL_MS = 100


def is_embedded(consumer: Any) -> bool:
    """Return whether a consumer is connected to the embedded broker."""
    return getattr(getattr(consumer, "_cluster", None), "cluster_id", None) == CLUSTER_ID


def find_ends(
    consumer: Any, told: Mapping[TopicPartition, int], timeout_ms: float
) -> dict[TopicPartition, int]:
    """Return the offsets behind the last records.

    Parameters
    ----------
    consumer : KafkaConsumer
        Lends its address; its positions stay.
    told : mapping of TopicPartition to int
        What the broker tells.
    timeout_ms : float
        What is told stands for partitions whose end is not found by then.
    """
    ends = dict(told)
    filled = [tp for tp, end in told.items() if end > 0]
    if not filled:
        return ends
    servers = consumer.config["bootstrap_servers"]
    with contextlib.closing(KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)) as other:
        other.assign(filled)
        for tp in filled:
            other.seek(tp, told[tp] - 1)
        deadline = time.monotonic() + timeout_ms / 1000
        while any(other.highwater(tp) is None for tp in filled) and time.monotonic() < deadline:
            other.poll(POLL_MS, max_records=1)
        for tp in filled:
            ends[tp] = max(told[tp], other.highwater(tp) or 0)
    return ends
