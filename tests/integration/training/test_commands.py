"""The commands in one process, on small models: what they print, leave behind and refuse."""

import io
import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from tests.training_fixtures import SMALL, THIRD_PARTY_WARNINGS, copy_release, use_store
from training import __main__ as command_line
from training.commands import promotion
from training.commands.releases import releases_command
from training.errors import GateRefusedError
from training.model_store.bento_store import active_pair
from training.model_store.store_record import read_record
from training.registry.releases import NETWORK, Registry
from training.settings.load import DEFAULT_CONFIG

pytestmark = THIRD_PARTY_WARNINGS


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs a command and gives exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["training", *(str(item) for item in arguments)])
        monkeypatch.setattr(command_line, "out", command_line.Console(width=200, soft_wrap=True))
        # Both would stay for the tests that follow.
        monkeypatch.setattr(command_line, "install_stop_handlers", lambda: None)
        monkeypatch.setattr(command_line, "let_services_go_first", lambda: None)
        with pytest.raises(SystemExit) as left:
            command_line.main()
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return run


def use_small_settings(folder, monkeypatch, **changes):
    values = yaml.safe_load(DEFAULT_CONFIG.read_text())
    for name, value in {**SMALL, **changes}.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    values["tracking_uri"] = f"sqlite:///{folder}/mlflow.db"
    (folder / "training.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("TRAINING__CONFIG", str(folder / "training.yaml"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def home(released, tmp_path, monkeypatch):
    """Return a folder whose settings point to a registry with one release and to a store of its own."""
    use_small_settings(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def data(tmp_path, few_transactions):
    path = tmp_path / "transactions.parquet"
    few_transactions.to_frame().to_parquet(path, index=False)
    return path


def test_train_promotes_imports_and_does_not_repeat_itself(run, data, empty_database, tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    use_small_settings(tmp_path, monkeypatch)
    use_store(tmp_path / "bentoml", monkeypatch)
    held_out = tmp_path / "held_out.parquet"
    train = ("train", "--data", data, "--protocol", "temporal", "--held-out", held_out)

    code, text, error = run(*train)
    assert code == 0, error
    assert "there is no champion to compare with" in text
    assert "average precision" in text
    assert active_pair().release == "1"
    assert pd.read_parquet(held_out)["Time"].is_monotonic_increasing
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    assert registry.require_champion().number == "1"

    held_out.unlink()
    code, text, _ = run(*train, "--if-changed")
    assert code == 0
    assert "release 1 was trained from the same data and settings" in text
    assert [release.number for release in registry.releases()] == ["1"]
    assert held_out.is_file()

    code, _, error = run(*train, "--if-changed", "--seed", "8")
    assert [release.number for release in registry.releases()] == ["1", "2"]
    if code == 0:
        assert registry.require_champion().number == "2"
    else:  # so few frauds may tell the two seeds apart: the gate's answer is not this test's matter
        assert code == 3, error
        assert "release 2 stays challenger: refused: " in error
        assert registry.require_champion().number == "1"


def test_first_release_is_not_trained_where_one_is_promoted(run, home, data):
    run("promote", "1", "--force")
    code, text, _ = run("train", "--data", data, "--seed", "8", "--if-none")
    assert (code, active_pair().release) == (0, "1")
    assert "release 1 is champion: nothing to train" in text
    assert len(Registry(f"sqlite:///{home}/mlflow.db").releases()) == 1


def test_refused_challenger_stays_one_and_force_is_recorded(run, home, data, monkeypatch):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    registry.promote(registry.release("1"))
    use_small_settings(home, monkeypatch, gate={**SMALL["gate"], "latency_budget_ms": 1e-6})
    code, _, error = run("train", "--data", data)
    assert code == 3
    assert "release 2 stays challenger: " in error
    assert "promote 2 --force" in error
    assert registry.require_champion().number == "1"
    assert registry.release("2").aliases == ("challenger",)

    code, _, error = run("promote", "2")
    assert code == 3
    assert "release 2 stays challenger: refused: " in error
    assert run("promote", "2", "--force")[0] == 0
    assert registry.require_champion().number == "2"
    assert registry.release("2").tags["forced"] == "true"
    assert "forced" in run("releases")[1]


def test_promote_rollback_import_and_releases(run, home):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    copy_release(registry)
    for release, against in zip(registry.releases(), ("none", "1"), strict=True):
        registry.set_tag(release, "gate", "passed: for this test")
        registry.set_tag(release, "gate_against", against)
    code, _, error = run("import")
    assert code == 1
    assert "no release in" in error
    assert run("promote", "1")[0] == 0
    assert run("promote", "2")[0] == 0
    assert active_pair().release == "2"
    code, text, _ = run("rollback")
    assert code == 0
    assert "release 1 is champion again" in text
    assert (active_pair().version, "is in the store already" in text) == ("1", True)
    assert "is in the store already" in run("import")[1]
    table = run("releases")[1]
    assert "champion" in table
    assert "simulated for tests (random)" in table
    assert run("promote", "7")[2].startswith("error: there is no release 7")


def test_releases_are_readable_in_80_columns(home):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    release = registry.release("1")
    registry.set_tag(release, "gate", "refused: average precision may be below that of logistic regression")
    registry.promote(release)
    written = io.StringIO()
    releases_command(command_line.Console(width=80, file=written))
    lines = written.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    row = next(line for line in lines if line.split()[:1] == ["1"])
    assert {"champion", "refused"} <= set(row.split())


def test_promotions_at_the_same_time_leave_the_champion_active(run, home, monkeypatch):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    copy_release(registry)
    importing = promotion.import_release

    def overtaken(asked, release, **options):
        monkeypatch.setattr(promotion, "import_release", importing)
        registry.promote(registry.release("2"))
        importing(asked, registry.release("2"), **options)
        return importing(asked, release, **options)

    monkeypatch.setattr(promotion, "import_release", overtaken)
    assert run("promote", "1", "--force")[0] == 0
    assert registry.require_champion().number == "2"
    assert active_pair().release == "2"


def test_import_challenger_leaves_the_active_release_active(run, home):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    copy_release(registry)
    run("promote", "1", "--force")
    code, _, error = run("import", "--challenger")
    assert code == 1
    assert "has the alias challenger: register one with" in error
    registry.set_challenger(registry.release("2"))
    assert run("import", "--challenger")[0] == 0
    record = read_record(home / "bentoml" / "models")
    assert (record.active.release, record.challenger.release) == ("1", "2")


def test_release_that_was_never_judged_is_judged_when_it_is_promoted(run, home, data, monkeypatch):
    """As after a training that was cut between its registration and the gate, and again when it is stale."""
    from training.registry import promotion_check as module

    registry = Registry(f"sqlite:///{home}/mlflow.db")
    registry.promote(registry.release("1"))
    with monkeypatch.context() as cut:
        cut.setattr(module, "run_gate", lambda *_: (_ for _ in ()).throw(GateRefusedError("cut")))
        assert run("train", "--data", data, "--genuine-weight", "1")[0] == 3
    assert "gate" not in registry.release("2").tags
    code, text, error = run("promote", "2")
    verdict = registry.release("2").tags["gate"]
    assert "against the champion on" in verdict
    assert verdict in text.replace("\n", "")
    assert (code == 0) == verdict.startswith("passed")
    assert code == 0 or verdict in error
    assert registry.release("2").tags["gate_against"] == "1"

    copy_release(registry)
    registry.promote(registry.release("3"))
    registry.promote(registry.release("1"))
    registry.set_tag(registry.release("2"), "gate_against", "3")
    data.unlink()
    code, _, error = run("promote", "2")
    assert code == 3
    assert "was judged against release 3, and release 1 is champion by now" in error
    assert "cannot be judged now" in error
    assert "there is no such file" in error
    assert registry.require_champion().number == "1"
    assert run("promote", "2", "--force")[0] == 0
    assert registry.release("2").tags["forced"] == "true"


def test_labels_that_were_permuted_make_no_champion(
    run, data, few_transactions, empty_database, tmp_path, monkeypatch
):
    """Seen: AP .002, recall 0, "there is no champion yet", promoted and imported."""
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    use_small_settings(tmp_path, monkeypatch)
    use_store(tmp_path / "bentoml", monkeypatch)
    frame = few_transactions.to_frame()
    frame["Class"] = frame["Class"].sample(frac=1, random_state=1).to_numpy()
    frame["sample_weight"] = frame["Class"].map({0: 20.0, 1: 1.0})
    frame.to_parquet(data, index=False)
    code, _, error = run("train", "--data", data)
    assert code == 3
    assert "too little skill" in error
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    assert registry.champion() is None
    assert registry.release("1").aliases == ("challenger",)
    assert active_pair() is None


def test_a_challenger_is_registered_and_promoted_by_its_alias(run, home, data, monkeypatch):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    assert run("train", "--data", data, "--challenge")[0] == 0
    assert registry.champion() is None
    assert registry.release("2").aliases == ("challenger",)
    code, _, error = run("promote", "challenger")
    assert code == 0, error
    assert registry.require_champion().number == "2"
    assert active_pair().release == "2"


def test_the_live_comparison_is_asked_for_the_challenger(run, home, data, monkeypatch):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    registry.promote(registry.release("1"))
    copy_release(registry)
    registry.set_challenger(registry.release("2"))
    registry.set_tag(registry.release("2"), "gate", "passed: for this test")
    registry.set_tag(registry.release("2"), "gate_against", "1")
    code, _, error = run("promote", "challenger", "--live", home / "nothing.json")
    assert code == 3
    assert "nothing.json (gate.live) cannot be read" in error
    assert registry.require_champion().number == "1"
    figure = {"value": 0.0, "low": -0.1, "high": 0.1, "n": 40}
    window = {
        "compared": 900,
        "frauds": 40,
        "genuine": 9,
        "differences": {"recall": figure, "cost_saved": figure},
    }
    shadow = {"champion": "1", "challenger": "2", "windows": {"since_release": window}}
    (home / "quality.json").write_text(json.dumps({"state": "ok", "shadow": shadow}))
    monkeypatch.setenv("TRAINING__GATE__LIVE", str(home / "quality.json"))
    code, text, _ = run("promote", "challenger")
    assert code == 0
    assert "live comparison passed: live, on 900 transactions with 40 labelled frauds" in text
    assert registry.require_champion().number == "2"


def test_a_champion_that_changes_meanwhile_is_judged_against(run, home, data, monkeypatch):
    """Two trainings at once: the second alias move is judged against what the first one promoted."""
    from training.registry import promotion_check as module

    registry = Registry(f"sqlite:///{home}/mlflow.db")
    copy_release(registry)
    asked = []
    run_gate = module.run_gate

    def other_promotes(registry, challenger, champion):
        asked.append(champion and champion.number)
        result = run_gate(registry, challenger, champion)
        if len(asked) == 1:
            registry.promote(registry.release("1"))
        return result

    monkeypatch.setattr(module, "run_gate", other_promotes)
    run("train", "--data", data)
    assert asked == [None, "1"]
    assert registry.release("3").tags["gate_against"] == "1"


def test_recalibration_is_a_release_with_the_same_models(run, home, data, few_transactions):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    first = registry.release("1")
    registry.promote(first)
    newer = few_transactions.to_frame().drop(columns="transaction_id")
    newer[[f"V{i}" for i in range(1, 29)]] += 0.01  # no row the models know
    newer.to_parquet(data, index=False)
    code, _, error = run("recalibrate", "--data", data, "--force")
    assert code == 0, error
    champion = registry.require_champion()
    assert (champion.number, champion.tags["recalibrated_from"]) == ("2", "1")
    recorded = registry.client.get_run(champion.run_id)
    assert recorded.inputs.dataset_inputs[0].dataset.digest == champion.fingerprint[:16]
    assert recorded.data.tags["mlflow.source.name"] == "python -m training recalibrate"
    assert recorded.info.status == "FINISHED"
    assert "mlflow.source.name" not in champion.tags  # it says where a run comes from, not a version
    assert f"/runs/{first.run_id})" in recorded.data.tags["mlflow.note.content"]
    assert champion.network_version == first.network_version
    documents = []
    for release in (first, champion):
        (home / release.number).mkdir()
        files = registry.fetch(release, home / release.number)
        documents.append(json.loads((files / "release.json").read_text()))
    assert documents[0]["calibration"] != documents[1]["calibration"]
    assert documents[1]["data"]["rows"] == len(newer)
    assert active_pair().release == "2"
    # Of rows the models were fitted on nothing is left to learn from.
    few_transactions.to_frame().drop(columns="transaction_id").to_parquet(data, index=False)
    code, _, error = run("recalibrate", "--data", data)
    assert code in (1, 3)
    assert "frauds" in error
    assert registry.require_champion().number == "2"


def test_data_that_changed_since_cannot_judge(run, home, data, few_transactions, monkeypatch):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    registry.promote(registry.release("1"))
    assert run("train", "--data", data, "--force")[0] == 0
    registry.promote(registry.release("1"))
    registry.set_tag(registry.release("2"), "gate", "not asked")
    frame = few_transactions.to_frame()
    frame.assign(Amount=frame["Amount"] + 1).to_parquet(data, index=False)
    code, _, error = run("promote", "2")
    assert code == 3
    assert "does not hold the transactions of release 2 any more" in error


def test_score_writes_the_champions_scores(run, home, data):
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    assert run("score", "--data", data, "--output", home / "scores.csv")[0] == 1  # no champion
    registry.promote(registry.release("1"))
    code, text, _ = run("score", "--data", data, "--output", home / "scores.csv")
    assert code == 0
    assert "transactions scored by release 1" in text
    assert len(pd.read_csv(home / "scores.csv")) == len(pd.read_parquet(data))
    copy_release(registry)
    code, text, _ = run("score", "--data", data, "--output", home / "two.csv", "--release", "2")
    assert (code, "transactions scored by release 2" in text) == (0, True)
    assert (
        "there is no release 9"
        in run("score", "--data", data, "--output", home / "9.csv", "--release", "9")[2]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--data", "nothing.csv"), "nothing.csv: there is no such file"),
        (("train", "--protocol", "weekly"), "protocol"),
        (("train", "--seed", "-1"), "seed"),
        (("train", "--epochs", "0"), "network.epochs"),
        (("train", "--epochs", "many"), "'--epochs'"),
        (("train", "--colour"), "colour"),
        (("score", "--data", "x.csv"), "--output"),
        (("score", "--data", "x.csv", "--output", "y.csv"), "x.csv: there is no such file"),
        (("score", "--data", "x.parquet", "--output", "y.csv"), "x.parquet: there is no such file"),
        (("score", "--data", "folder.csv", "--output", "y.csv"), "folder.csv: is not a file"),
        (("simulate", "--rows", "10", "--output", "rows.txt"), "rows.txt"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_sentence(run, home, monkeypatch, arguments, words):
    monkeypatch.chdir(home)
    (home / "folder.csv").mkdir()
    code, _, error = run(*arguments)
    assert code == 2
    assert words in error
    assert "Traceback" not in error


def test_too_few_frauds_to_split_is_a_clear_error(run, home, few_transactions):
    import numpy as np

    label = few_transactions.required_label
    rows = np.concatenate([np.flatnonzero(label == 0), np.flatnonzero(label == 1)[:2]])
    few_transactions.to_frame(rows).to_parquet(home / "few.parquet", index=False)
    code, _, error = run("train", "--data", home / "few.parquet")
    assert code == 1
    assert "2 frauds" in error or "frauds of 2" in error


def test_registry_that_is_down_is_not_taken_for_an_empty_one(run, home, data, free_port, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, text, _ = run("train", "--data", data, "--if-none")
    assert (code, "Record in MLflow" in text) == (1, False)


def test_registry_that_is_down_is_one_sentence(run, home, data, free_port, monkeypatch):
    monkeypatch.setenv("TRAINING__TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    code, _, error = run("train", "--data", data)
    assert code == 1
    assert "cannot be reached" in error


def test_store_that_cannot_be_written_is_one_sentence_before_the_fit(run, home, data, monkeypatch):
    before = len(_runs(Registry(f"sqlite:///{home}/mlflow.db")))
    monkeypatch.setenv("BENTOML_HOME", "/proc/store")
    code, text, error = run("train", "--data", data, "--seed", "9")
    assert (code, "Fit the network" in text) == (1, False)
    assert "model store /proc/store/models cannot be written" in error
    assert len(_runs(Registry(f"sqlite:///{home}/mlflow.db"))) == before


def test_help_and_simulate_load_neither_torch_nor_mlflow(tmp_path):
    script = (
        "import sys; from training.__main__ import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'xgboost', 'bentoml', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for arguments in (["--help"], ["simulate", "--rows", "1000", "--output", str(tmp_path / "rows.csv")]):
        subprocess.run(
            [sys.executable, "-c", script, *arguments], check=True, capture_output=True, env=os.environ
        )


def test_killed_training_leaves_registry_and_store_usable(run, home, data):
    """SIGTERM in the middle: the runs are closed, the champion stays, the next command works."""
    import signal
    import time

    registry = Registry(f"sqlite:///{home}/mlflow.db")
    registry.promote(registry.release("1"))
    before = len(_runs(registry))
    command = [sys.executable, "-m", "training", "train", "--data", str(data)]
    errors = home / "killed.log"
    with (
        errors.open("w") as written,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=written) as process,
    ):
        deadline = time.monotonic() + 90
        while len(_runs(registry)) == before:  # until something is being recorded
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, 128 + signal.SIGTERM), errors.read_text()
    assert registry.require_champion().number in ("1", "2")
    assert not [run for run in _runs(registry) if run.info.status == "RUNNING"]
    assert run("import")[0] == 0
    assert active_pair().release == registry.require_champion().number


def _runs(registry):
    experiment = registry.client.get_experiment_by_name(NETWORK)
    return registry.client.search_runs([experiment.experiment_id])
