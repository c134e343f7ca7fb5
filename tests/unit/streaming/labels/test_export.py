"""The export: which transactions are known, what the control sample stands for, and what is written."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyarrow import parquet

from streaming.errors import DataError
from streaming.labels.export import Exported, collect, export
from streaming.labels.known_labels import Decided, Known, KnownLabels
from streaming.labels.records import Label, write_label
from streaming.labels.strata import ALARMED, APPROVED, REVIEWED, STRATA, find_stratum
from streaming.monitor.observations import ReleaseDecision, read_decision
from streaming.monitor.quality.figures import CONTROL_STRATA
from streaming.records import InputRecord
from streaming.replay.data_files import FEATURES

NOW = 1_700_000_000_000
OLD = NOW - 100


def decided(offset: int, *, alarm: bool = False, at_ms: int = NOW, release: str = "7") -> Decided:
    return Decided(0, offset, f"T-{offset}", release, ALARMED if alarm else APPROVED, at_ms)


def label(offset: int, is_fraud: bool | None, at_ms: int = NOW, origin: Any = "chargeback") -> Label:
    return Label(f"T-{offset}", is_fraud, at_ms, origin)


@pytest.fixture
def known(tmp_path: Path) -> Any:
    with KnownLabels(tmp_path / "known.sqlite") as opened:
        yield opened


def test_what_is_known_of_each_kind(known: KnownLabels) -> None:
    known.add_decisions(
        [
            decided(0),  # approved, young, no label
            decided(1, at_ms=OLD),  # approved, old, no label
            decided(2, alarm=True, at_ms=OLD),  # an alarm without a label stays unknown, however old
            decided(3),
            decided(4, alarm=True),
            decided(5, at_ms=OLD),  # labelled, then withdrawn: as without a label
            decided(6),
        ]
    )
    known.add_labels([label(3, True), label(4, False, origin="investigation")])
    known.add_labels(
        [label(5, True, NOW), label(5, None, NOW + 1), label(6, True, NOW), label(6, None, NOW + 1)]
    )
    known.weigh(OLD)
    assert [known.find(0, offset) for offset in range(8)] == [
        None,
        Known(False, 1.0, "none"),
        None,
        Known(True, 1.0, "chargeback"),
        Known(False, 1.0, "investigation"),
        Known(False, 1.0, "none"),
        None,
        None,  # not decided
    ]


def test_the_label_that_counts_does_not_depend_on_the_order_of_arrival(tmp_path: Path) -> None:
    labels = [
        label(0, True, NOW, "control"),
        label(0, False, NOW, "chargeback"),
        label(0, False, NOW + 5, "chargeback"),
        label(0, True, NOW + 5, "investigation"),
    ]
    for number, order in enumerate(itertools.permutations(labels)):
        with KnownLabels(tmp_path / f"{number}.sqlite") as known:
            known.add_decisions([decided(0)])
            for one in order:
                known.add_labels([one])
            known.weigh(0)
            assert known.find(0, 0) == Known(True, 1.0, "investigation")


def test_the_control_sample_stands_for_what_is_unknown_so_that_the_weights_are_the_stream(
    known: KnownLabels,
) -> None:
    known.add_decisions(decided(offset) for offset in range(100))
    known.add_decisions(decided(offset, alarm=True) for offset in range(100, 120))
    known.add_labels(label(offset, True) for offset in range(5))
    known.add_labels(label(offset, offset == 10, origin="control") for offset in range(10, 20))
    # Once in the sample it stays there, whatever newer label wins.
    known.add_labels([label(10, True, NOW + 9, "chargeback")])
    known.add_labels(label(offset, False, origin="investigation") for offset in range(100, 120))
    quiet, alarmed = known.weigh(0)
    assert (quiet.decided, quiet.known, quiet.control, quiet.unknown) == (100, 15, 10, 85)
    assert (alarmed.unknown, alarmed.control_weight) == (0, 1.0)
    found = [one for offset in range(120) if (one := known.find(0, offset)) is not None]
    assert sum(one.weight for one in found) == pytest.approx(120)
    assert known.find(0, 10) == Known(True, 9.5, "chargeback")
    assert known.find(0, 3) == Known(True, 1.0, "chargeback")


def test_each_release_has_a_control_sample_of_its_own(known: KnownLabels) -> None:
    known.add_decisions([decided(0, release="7"), decided(1, release="7"), decided(2, release="8")])
    known.add_labels([label(0, False, origin="control"), label(2, False, origin="control")])
    assert [(one.release, one.control_weight) for one in known.weigh(0)] == [("7", 2.0), ("8", 1.0)]


def test_a_control_transaction_stands_only_for_those_treated_alike(known: KnownLabels) -> None:
    """Reviews for their expected loss are riskier than what is approved, and no model was alarmed."""
    kinds = [APPROVED] * 50 + [REVIEWED] * 20 + [ALARMED] * 10
    known.add_decisions(
        Decided(0, offset, f"T-{offset}", "7", kind, NOW) for offset, kind in enumerate(kinds)
    )
    sample = [*range(5), *range(50, 60), *range(70, 72)]
    known.add_labels(label(offset, offset % 2 == 0, origin="control") for offset in sample)
    found = {STRATA[one.stratum]: one.control_weight for one in known.weigh(0)}
    assert found == {"approved": 10.0, "reviewed without an alarm": 2.0, "alarmed": 5.0}


@pytest.mark.parametrize("is_alarm", [True, False])
@pytest.mark.parametrize("name", ["approve", "review", "decline"])
def test_the_monitor_has_the_same_strata(name: str, is_alarm: bool) -> None:
    value = msgspec.json.decode(decision(0).value or b"")
    scores = {"scores": {"neural_net": 0.5, "xgboost": 0.5}, "fraud_probability": 0.5}
    value |= {"decision": name, "is_fraud": is_alarm and name != "approve", **scores}
    record = InputRecord("decisions", 0, 0, NOW, None, msgspec.json.encode(value))
    made = read_decision(record, 0, "transactions")
    assert isinstance(made, ReleaseDecision)
    place = next(n for n, codes in enumerate(CONTROL_STRATA) if made.decision in codes)
    expected = (ALARMED, REVIEWED, APPROVED)[place]
    if name != "decline" or is_alarm:  # a decline without an alarm does not exist
        assert find_stratum(name, value["is_fraud"]) == expected


def transaction(offset: int, topic: str = "transactions") -> InputRecord:
    values = {name: offset + place / 100 for place, name in enumerate(FEATURES)}
    value = msgspec.json.encode({"transaction_id": f"T-{offset}", **values})
    return InputRecord(topic, 0, offset, NOW, f"T-{offset}".encode(), value)


def decision(offset: int, topic: str = "transactions") -> InputRecord:
    value = {
        "transaction_id": f"T-{offset}",
        "decision": "review" if offset % 2 else "approve",
        "release": "7",
        "source": {"topic": topic, "partition": 0, "offset": offset},
        "decided_at_ms": NOW,
    }
    return InputRecord("decisions", 0, offset, NOW, None, msgspec.json.encode(value))


def label_record(offset: int, is_fraud: bool) -> InputRecord:
    return InputRecord("labels", 0, offset, NOW, *write_label(label(offset, is_fraud)))


def test_a_file_holds_what_training_wants(known: KnownLabels, tmp_path: Path) -> None:
    rejected = Counter[str]()
    foreign = InputRecord("labels", 0, 9, NOW, b"k", b"{")
    labels = [[*(label_record(n, n == 1) for n in range(6)), foreign]]
    decisions = [
        [*(decision(n) for n in range(8)), decision(3, "other"), InputRecord("d", 0, 1, 0, None, b"?")]
    ]
    collect(
        known, labels, decisions, lambda topic, _, offset: topic == "transactions" and offset < 5, rejected
    )
    result = Exported(known.weigh(0), rejected_labels=rejected)
    path = tmp_path / "out.parquet"
    export(known, [[transaction(n) for n in range(8)]], path, result)
    assert (result.rows, result.frauds, result.undecided_or_unknown) == (5, 1, 3)
    assert result.rejected_labels == {"not_json": 1}
    table = parquet.read_table(path).to_pylist()
    assert list(table[0]) == ["transaction_id", *FEATURES, "Class", "sample_weight", "label_origin"]
    assert [row["transaction_id"] for row in table] == [f"T-{n}" for n in range(5)]
    assert [row["Class"] for row in table] == [0, 1, 0, 0, 0]
    assert table[2]["V1"] == 2.01 and {row["sample_weight"] for row in table} == {1.0}
    assert not list(tmp_path.glob(".out*"))


def test_a_file_is_written_whole_or_not_at_all(known: KnownLabels, tmp_path: Path) -> None:
    known.add_decisions([decided(0)])
    known.add_labels([label(0, True)])
    known.weigh(0)
    broken = InputRecord("transactions", 0, 0, NOW, None, b"{}")
    with pytest.raises(KeyError):
        export(known, [[broken]], tmp_path / "out.parquet", Exported())
    assert [path.name for path in tmp_path.iterdir()] == ["known.sqlite"]
    with pytest.raises(DataError, match="cannot be written"):
        export(known, [], tmp_path / "none" / "out.parquet", Exported())
