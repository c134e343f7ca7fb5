import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from streaming.bridge.decider import Decider
from streaming.bridge_state import BridgeState
from streaming.commands.backfill import _check_place, _write
from streaming.commands.redrive import _progress_group
from streaming.commands.topics import group_name
from streaming.errors import DataError
from streaming.observability.metrics import Metrics
from streaming.ports import GroupMetadata
from streaming.records import InputRecord
from streaming.reprocessing.backfill import (
    BatchLimits,
    Comparison,
    backfill,
    without_decided,
)
from streaming.reprocessing.decision_table import EarlierDecision
from streaming.reprocessing.redrive import RedriveFilter, RedriveResult, read_marks, redrive
from streaming.scoring.backoff import Backoff
from streaming.settings.load import Settings
from tests.e2e.faults import transactions
from tests.fakes import TOPIC, FakeBroker, FakeClassifier, FakeSink

DEAD = "transactions.dead-letter"
HERE = GroupMetadata(1)


def letter(offset: int, reason: str, key: bytes | None = b"k", **headers: str) -> InputRecord:
    found = {"error.reason": reason, "error.partition": "3", **{f"error.{n}": v for n, v in headers.items()}}
    pairs = [(name, value.encode()) for name, value in found.items()]
    return InputRecord(DEAD, 0, offset, 0, key, b"{" if reason != "tombstone" else b"", pairs)


LETTERS = [
    letter(0, "not_json"),
    letter(1, "missing"),
    letter(2, "tombstone"),
    letter(3, "not_json", omitted="key"),
]


def drive(
    sink: FakeSink | None, reason: str | None = None, done: Mapping[str | None, int] | None = None
) -> RedriveResult:
    wanted = RedriveFilter(TOPIC, reason)
    return redrive([LETTERS], sink, HERE, lambda which: {0: (done or {}).get(which, 0)}, wanted)


def test_letters_go_back_to_their_partition_with_their_bytes() -> None:
    broker = FakeBroker()
    found = drive(FakeSink(broker))
    assert found.sent == {"not_json": 1, "missing": 1, "tombstone": 1}
    assert found.omitted == {"not_json": 1}
    assert [(o.partition, o.key, o.value) for o in broker.outputs] == [
        (3, b"k", b"{"),
        (3, b"k", b"{"),
        (3, b"k", None),
    ]
    assert dict(broker.outputs[1].headers) == {
        "redrive.topic": DEAD.encode(),
        "redrive.partition": b"0",
        "redrive.offset": b"1",
    }
    assert broker.committed == {0: 4}


def test_one_reason_leaves_the_others() -> None:
    broker = FakeBroker()
    found = drive(FakeSink(broker), "missing")
    assert (found.sent, found.other_reason) == ({"missing": 1}, 3)
    assert len(broker.outputs) == 1
    assert broker.committed == {0: 4}


def test_what_was_sent_before_for_this_or_any_reason_is_not_sent_again() -> None:
    assert drive(None, done={"not_json": 4}).sent == {"missing": 1, "tombstone": 1}
    assert drive(None, "missing", done={None: 4}).sent == {}
    assert drive(None, done={None: 2}).done_before == {"not_json": 1, "missing": 1}


def test_a_dry_run_touches_nothing() -> None:
    assert drive(None).sent.total() == 3


def test_a_tombstone_without_key_stays_a_record_that_kafka_takes() -> None:
    broker = FakeBroker()
    redrive([[letter(0, "tombstone", None)]], FakeSink(broker), HERE, lambda which: {}, RedriveFilter(TOPIC))
    assert (broker.outputs[0].key, broker.outputs[0].value) == (None, b"")


def test_letters_of_another_topic_stay_where_they_are() -> None:
    broker = FakeBroker()
    letters = [letter(0, "not_json", topic="elsewhere"), letter(1, "not_json", topic=TOPIC)]
    found = redrive([letters], FakeSink(broker), HERE, lambda which: {}, RedriveFilter(TOPIC))
    assert (found.sent.total(), found.other_topic) == (1, 1)
    assert [dict(o.headers)["redrive.offset"] for o in broker.outputs] == [b"1"]


def test_progress_is_kept_apart_by_topic_and_reason() -> None:
    one, two = (Settings(topics={"input": name}) for name in ("one", "two"))  # type: ignore[arg-type]
    names = [_progress_group(settings, reason) for settings in (one, two) for reason in (None, "missing")]
    long = [group_name(one, "backfill", "x" * 249, end) for end in ("1", "2")]
    assert len({*names, *long}) == 6
    assert all(len(name) <= 249 for name in long)


def test_a_backfill_decides_compares_and_commits_its_progress() -> None:
    sound = transactions(9)
    values = [next(sound) for _ in range(30)] + [b"{"]
    records = [InputRecord(TOPIC, 0, offset, 0, b"k", value) for offset, value in enumerate(values)]
    broker = FakeBroker()
    decide = Decider(FakeClassifier(), Backoff(0.001, 0.01), Metrics(), BridgeState()).decide
    earlier = {(0, offset): EarlierDecision("decline", "6") for offset in range(20)}
    found = backfill([records], decide, FakeSink(broker), HERE, earlier, BatchLimits(8, 10**6))
    assert found.decided.total() == 30
    assert found.undecidable == {"parse: not_json": 1}
    assert found.unchanged + found.changes.total() == 20
    assert found.without_earlier == 10
    assert found.releases == {"7": 30}
    assert len(broker.outputs) == 30
    assert broker.committed == {0: 31}
    assert broker.transactions == 4
    document = json.loads(found.as_json())
    assert document["changed"] == found.changes.total()
    assert set(document["examples"][0]) >= {"topic", "partition", "offset", "from", "to"}


def test_what_an_interrupted_run_decided_is_in_the_report() -> None:
    found = Comparison()
    for offset, now in enumerate(["approve", "decline", "review"]):
        earlier = EarlierDecision("approve", "6") if offset < 2 else None
        found.add_before((TOPIC, 0, offset), EarlierDecision(now, "7"), earlier)
    document = found.as_document()
    assert (document["decided_before"], document["unchanged"], document["changed"]) == (3, 1, 1)
    assert document["without_earlier_decision"] == 1
    assert document["examples"][0]["offset"] == 1
    assert document["releases"] == {"7": 3}


def test_a_report_without_a_folder_is_told_before_anything_is_decided(tmp_path: Path) -> None:
    for place in (tmp_path / "none" / "report.json", tmp_path):
        with pytest.raises(DataError, match="--report"):
            _check_place(place)
        with pytest.raises(DataError, match="another --report"):
            _write(Comparison(), place)
    _check_place(tmp_path / "report.json")
    _check_place(None)
    _write(Comparison(), None)


def test_an_empty_comparison_is_a_document_too() -> None:
    assert Comparison().as_document()["changed"] == 0


def test_letters_that_stand_in_the_input_again_are_not_sent_twice() -> None:
    """The offsets of a redrive expire after a week; the headers of what it sent do not."""
    broker = FakeBroker()
    letters = [letter(0, "tombstone", b"k"), letter(1, "tombstone", b"k")]
    redrive([letters], FakeSink(broker), HERE, lambda which: {}, RedriveFilter(TOPIC))
    sent = [
        InputRecord(TOPIC, out.partition, n, 0, out.key, out.value, out.headers)
        for n, out in enumerate(broker.outputs)
    ]
    marks = read_marks([sent], letters[0].topic)
    assert len(marks) == 2
    again = redrive([letters], FakeSink(broker), HERE, lambda which: {}, RedriveFilter(TOPIC), marks=marks)
    assert (again.sent.total(), again.done_before.total()) == (0, 2)


def test_what_the_output_topic_holds_is_not_decided_again() -> None:
    records = [InputRecord(TOPIC, 0, offset, 0, b"k", b"{}") for offset in range(5)]
    decided = {(0, offset): EarlierDecision("approve", "7") for offset in (1, 2, 3)}
    left = without_decided([records[:4], records[4:]], decided)
    assert [[record.offset for record in chunk] for chunk in left] == [[0], [4]]
