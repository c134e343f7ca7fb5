"""The decisions on a range are found where they lie, kept small, and nothing else is read."""

import json
from collections.abc import Iterator, Mapping

import pytest

from streaming.records import InputRecord
from streaming.reprocessing.decision_table import DecisionTable, EarlierDecision
from streaming.reprocessing.earlier_decisions import collect_decisions, find_start

TOPIC = "transactions"


def decision(place: int, source: tuple[int, int], kind: str = "approve", topic: str = TOPIC) -> InputRecord:
    origin = {"topic": topic, "partition": source[0], "offset": source[1]}
    value = {"decision": kind, "release": "6", "source": origin, "decided_at_ms": 1}
    return InputRecord("decisions", 0, place, 0, b"k", json.dumps(value).encode())


class Topic:
    """One partition of decisions, each on a transaction (partition, offset); None: a transaction marker."""

    def __init__(self, sources: list[tuple[int, int] | None]) -> None:
        self.records = [decision(n, source) for n, source in enumerate(sources) if source is not None]
        self.bounds = {0: 0}, {0: len(sources)}
        self.was_read = 0

    def read(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> Iterator[list[InputRecord]]:
        inside = [record for record in self.records if starts[0] <= record.offset < ends[0]]
        for first in range(0, len(inside), 10):
            chunk = inside[first : first + 10]
            self.was_read += len(chunk)
            yield chunk


def collected(topic: Topic, table: DecisionTable) -> bool:
    starts, is_ordered = find_start(topic, "decisions", topic.bounds, TOPIC, table)
    collect_decisions(topic.read("decisions", starts, topic.bounds[1]), TOPIC, table, is_ordered=is_ordered)
    return is_ordered


def test_decisions_are_found_by_their_source() -> None:
    table = DecisionTable({0: 0, 1: 3}, {0: 5, 1: 3})
    records = [decision(0, (0, 0)), decision(1, (0, 1), "review"), decision(2, (0, 9)), decision(3, (1, 3))]
    records += [decision(4, (0, 2), topic="x"), InputRecord("decisions", 0, 9, 0, None, b"no decision")]
    collect_decisions([records], TOPIC, table, is_ordered=False)
    assert dict(table) == {(0, 0): EarlierDecision("approve", "6"), (0, 1): EarlierDecision("review", "6")}
    assert len(table) == 2
    assert (0, 4) not in table
    assert (7, 0) not in table


def test_a_transaction_takes_two_bytes() -> None:
    table = DecisionTable({0: 10}, {0: 1_000_010})
    for offset in range(10, 1_000_010, 1000):
        table.put((0, offset), EarlierDecision("approve", "6"))
    assert sum(numbers.itemsize * len(numbers) for numbers in table._numbers.values()) == 2_000_000
    assert len(table) == 1000


@pytest.mark.parametrize("marks", [False, True])
def test_only_the_range_is_read(marks: bool) -> None:
    sources: list[tuple[int, int] | None] = [(0, offset) for offset in range(20_000)]
    if marks:
        sources = [
            one for n, source in enumerate(sources) for one in ([source, None] if n % 7 == 0 else [source])
        ]
    topic = Topic(sources)
    table = DecisionTable({0: 12_000}, {0: 12_300})
    assert collected(topic, table)
    assert set(table) == {(0, offset) for offset in range(12_000, 12_300)}
    assert topic.was_read < 300 + 600


def test_partitions_that_share_one_are_told_apart() -> None:
    sources = [(n % 3, n // 3 + 100 * (n % 3)) for n in range(6000)]
    topic = Topic(list(sources))
    table = DecisionTable({0: 1500, 2: 1700}, {0: 1510, 2: 1710})
    assert collected(topic, table)
    assert set(table) == {(0, n) for n in range(1500, 1510)} | {(2, n) for n in range(1700, 1710)}


def test_a_topic_whose_input_was_made_again_is_read_whole() -> None:
    topic = Topic([(0, offset) for offset in (*range(5000), *range(3000))])
    table = DecisionTable({0: 100}, {0: 200})
    assert not collected(topic, table)
    assert len(table) == 100


def test_a_range_that_has_no_decisions_yet() -> None:
    topic = Topic([(0, offset) for offset in range(1000)])
    table = DecisionTable({0: 5000}, {0: 6000})
    assert collected(topic, table)
    assert not table
    assert not find_start(Topic([]), "decisions", ({0: 0}, {0: 0}), TOPIC, table)[0][0]
