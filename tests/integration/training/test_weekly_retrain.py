"""The weekly job: a window that slides over the stream, exported anew each time, against the champion."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.integration.training.test_commands import use_small_settings
from tests.training_fixtures import SMALL, THIRD_PARTY_WARNINGS, use_store
from training.commands.train import train_command
from training.data.row_keys import TransactionKeys
from training.data.simulate import simulate
from training.data.split import split_temporal
from training.data.transactions import load_transactions
from training.errors import DataError, GateRefusedError
from training.registry.promotion_check import FITTED_KEYS, challenger_of_registry
from training.registry.releases import Registry
from training.settings.load import load_settings

pytestmark = [*THIRD_PARTY_WARNINGS, pytest.mark.timeout(600)]
# Three weeks of a stream, each window half of what there is by then.
WINDOWS = ((0.0, 0.6), (0.2, 0.8), (0.4, 1.0))
# How much better or worse such small models do on a dozen frauds is not this test's matter.
GATE = {**SMALL["gate"], "max_loss_average_precision": 0.5, "max_loss_cost_saved": 1.0, "min_frauds": 5}


@pytest.fixture
def registry(empty_database, tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    use_small_settings(tmp_path, monkeypatch, gate=GATE, protocol="temporal")
    use_store(tmp_path / "bentoml", monkeypatch)
    # Half of the time that recording takes.
    monkeypatch.setattr("training.registry.record._draw", lambda *_: None)
    return Registry(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture(scope="module")
def stream():
    """Return the whole stream in order of time: 4,000 rows, of which 240 are frauds."""
    return simulate(4000, 5, prevalence=0.06).sort_values("Time", kind="stable")


def export(stream: pd.DataFrame, week: int, folder):
    """Write a week's window as its export does: counted from its first row, with other digits and types."""
    start, end = (int(share * len(stream)) for share in WINDOWS[week])
    window = stream.iloc[start:end].copy()
    window["Time"] -= window["Time"].iloc[0]
    if week == 1:
        path = folder / "week.csv"
        window.to_csv(path, index=False, float_format="%.9g")
    else:
        path = folder / f"week-{week}.parquet"
        window.astype({"Class": np.int8} | {f"V{i}": np.float32 for i in range(1, 29)}).to_parquet(path)
    return path


def train(path, **overrides):
    """Run the command; return what it prints and what the gate refused."""
    out = Console(file=io.StringIO(), width=400)
    try:
        train_command({"data": path, **overrides}, out)
    except GateRefusedError as error:
        return out.file.getvalue(), str(error)
    return out.file.getvalue(), None


def fitted_keys(registry, release, folder):
    into = folder / f"fetched-{release.number}"
    into.mkdir()
    return TransactionKeys.load(registry.fetch(release, into) / FITTED_KEYS)


def new_frauds(stream, week):
    """Return how many frauds of the week's test part lie after the week before."""
    start, end = (int(share * len(stream)) for share in WINDOWS[week])
    before = int(WINDOWS[week - 1][1] * len(stream))
    window = stream.iloc[start:end]
    tested = window.iloc[int(0.8 * len(window)) :]
    return int(tested["Class"].sum()), int(stream.iloc[before:end]["Class"].sum())


def test_each_week_is_compared_on_what_the_champion_has_not_seen(registry, stream, tmp_path):
    """Seen: Time counted anew made all rows look new, and the champion .97 good on what it had fitted."""
    for week in range(len(WINDOWS)):
        path = export(stream, week, tmp_path)
        champion = registry.champion()
        text, refused = train(path)
        assert refused is None, refused
        assert registry.require_champion().number == str(week + 1)
        if champion is None:
            continue
        data = load_transactions(path)
        test = split_temporal(data, validation_fraction=0.2, test_fraction=0.2).test
        known = fitted_keys(registry, champion, tmp_path)
        unseen = ~TransactionKeys.of(data, test).found_in(known)
        frauds = int(data.required_label[test][unseen].sum())
        assert f"against the champion on {frauds} frauds" in text
        # The champion was not fitted on its own test part either, so all of this one is new to it.
        assert frauds == int(data.required_label[test].sum())
        overlap = np.setdiff1d(np.arange(len(data)), test)
        assert TransactionKeys.of(data, overlap).found_in(known).sum() > 0.4 * len(overlap)


def test_newest_rows_are_fitted_on_and_then_not_compared_on(registry, stream, tmp_path):
    """A champion that was fitted on its test part too is compared on what came after it alone."""
    first = export(stream, 0, tmp_path)
    _, refused = train(first, refit_newest=True)
    assert refused is None, refused
    data = load_transactions(first)
    known = fitted_keys(registry, registry.require_champion(), tmp_path)
    assert TransactionKeys.of(data, np.arange(len(data))).found_in(known).all()

    text, refused = train(export(stream, 1, tmp_path), refit_newest=True)
    assert refused is None, refused
    tested, newer = new_frauds(stream, 1)
    found = int(text.partition("against the champion on ")[2].split()[0])
    assert min(tested, newer) - 1 <= found <= min(tested, newer) + 1

    settings = load_settings({})
    with pytest.raises(DataError, match="fitted on its test part too"):
        challenger_of_registry(registry, registry.release("1"), settings, None)
    # On the same rows nothing is new to it.
    _, refused = train(export(stream, 1, tmp_path), seed=8)
    assert "only 0 test frauds are new to both" in refused
