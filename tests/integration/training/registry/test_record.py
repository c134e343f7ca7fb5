import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy

from tests.training_fixtures import THIRD_PARTY_WARNINGS, record, silent, small_settings
from training.errors import RegistryError
from training.models.training import train
from training.registry.recipe import recipe_key
from training.registry.releases import NETWORK, RELEASE, TREES, Registry
from training.registry.runs import Run
from training.registry.training_runs import open_runs
from training.settings.load import load_settings
from training.termination import install_stop_handlers

pytestmark = THIRD_PARTY_WARNINGS
PLOTS = {
    RELEASE: {"precision_recall", "roc", "calibration", "cost", "scores", "decisions"},
    NETWORK: {"training", "importance"},
    TREES: {"training", "importance"},
}


@pytest.fixture(scope="module")
def runs(published):
    client = Registry(f"sqlite:///{published}/mlflow.db").client
    found = {}
    for name in PLOTS:
        experiment = client.get_experiment_by_name(name)
        found[name] = client.search_runs([experiment.experiment_id])[0]
    return found


def open_experiment(registry):
    """Open a run, and give the experiment it is in."""
    run = Run(registry, RELEASE, "a run", {})
    run.end()
    return registry.client.get_run(run.id).info.experiment_id


def artifacts(run):
    return Path(run.info.artifact_uri.removeprefix("file://"))


def test_children_belong_to_the_run_of_the_release(runs):
    for name in (NETWORK, TREES):
        assert runs[name].data.tags["mlflow.parentRunId"] == runs[RELEASE].info.run_id
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert run.data.tags["release"] == "1"
        assert run.info.run_name.startswith("release 1")


def test_models_are_compared_on_the_same_names(runs, small_training):
    network, trees = (set(runs[name].data.metrics) for name in (NETWORK, TREES))
    shared = network & trees
    for metric in (
        "test/auc",
        "test/average_precision",
        "test/cost_saved",
        "curve/train_fitting_loss",
        "curve/train_learning_rate",
    ):
        assert metric in shared
    curves = {f"curve/validation_{name}" for name in ("auc", "average_precision", "loss")}
    assert curves <= shared
    sections = sorted(name for name in shared if "/" in name)
    assert sections[0].startswith("curve/")  # the UI opens with them
    assert {f"latency/ms_p{p}_rows_{n}" for p in (50, 99) for n in (1, 1000)} <= shared
    assert {f"curve/validation_{name}" for name in ("f1", "precision", "recall")} <= network
    figure = small_training.figures["pair"]["average_precision"]
    assert runs[RELEASE].data.metrics["test/average_precision"] == figure.value
    table = (artifacts(runs[RELEASE]) / "test_figures.csv").read_text()
    assert f"average_precision,{figure.value!r},{figure.low!r},{figure.high!r}" in table
    for run in runs.values():
        assert not [name for name in run.data.metrics if "low" in name or "high" in name]
        columns = sorted({name for name in run.data.metrics if "/" not in name} - {"threshold"})
        assert columns == ["average_precision", "cost_saved", "precision", "recall"]


def test_runs_are_linked_both_ways_and_experiments_described(runs, published):
    client = Registry(f"sqlite:///{published}/mlflow.db").client
    note = runs[RELEASE].data.tags["mlflow.note.content"]
    for name in (NETWORK, TREES):
        child = runs[name].info
        assert f"(#/experiments/{child.experiment_id}/runs/{child.run_id})" in note
        parent = runs[RELEASE].info
        link = f"(#/experiments/{parent.experiment_id}/runs/{parent.run_id})"
        assert link in runs[name].data.tags["mlflow.note.content"]
    for name in PLOTS:
        assert client.get_experiment_by_name(name).tags["mlflow.note.content"]


def test_a_saved_view_shows_first_what_releases_are_compared_by(runs, registry):
    """Its columns must exist on a release's run: the UI leaves others out."""
    earlier = registry.client.create_experiment(RELEASE)  # of a version that offered none
    assert open_experiment(registry) == earlier
    tags = registry.client.get_experiment(earlier).tags
    view = json.loads(tags["mlflow.sharedViewState.releases"])
    columns = json.loads(view["state"])["selectedColumns"]
    assert columns == [
        *(f"metrics.`{name}`" for name in ("average_precision", "recall", "precision", "cost_saved")),
        "tags.`gate`",
        "tags.`alias`",
    ]
    data = runs[RELEASE].data
    assert {f"metrics.`{name}`" for name in data.metrics} >= set(columns[:4])
    assert f"(#/experiments/{earlier}/runs?viewStateShareKey=releases)" in tags["mlflow.note.content"]


def test_curves_have_a_step_for_every_epoch(runs, published, small_training):
    client = Registry(f"sqlite:///{published}/mlflow.db").client
    curve = client.get_metric_history(runs[NETWORK].info.run_id, "curve/validation_auc")
    assert [point.step for point in curve] == list(range(len(small_training.fitted.network.history)))


def test_settings_data_and_environment_are_recorded(runs, small_training):
    parameters = runs[RELEASE].data.params
    assert parameters["network.hidden"] == str(small_settings().network.hidden)
    assert parameters["environment.torch"].startswith("2.13.0")
    for run in runs.values():
        dataset = run.inputs.dataset_inputs[0].dataset
        assert dataset.digest == small_training.data.fingerprint[:16]
        assert json.loads(dataset.profile)["test"]["frauds"] == int(small_training.test.truth.label.sum())


def test_plots_card_and_settings_are_artefacts(runs):
    for name, plots in PLOTS.items():
        files = {path.stem: path for path in (artifacts(runs[name]) / "plots").glob("*.png")}
        assert set(files) == plots
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in files.values())
    card = (artifacts(runs[RELEASE]) / "model_card.md").read_text()
    for words in ("simulated for tests", "average precision", "## Limits", "--seed 7", "| test | "):
        assert words in card
    assert runs[RELEASE].data.tags["mlflow.note.content"].endswith(card)
    settings = json.loads((artifacts(runs[RELEASE]) / "settings.json").read_text())
    assert settings["network"]["epochs"] == 6


def test_address_of_the_registry_is_not_recorded(runs):
    """It may hold a password, which everybody who may read runs would see."""
    assert "tracking_uri" not in runs[RELEASE].data.params
    assert not [name for name in runs[RELEASE].data.params if name.startswith("known_samples")]
    assert "tracking_uri" not in json.loads((artifacts(runs[RELEASE]) / "settings.json").read_text())


def test_settings_of_the_card_repeat_the_training(runs, monkeypatch):
    monkeypatch.setenv("TRAINING__CONFIG", str(artifacts(runs[RELEASE]) / "settings.json"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert recipe_key(load_settings()) == runs[RELEASE].data.tags["recipe"]


def test_versions_are_described_where_the_registry_lists_them(published, small_training):
    client = Registry(f"sqlite:///{published}/mlflow.db").client
    for name, model in ((RELEASE, "pair"), (NETWORK, "neural_net"), (TREES, "xgboost")):
        description = client.get_model_version(name, "1").description
        figures = small_training.figures[model]
        assert description.startswith(f"AP {figures['average_precision'].value:.3f} (")
        assert f", recall {figures['recall'].value:.3f} (" in description
        assert description.endswith(": test part of simulated for tests, random split")


def test_models_have_signature_and_example(published):
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{published}/mlflow.db")
    for name in (TREES, RELEASE):
        info = mlflow.models.get_model_info(f"models:/{name}/1")
        assert info.signature.inputs.input_names()[:2] == ["Time", "V1"]
        assert info.saved_input_example_info is not None
    info = mlflow.models.get_model_info(f"models:/{NETWORK}/1")
    assert info.signature.inputs.inputs[0].shape == (-1, 30)
    assert info.metadata["feature_names"][-1] == "Amount"


def test_no_row_of_the_data_is_stored(published, few_transactions):
    """Reference batch and examples are invented: a registry is no place for card data."""
    known = {tuple(row) for row in few_transactions.features.astype(np.float32).tolist()}
    stored = list((published / "mlruns").rglob("reference.json"))
    assert stored
    for path in stored:
        assert not known & {tuple(row) for row in json.loads(path.read_text())["features"]}
    examples = list((published / "mlruns").rglob("input_example.json"))
    # Other tests' releases may stand beside it: one example to a model.
    assert len(examples) == len({path.parent for path in examples}) >= 3


def test_failed_publication_ends_its_runs_and_makes_no_release(registry, small_training, monkeypatch):
    from training.registry import record as module

    monkeypatch.setattr(module, "_draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        record(registry, small_training)
    assert registry.releases() == []
    experiments = [registry.client.get_experiment_by_name(name).experiment_id for name in PLOTS]
    assert {run.info.status for run in registry.client.search_runs(experiments)} == {"KILLED"}
    monkeypatch.undo()
    assert record(registry, small_training).number == "1"


def test_a_run_is_open_while_it_fits_and_keeps_what_a_killed_fit_had(registry, few_transactions):
    settings = small_settings()

    def fit_until_killed(number, figures):
        if number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_runs(registry, few_transactions, settings, "train") as runs:
        reports = runs.reports()

        def report(number, figures):
            reports["neural_net"](number, figures)
            status = registry.client.get_run(runs["neural_net"].id).info.status
            assert status == "RUNNING"
            fit_until_killed(number, figures)

        train(few_transactions, settings, silent(), {**reports, "neural_net": report})
    experiments = [registry.client.get_experiment_by_name(name).experiment_id for name in (NETWORK, RELEASE)]
    found = registry.client.search_runs(experiments)
    assert {run.info.status for run in found} == {"KILLED"}
    network = next(run for run in found if run.info.experiment_id == experiments[0])
    curve = registry.client.get_metric_history(network.info.run_id, "curve/validation_auc")
    assert [point.step for point in curve] == [0, 1, 2]
    assert len({point.timestamp for point in curve}) > 1


@pytest.mark.parametrize("statement", ["INSERT INTO runs", "INSERT INTO metrics", "UPDATE runs"])
def test_sigterm_in_the_middle_of_a_database_transaction_leaves_no_run_open(
    registry, few_transactions, statement
):
    """SQLAlchemy keeps the transaction of an interrupted call open: nothing could be written after it."""
    registry.client.create_experiment(RELEASE)  # made before: the statement below is the run's own
    sent = []

    def stop(_connection, _cursor, text, *_):
        if text.startswith(statement) and not sent:
            sent.append(text)
            os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    install_stop_handlers()
    sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", stop)
    try:
        with (
            pytest.raises(SystemExit) as ended,
            open_runs(registry, few_transactions, small_settings(), "train") as runs,
        ):
            train(few_transactions, small_settings(), silent(), runs.reports())
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "after_cursor_execute", stop)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 128 + signal.SIGTERM
    experiments = [found.experiment_id for found in registry.client.search_experiments()]
    statuses = {run.info.status for run in registry.client.search_runs(experiments)}
    assert statuses == ({"FINISHED"} if statement == "UPDATE runs" else {"KILLED"})


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("/sys/mlflow", r"artefact location /sys/mlflow.* cannot be written from here"),
        ("s3://bucket/mlflow", "needs the Python package boto3.*pip install boto3"),
    ],
)
def test_artefacts_that_cannot_be_written_are_named_before_the_fit(
    registry, few_transactions, location, words
):
    registry.client.create_experiment(RELEASE, artifact_location=location)
    with (
        pytest.raises(RegistryError, match=words),
        open_runs(registry, few_transactions, small_settings(), "train"),
    ):
        pytest.fail("the fit would begin")


def test_database_driver_that_is_missing_is_named():
    with pytest.raises(RegistryError, match=r"needs the Python package pymysql.*pip install pymysql"):
        Registry("mysql+pymysql://mlflow:s3cret@127.0.0.1:1/mlflow")
