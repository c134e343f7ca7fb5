"""The model card: what a stranger needs to judge a release and to make it again."""

import pytest
from typer.testing import CliRunner

from tests.training_fixtures import small_settings
from training.__main__ import app
from training.evaluation.metrics import Estimate
from training.reporting.model_card import model_card

PART = {"rows": 100, "transactions": 1510.4, "frauds": 10, "prevalence": 0.0066}
DOCUMENT = {
    "trained_at": "2026-01-02T03:04:05+00:00",
    "training_run_id": "abc",
    "data": {
        "name": "cards of 2026.csv",
        "rows": 300,
        "frauds": 30,
        "prevalence": 0.0066,
        "protocol": "random",
        "fingerprint": "f" * 64,
    },
    "thresholds": {"neural_net": 0.5, "xgboost": 0.25},
    "expected_loss": {"lambda": 2.0, "review_cost": 1.5, "bound": 3.0},
    "calibration": {"intercept": 0.1, "coefficients": {"neural_net": 0.2, "xgboost": 0.3}},
}
FIGURES = {
    model: {"average_precision": Estimate(0.8, 0.7, 0.9)} for model in ("neural_net", "xgboost", "pair")
}


def card(**changes):
    parts = dict.fromkeys(("training", "validation", "test"), PART)
    return model_card(DOCUMENT, FIGURES, small_settings(**changes), parts, {})


def command(**changes):
    (line,) = (line for line in card(**changes).splitlines() if "python -m training train" in line)
    return line.strip("`")


def test_command_names_the_file_only_where_one_was_named():
    """Simulated data and the public copy have a name, but no file that --data could read."""
    assert "--data 'cards of 2026.csv'" in command(data="somewhere/cards of 2026.csv")
    assert "--data" not in command()
    assert "No file was named: the command found cards of 2026.csv by itself" in card()


def test_command_names_the_weight_where_it_is_not_one():
    assert "--genuine-weight 15.116 " in command(genuine_weight=15.116)
    assert "--genuine-weight" not in command()


@pytest.mark.parametrize("changes", [{}, {"data": "a.csv", "genuine_weight": 2.0}])
def test_flags_of_the_command_exist(changes):
    text = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for flag in (word for word in command(**changes).split() if word.startswith("--")):
        assert flag in text


def test_data_say_what_they_stand_for():
    text = card()
    assert "300 rows, 30 of them frauds, that stand for 4,531\n" in text
    assert "| test | 100 | 1,510 | 10 | 0.6600% |" in text


def test_refitting_is_told_where_it_was_done():
    assert "fitted again on training and validation rows" in card()
    assert "fitted again" not in card(refit=False)
    assert "judged here, and stored." in card()
    newest = card(refit_newest=True)
    assert "judged here.\n" in newest and "fitted once more, on the test rows too" in newest


def test_number_of_networks_reads_well():
    assert "a network (32-16) raises" in card()
    assert "3 averaged networks (32-16) raises" not in card(network={"hidden": [32, 16], "members": 3})
    assert "3 averaged networks (32-16) raise" in card(network={"hidden": [32, 16], "members": 3})


def test_review_for_expected_loss_is_told():
    assert "lose at least 3 (fraud probability times" in card()
    without = model_card({**DOCUMENT, "expected_loss": None}, FIGURES, small_settings(), {"test": PART}, {})
    assert "Nothing is reviewed for its expected loss alone." in without
