import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.training_fixtures import THIRD_PARTY_WARNINGS
from training.errors import BadFileError, UsageError
from training.registry.releases import Registry
from training.scoring import scorer as score
from training.scoring.scorer import ReleaseScorer, raised_texts, score_file

pytestmark = THIRD_PARTY_WARNINGS
COLUMNS = ["transaction_id", "neural_net_score", "xgboost_score", "fraud_probability", "decision"]
COLUMNS += ["is_fraud", "raised_by"]


@pytest.fixture(scope="module")
def scorer(published, tmp_path_factory):
    registry = Registry(f"sqlite:///{published}/mlflow.db")
    return ReleaseScorer(registry.fetch(registry.release("1"), tmp_path_factory.mktemp("scorer")), threads=1)


@pytest.fixture
def source(tmp_path, few_transactions):
    path = tmp_path / "transactions.parquet"
    few_transactions.to_frame().to_parquet(path, index=False)
    return path


def test_scores_what_training_scored(scorer, small_training):
    features = small_training.test.features
    scored = scorer.score(features)
    network, trees = small_training.fitted.scores(features)
    assert np.abs(scored.neural_net - network).max() <= 1e-6
    assert np.abs(scored.xgboost - trees).max() <= 1e-6
    assert scored.probability == pytest.approx(small_training.outputs["pair"].score, abs=1e-5)
    assert (scored.decided.is_fraud == small_training.outputs["pair"].alarm).all()
    assert ((scored.decision != "approve") == small_training.outputs["pair"].handled).all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_writes_row_for_row(scorer, source, tmp_path, few_transactions, suffix, monkeypatch):
    monkeypatch.setattr(score, "CHUNK_ROWS", 700)
    output = tmp_path / f"scores{suffix}"
    told = []
    assert score_file(scorer, source, output, told.append) == len(few_transactions) == sum(told)
    assert len(told) > 3
    frame = pd.read_csv(output) if suffix == ".csv" else pd.read_parquet(output)
    assert frame.columns.tolist() == COLUMNS
    assert frame["transaction_id"].astype(int).tolist() == list(range(1, len(frame) + 1))
    whole = scorer.score(few_transactions.features.astype(np.float32))
    assert frame["neural_net_score"].to_numpy() == pytest.approx(whole.neural_net, abs=1e-6)
    assert frame["fraud_probability"].to_numpy() == pytest.approx(whole.probability, abs=1e-6)
    assert (frame["decision"] == whole.decision).all()
    assert (frame["is_fraud"] == whole.decided.is_fraud).all()
    raised = frame["raised_by"].fillna("")
    assert raised.tolist() == raised_texts(whole.decided).tolist()
    assert ((raised == "") == (frame["decision"] == "approve")).all()
    assert raised.str.contains("neural_net;xgboost").equals(frame["decision"] == "decline")


def test_pieces_on_several_threads_come_back_in_order(
    published, scorer, few_transactions, tmp_path, monkeypatch
):
    registry = Registry(f"sqlite:///{published}/mlflow.db")
    features = few_transactions.features[:1000].astype(np.float32)
    one_by_one = [scorer.score(features[i : i + 1]) for i in range(0, 1000, 50)]
    monkeypatch.setattr(score, "PIECE_ROWS", 7)
    both = ReleaseScorer(registry.fetch(registry.release("1"), tmp_path), threads=2).score(features)
    for name in ("neural_net", "xgboost", "probability"):
        expected = np.concatenate([getattr(one, name) for one in one_by_one])
        assert getattr(both, name)[::50] == pytest.approx(expected, abs=1e-6)
    assert len(both.decision) == 1000


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_scores_do_not_depend_on_the_rows_beside(scorer, few_transactions, rows):
    features = few_transactions.features.astype(np.float32)
    together = scorer.score(features)
    apart = [scorer.score(features[i : i + rows]) for i in range(0, len(features), rows)]
    for name in ("neural_net", "xgboost", "probability"):
        np.testing.assert_array_equal(
            np.concatenate([getattr(part, name) for part in apart]), getattr(together, name)
        )


def test_needs_no_label_and_numbers_rows_that_have_no_id(scorer, few_transactions, tmp_path):
    path = tmp_path / "plain.csv"
    frame = few_transactions.to_frame(np.arange(10)).drop(
        columns=["Class", "transaction_id", "sample_weight"]
    )
    frame.to_csv(path, index=False)
    score_file(scorer, path, tmp_path / "scores.csv", lambda _: None)
    assert pd.read_csv(tmp_path / "scores.csv")["transaction_id"].tolist() == list(range(1, 11))


def test_bad_row_leaves_no_output(scorer, few_transactions, tmp_path):
    path = tmp_path / "bad.csv"
    frame = few_transactions.to_frame(np.arange(10))
    frame.loc[7, "V3"] = np.inf
    frame.to_csv(path, index=False)
    output = tmp_path / "scores.csv"
    output.write_text("older scores")
    with pytest.raises(BadFileError, match=r"column V3, row 8"):
        score_file(scorer, path, output, lambda _: None)
    assert output.read_text() == "older scores"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bad.csv", "scores.csv"]


@pytest.mark.parametrize("name", ["scores.txt", "no/folder/scores.csv"])
def test_output_path_is_checked_first(scorer, source, tmp_path, name):
    with pytest.raises(UsageError):
        score_file(scorer, source, tmp_path / name, lambda _: None)


def test_release_is_one_mlflow_model_that_needs_nothing_of_this_package(
    published, tmp_path, few_transactions, scorer
):
    """Load the pyfunc as any MLflow tool would, in a process that cannot import ``training``."""
    few_transactions.to_frame(np.arange(50)).to_parquet(tmp_path / "rows.parquet", index=False)
    script = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
frame = pandas.read_parquet("rows.parquet")
model = mlflow.pyfunc.load_model("models:/fraud-detector/1")
model.predict(frame).to_parquet("answer.parquet")
frame.index = [f"row {i}" for i in range(len(frame))]
frame["Time"], frame["Amount"] = frame["Time"].astype("int64"), frame["Amount"].astype("int32")
frame.loc["row 1", "V1"], frame.loc["row 2", "V2"], frame.loc["row 3", "V3"] = None, float("inf"), 1e300
other = model.predict(frame)
assert other.index.tolist() == frame.index.tolist()
assert other["decision"].iloc[1:4].tolist() == ["refused"] * 3
assert other.iloc[1:4][["neural_net_score", "xgboost_score", "fraud_probability"]].isna().all(axis=None)
assert not other.drop(index=["row 1", "row 2", "row 3"])["decision"].eq("refused").any()
assert not any(name.split(".")[0] == "training" for name in sys.modules), "training was imported"
"""
    command = [sys.executable, "-I", "-c", script, f"sqlite:///{published}/mlflow.db"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = pd.read_parquet(tmp_path / "answer.parquet")
    scored = scorer.score(few_transactions.features[:50].astype(np.float32))
    assert answer["neural_net_score"].to_numpy() == pytest.approx(scored.neural_net, abs=1e-6)
    assert answer["fraud_probability"].to_numpy() == pytest.approx(scored.probability, abs=1e-9)
    assert answer["decision"].tolist() == scored.decision.tolist()
    assert answer["is_fraud"].tolist() == scored.decided.is_fraud.tolist()
    assert answer["raised_by"].tolist() == raised_texts(scored.decided).tolist()
