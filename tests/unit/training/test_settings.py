from operator import attrgetter
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from training.__main__ import app
from training.errors import SettingsError, UsageError
from training.settings.load import DEFAULT_CONFIG, Settings, load_settings
from training.settings.sections import Section


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "TRAINING__SEED", "TRAINING__CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_flag_beats_variable_beats_file(monkeypatch):
    assert load_settings().network.epochs == yaml.safe_load(DEFAULT_CONFIG.read_text())["network"]["epochs"]
    monkeypatch.setenv("TRAINING__NETWORK__EPOCHS", "5")
    assert load_settings().network.epochs == 5
    settings = load_settings({"network": {"epochs": 3}})
    assert settings.network.epochs == 3
    assert settings.network.hidden == (512, 256, 128, 64)


def test_mlflow_variable_keeps_its_meaning_below_our_own(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert load_settings().tracking_uri == "http://tracking:5000"
    monkeypatch.setenv("TRAINING__TRACKING_URI", "sqlite:///other.db")
    assert load_settings().tracking_uri == "sqlite:///other.db"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TRAINING__SEEED", "1", "TRAINING__SEEED is not a setting"),
        ("TRAINING__NETWORK__EPOCH", "1", "TRAINING__NETWORK__EPOCH is not a setting"),
        ("TRAINING__SEED__X", "1", "TRAINING__SEED__X is not a setting"),
        (
            "TRAINING__NETWORK__DROPOUT",
            "1.5",
            r"network\.dropout \(variable TRAINING__NETWORK__DROPOUT\): Input should be less than 1",
        ),
        ("TRAINING__PROTOCOL", "weekly", "protocol"),
        ("TRAINING__SPLIT__TEST_SHARE", "0", r"split\.test_share"),
        ("TRAINING__DECISION__REVIEW_COST", "free", r"decision\.review_cost"),
    ],
)
def test_wrong_settings_are_refused_by_name(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["network: [", "- 1", "nothing: 1"])
def test_broken_file_is_refused(monkeypatch, tmp_path, text):
    path = tmp_path / "training.yaml"
    path.write_text(text)
    monkeypatch.setenv("TRAINING__CONFIG", str(path))
    with pytest.raises(SettingsError):
        load_settings()


def test_error_names_the_source_and_never_the_value(monkeypatch, tmp_path):
    path = tmp_path / "training.yaml"
    path.write_text("seed: secret\nnothing: 1\n")
    monkeypatch.setenv("TRAINING__CONFIG", str(path))
    with pytest.raises(SettingsError) as caught:
        load_settings({"network": {"epochs": 0}})
    text = str(caught.value)
    assert f"seed (file {path}): " in text
    assert f"nothing (file {path}): is no setting" in text
    assert "network.epochs (flag --epochs): " in text
    assert "secret" not in text


def test_empty_variables_count_as_not_set(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "TRAINING__SEED", "TRAINING__CONFIG", "TRAINING__NETWORK__EPOCHS"):
        monkeypatch.setenv(name, "")
    assert load_settings() == Settings(known_samples=load_settings().known_samples)


def test_defaults_are_those_of_the_file():
    """Help texts show the field's default: the file must not say another."""
    written = load_settings()
    assert written.model_dump(exclude={"known_samples"}) == Settings().model_dump(exclude={"known_samples"})


def test_missing_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAINING__CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(SettingsError, match=r"none\.yaml"):
        load_settings()


def _fields(model, prefix=""):
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def test_every_setting_is_explained_and_in_the_file():
    values = yaml.safe_load(DEFAULT_CONFIG.read_text())
    for path, field in _fields(Settings):
        assert field.description, path
        part = values
        for name in path.split("."):
            assert name in part, f"{path} is not in {DEFAULT_CONFIG.name}"
            part = part[name]


def test_help_states_the_defaults_of_the_file():
    text = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    settings = load_settings()
    for flag, default in (
        ("--seed", settings.seed),
        ("--epochs", settings.network.epochs),
        ("--protocol", settings.protocol),
        ("--genuine-weight", settings.genuine_weight),
    ):
        line = next(line for line in text.splitlines() if flag in line)
        assert f"[default: ({default})]" in line or f"[default: {default}]" in line


@pytest.mark.parametrize(
    ("flag", "given", "place", "variable", "expected"),
    [
        (["--held-out", "a.parquet"], Path("a.parquet"), "held_out", "b.parquet", Path("b.parquet")),
        (["--no-if-changed"], False, "if_changed", "true", True),
        (["--no-if-none"], False, "if_none", "true", True),
        (["--no-force"], False, "gate.force", "true", True),
        (["--epochs", "3"], 3, "network.epochs", "5", 5),
    ],
)
def test_what_a_flag_of_train_says_a_variable_can_say_too(
    monkeypatch, flag, given, place, variable, expected
):
    seen = []
    monkeypatch.setattr(
        "training.commands.train.train_command", lambda flags, out: seen.append(load_settings(flags))
    )
    monkeypatch.setenv(f"TRAINING__{place.replace('.', '__').upper()}", variable)
    for arguments, value in (([], expected), (flag, given)):
        assert CliRunner().invoke(app, ["train", *arguments]).exit_code == 0
        assert attrgetter(place)(seen.pop()) == value


def test_simulate_takes_its_flags_from_variables_too(monkeypatch, tmp_path):
    for name, value in (("ROWS", "30"), ("SEED", "3"), ("OUTPUT", str(tmp_path / "variable.csv"))):
        monkeypatch.setenv(f"TRAINING__SIMULATE__{name}", value)
    assert CliRunner().invoke(app, ["simulate"]).exit_code == 0
    flags = ["--rows", "20", "--output", str(tmp_path / "flag.csv")]
    assert CliRunner().invoke(app, ["simulate", *flags]).exit_code == 0
    lines = {path.stem: path.read_text().splitlines() for path in tmp_path.iterdir()}
    assert {stem: len(found) - 1 for stem, found in lines.items()} == {"variable": 30, "flag": 20}


def test_a_file_that_nothing_names_is_asked_for(tmp_path):
    for arguments in (["simulate"], ["score", "--data", "rows.csv"]):
        found = CliRunner().invoke(app, arguments)
        assert isinstance(found.exception, UsageError)
        assert "--output is missing" in str(found.exception)
