"""Partitions scored by what a Spark task runs: equal to the one-process scorer, and resumable."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.training_fixtures import THIRD_PARTY_WARNINGS
from training.errors import UsageError
from training.registry.releases import Registry
from training.scoring.partition_task import ScoreJob, score_partition
from training.scoring.partitions import plan_partitions
from training.scoring.score_folder import ScoreFolder
from training.scoring.scorer import ReleaseScorer, score_file
from training.scoring.storage import Storage
from training.settings.sections import LimitSettings

pytestmark = THIRD_PARTY_WARNINGS


@pytest.fixture(scope="module")
def release(published, tmp_path_factory):
    registry = Registry(f"sqlite:///{published}/mlflow.db")
    return registry.fetch(registry.release("1"), tmp_path_factory.mktemp("release"))


@pytest.fixture
def frame(few_transactions):
    return few_transactions.to_frame(np.arange(900)).drop(columns=["Class", "sample_weight"])


def score_all(data, output, release, partition_bytes=1 << 20):
    """Score what is not done yet; return the results and how many partitions were done before."""
    data, folder = Storage.at(str(data)), ScoreFolder(Storage.at(str(output)), "1 abc")
    plan = plan_partitions(data, partition_bytes)
    folder.open()
    done = folder.done(plan.partitions)
    rest = [part for part in plan.partitions if folder.key(part) not in done]
    scorer = ReleaseScorer(release, threads=1)
    job = ScoreJob(data, folder, plan.is_folder, LimitSettings())
    results = [score_partition(scorer, part, job) for part in rest]
    folder.close(complete=not any(result.problem for result in results))
    return results, len(done)


def read_scores(output):
    frames = [
        pd.read_csv(p, dtype={"transaction_id": str})
        for p in sorted(output.rglob("*.csv"))
        if "_refused" not in str(p)
    ]
    frames += [pd.read_parquet(p) for p in sorted(output.rglob("*.parquet")) if "_refused" not in str(p)]
    return pd.concat(frames, ignore_index=True)


def score_in_one_process(frame, release, folder):
    frame.to_parquet(folder / "whole.parquet", index=False)
    score_file(
        ReleaseScorer(release, threads=1),
        folder / "whole.parquet",
        folder / "whole-scores.parquet",
        lambda _: None,
    )
    return pd.read_parquet(folder / "whole-scores.parquet")


@pytest.mark.parametrize("name", ["scores", "scores.csv"])
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "row numbers"])
def test_one_file_in_partitions_equals_one_process(frame, release, tmp_path, name, ids):
    frame = frame if ids else frame.drop(columns="transaction_id")
    whole = score_in_one_process(frame, release, tmp_path)
    frame.to_parquet(tmp_path / "in.parquet", index=False, row_group_size=100)
    results, _ = score_all(tmp_path / "in.parquet", tmp_path / name, release, partition_bytes=1)
    assert len(results) == 9
    scores = read_scores(tmp_path / name)
    assert scores.columns.tolist() == whole.columns.tolist()
    assert scores["transaction_id"].tolist() == whole["transaction_id"].tolist()
    assert scores["decision"].tolist() == whole["decision"].tolist()
    for column in ("neural_net_score", "xgboost_score", "fraud_probability"):
        np.testing.assert_allclose(
            scores[column], whole[column], rtol=0, atol=1e-6 if name.endswith("csv") else 1e-9
        )


def test_rows_of_a_folder_without_ids_are_named_by_file_and_row(frame, release, tmp_path):
    plain = frame.drop(columns="transaction_id")
    (tmp_path / "in" / "day=1").mkdir(parents=True)
    plain.head(3).to_csv(tmp_path / "in" / "day=1" / "a.csv", index=False)
    plain.tail(2).to_parquet(tmp_path / "in" / "b.parquet", index=False)
    score_all(tmp_path / "in", tmp_path / "out", release)
    assert set(read_scores(tmp_path / "out")["transaction_id"]) == {
        *(f"day=1/a.csv:{row}" for row in (1, 2, 3)),
        *(f"b.parquet:{row}" for row in (1, 2)),
    }


@pytest.fixture
def folder_with_faults(frame, tmp_path):
    """Four files of 100 rows; one has two bad rows, one is no parquet file."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        part = frame.iloc[100 * i : 100 * i + 100].copy()
        if i == 1:
            part.iloc[[10, 20], 5] = [np.nan, np.inf]
        part.to_parquet(folder / f"{i}.parquet", index=False)
    (folder / "2.parquet").write_bytes(b"PAR1 cut off")
    return folder


def test_bad_rows_are_counted_and_written_aside_and_never_approved(
    folder_with_faults, frame, release, tmp_path
):
    results, _ = score_all(folder_with_faults, tmp_path / "out", release)
    assert [(result.rows, result.refused) for result in results] == [(100, 0), (98, 2), (0, 0), (100, 0)]
    bad = {frame["transaction_id"][110], frame["transaction_id"][120]}
    assert not bad & set(read_scores(tmp_path / "out")["transaction_id"])
    aside = pd.read_parquet(next((tmp_path / "out" / "_refused").iterdir()))
    assert set(aside["transaction_id"]) == bad
    assert aside["row"].tolist() == [11, 21]
    assert set(aside["file"]) == {"1.parquet"}


def test_bad_file_is_named_and_costs_no_other(folder_with_faults, frame, release, tmp_path):
    results, _ = score_all(folder_with_faults, tmp_path / "out", release)
    problems = [result.problem for result in results if result.problem]
    bad = folder_with_faults / "2.parquet"
    assert problems == [f"{bad}: is not a readable parquet file; is it cut off?"]
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    # Mended, it alone is scored.
    frame.iloc[200:300].to_parquet(bad, index=False)
    results, done = score_all(folder_with_faults, tmp_path / "out", release)
    assert ([result.partition.source for result in results], done) == (["2.parquet"], 3)
    assert len(read_scores(tmp_path / "out")) == 398
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_scores_of_a_file_that_changed_are_replaced(frame, release, tmp_path):
    (tmp_path / "in").mkdir()
    frame.head(5).to_csv(tmp_path / "in" / "a.csv", index=False)
    score_all(tmp_path / "in", tmp_path / "out", release)
    frame.tail(3).to_csv(tmp_path / "in" / "a.csv", index=False)
    assert score_all(tmp_path / "in", tmp_path / "out", release)[1] == 0
    assert (
        read_scores(tmp_path / "out")["transaction_id"].tolist() == frame["transaction_id"].tail(3).tolist()
    )


def test_partition_whose_record_is_missing_is_scored_again(frame, release, tmp_path):
    """A task that ended between its scores and its record."""
    frame.to_csv(tmp_path / "a.csv", index=False)
    score_all(tmp_path / "a.csv", tmp_path / "out", release)
    next((tmp_path / "out" / "_done").iterdir()).unlink()
    results, done = score_all(tmp_path / "a.csv", tmp_path / "out", release)
    assert (len(results), done) == (1, 0)
    assert len(read_scores(tmp_path / "out")) == len(frame)


def test_attempt_after_a_lost_one_goes_on_where_that_stopped(frame, release, tmp_path):
    from training.scoring.spark import _Task

    (tmp_path / "in").mkdir()
    for i in range(3):
        frame.iloc[3 * i : 3 * i + 3].to_csv(tmp_path / "in" / f"{i}.csv", index=False)
    data, folder = Storage.at(str(tmp_path / "in")), ScoreFolder(Storage.at(str(tmp_path / "out")), "1 abc")
    plan = plan_partitions(data, 1 << 20)
    scorer = ReleaseScorer(release, threads=1)
    job = ScoreJob(data, folder, True, LimitSettings())
    score_partition(scorer, plan.partitions[0], job)
    (tmp_path / "in" / "0.csv").unlink()  # so that it cannot be scored again
    task = _Task(job, done=None)
    results = [task._score(scorer, part, is_retry=True) for part in plan.partitions]
    assert [(result.rows, result.problem) for result in results] == [(3, None)] * 3


def test_task_that_ends_while_it_writes_leaves_no_scores(frame, release, tmp_path, monkeypatch):
    from training.scoring import partition_task

    frame.to_csv(tmp_path / "a.csv", index=False)
    seen = []

    def break_off(*arguments):
        seen.append(arguments)
        raise MemoryError

    monkeypatch.setattr(partition_task, "to_batch", break_off)
    with pytest.raises(MemoryError):
        score_all(tmp_path / "a.csv", tmp_path / "out", release)
    assert seen
    assert not [path for path in (tmp_path / "out").rglob("*.parquet") if "_tmp" not in str(path)]
    monkeypatch.undo()
    score_all(tmp_path / "a.csv", tmp_path / "out", release)
    assert len(read_scores(tmp_path / "out")) == len(frame)
    assert not (tmp_path / "out" / "_tmp").exists()


def test_folder_of_another_release_or_of_something_else_is_refused(frame, release, tmp_path):
    frame.head(5).to_csv(tmp_path / "a.csv", index=False)
    score_all(tmp_path / "a.csv", tmp_path / "out", release)
    (tmp_path / "out" / "_release.json").write_text(json.dumps({"release": "2 def"}))
    with pytest.raises(UsageError, match="another release"):
        score_all(tmp_path / "a.csv", tmp_path / "out", release)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="is not empty"):
        score_all(tmp_path / "a.csv", tmp_path / "other", release)
