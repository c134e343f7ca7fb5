"""The monitor's database: bounded, owned by one process, all or nothing."""

import json
import random
import sqlite3
from pathlib import Path

import pytest

from streaming.errors import SettingsError, StateError
from streaming.monitor.intake import Intake
from streaming.monitor.observations import clamp_time, read_payment
from streaming.monitor.quality.report import Reporter
from streaming.monitor.store.cells import DAY_MS, Cells
from streaming.monitor.store.state import Batch, State
from streaming.records import InputRecord
from streaming.settings.monitor import MonitorSettings
from tests.info_service import document
from tests.monitored_stream import tell
from tests.recount import assert_matches, cases, window

TOPICS = {"transactions": "in", "decisions": "out", "shadow": "out.shadow", "labels": "labels"}
NOW_MS = 1_790_000_000_000


def read(seed: int = 3, rows: int = 1500, **options: object) -> tuple[Batch, list[object]]:
    stream = tell(TOPICS, seed=seed, rows=rows, now_ms=NOW_MS, **options)  # type: ignore[arg-type]
    return Intake(TOPICS).read(stream.inputs(random.Random(0))), list(stream.records)


def count(state: State, what: str) -> int:
    return int(state.connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0])


def test_what_is_older_than_the_label_delay_goes_and_the_sums_stay(tmp_path: Path) -> None:
    settings = MonitorSettings(state=tmp_path / "state", label_delay_days=1.0)
    state = State(settings)
    batch, records = read()  # three days
    state.apply(batch, {}, [])
    before = Reporter(state, settings).report(NOW_MS)
    days, labels = set(state.joiner.identities.days()), count(state, "labels")
    for _ in range(10):
        state.expire()
    cutoff = NOW_MS - DAY_MS
    assert count(state, f"outcomes WHERE at_ms < {cutoff}") == 0
    assert 0 < count(state, "outcomes") < 600
    assert state.joiner.identities.days() == {day for day in days if day >= cutoff // DAY_MS}
    assert count(state, "labels") < labels
    assert count(state, f"labels WHERE arrived_ms < {cutoff}") == 0
    after = Reporter(state, settings).report(NOW_MS)
    state.close()
    for one, other in zip(before["releases"], after["releases"], strict=True):
        assert one["windows"]["since_release"] == other["windows"]["since_release"]
    shown = after["releases"][0]["windows"]["since_release"]
    assert_matches(shown, window(cases(records), "champion", "12", 0))  # type: ignore[arg-type]


def test_labels_that_never_met_a_transaction_are_counted_when_they_go(tmp_path: Path) -> None:
    state = State(MonitorSettings(state=tmp_path / "state", label_delay_days=1.0))
    state.apply(read(rows=300)[0], {}, [])
    assert state.labels.waiting() == 20
    state.as_of_ms = NOW_MS + 2 * DAY_MS
    state.expire()
    state.expire()
    assert (state.labels.waiting(), count(state, "outcomes")) == (0, 0)
    assert count(state, "counters WHERE name = 'labels_expired' AND count = 20") == 1
    state.close()


def test_a_batch_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(MonitorSettings(state=tmp_path / "state"))
    batch, _ = read(rows=300)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Cells, "write", full)
    with pytest.raises(StateError, match="disk is full"):
        state.apply(batch, {}, [])
    assert not state.positions()
    assert count(state, "outcomes") == count(state, "labels") == count(state, "counters") == 0
    state.close()


def test_offsets_change_with_the_counts(tmp_path: Path) -> None:
    settings = MonitorSettings(state=tmp_path / "state")
    state = State(settings)
    batch, _ = read(rows=300)
    state.apply(batch, {"transactions": "id-1"}, [])
    state.close()
    again = State(settings)
    positions = again.positions()
    again.close()
    assert {stand: one.next_offset for stand, one in positions.items()} == batch.next_offsets
    assert positions["transactions", 0].topic_id == "id-1"


def test_two_processes_never_share_a_folder_nor_two_layouts_a_state(tmp_path: Path) -> None:
    settings = MonitorSettings(state=tmp_path / "state")
    state = State(settings)
    with pytest.raises(SettingsError, match="Another monitor works"):
        State(settings)
    state.close()
    for change in ({"bucket_s": 60}, {"amount_bands": (10.0,)}, {"partitions": (0, 1)}):
        with pytest.raises(SettingsError, match="set it back"):
            State(settings.model_copy(update=change))
    State(settings).close()


def test_a_file_that_is_no_database_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "monitor.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(SettingsError, match="move it away"):
        State(MonitorSettings(state=tmp_path))


@pytest.mark.parametrize(("timestamp_ms", "taken"), [(5, 5), (-1, NOW_MS), (NOW_MS + 1, NOW_MS)])
def test_a_clock_that_runs_ahead_ages_nobody(timestamp_ms: int, taken: int) -> None:
    assert clamp_time(timestamp_ms, NOW_MS) == taken


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"Time": 1}', b"\xff", b'{"Time":NaN}'])
def test_what_is_no_transaction_is_none(value: bytes | None) -> None:
    assert read_payment(InputRecord("in", 0, 0, 5, b"k", value), NOW_MS) is None


def test_an_alarm_begins_is_kept_and_ends(tmp_path: Path) -> None:
    settings = MonitorSettings(state=tmp_path / "state")
    state = State(settings)
    state.note_document(0, "12", json.dumps(document("12", recall=0.9)))
    state.apply(read(catch=0.3, rows=3000)[0], {}, [])
    first = Reporter(state, settings).report(NOW_MS)
    again = Reporter(state, settings).report(NOW_MS + 5000)
    (alarm,) = [one for one in again["alarms"] if one["kind"] == "recall"]
    assert (alarm["since_ms"], alarm["until_ms"], alarm["role"]) == (NOW_MS, None, "champion")
    assert again["counts"]["alarms"]["recall"] == 1
    assert first["retraining"]["advised"] and "promised 0.90" in first["retraining"]["sentence"]
    state.note_document(0, "12", json.dumps(document("12", recall=0.1)))
    ended = Reporter(state, settings).report(NOW_MS + 9000)
    assert [one["until_ms"] for one in ended["alarms"] if one["kind"] == "recall"] == [NOW_MS + 9000]
    assert not ended["retraining"]["advised"]
    state.close()


def test_few_labels_raise_no_alarm(tmp_path: Path) -> None:
    settings = MonitorSettings(state=tmp_path / "state", min_frauds=500)
    state = State(settings)
    state.note_document(0, "12", json.dumps(document("12", recall=0.9)))
    state.apply(read(catch=0.3, rows=3000)[0], {}, [])
    assert not [one for one in Reporter(state, settings).report(NOW_MS)["alarms"] if one["kind"] == "recall"]
    state.close()
