import numpy as np
import pytest
import torch
import xgboost

from tests.training_fixtures import silent, small_settings
from training.data.labelled import labelled_rows
from training.data.split import split_by_protocol
from training.errors import SettingsError
from training.evaluation.metrics import at_best_f1
from training.models.network_fit import (
    _MemberTrainer,
    _SampledTensors,
    fit_network,
    network_scores,
    pick_device,
    refit_network,
)
from training.models.sampling import prior_shift, undersample
from training.models.training import train
from training.models.trees import correct_trees, fit_trees, refit_trees, tree_scores


@pytest.fixture(scope="module")
def parts(few_transactions):
    split = split_by_protocol(few_transactions, small_settings())
    return labelled_rows(few_transactions, split.train), labelled_rows(few_transactions, split.validation)


def fit(parts, seed=0, **network):
    settings = small_settings(network={**small_settings().network.model_dump(), **network}).network
    return fit_network(*parts, settings, seed=seed, device=torch.device("cpu"), progress=lambda *_: None)


def test_same_data_settings_and_seed_give_the_same_figures(few_transactions, small_training):
    again = train(few_transactions, small_settings(), silent())
    assert again.figures == small_training.figures
    assert again.fitted.rule.thresholds == small_training.fitted.rule.thresholds
    assert again.fitted.rule.calibration == small_training.fitted.rule.calibration
    other = train(few_transactions, small_settings(seed=8), silent())
    assert other.figures["neural_net"] != small_training.figures["neural_net"]
    assert (other.split.test == small_training.split.test).all()  # judged on the same rows


def test_best_epoch_is_kept_and_training_stops_after_it(parts):
    fitted = fit(parts, epochs=60, stopping_patience_epochs=2, learning_rate=0.02)
    loss = [row["validation_loss"] for row in fitted.history]
    assert len(fitted.history) < 60
    assert fitted.best_epoch == int(np.argmin(loss))
    assert len(fitted.history) - 1 - fitted.best_epoch == 2


def test_history_has_what_is_tracked(parts):
    row = fit(parts, epochs=1).history[0]
    names = {"loss", "auc", "average_precision", "f1", "precision", "recall"}
    assert {f"validation_{name}" for name in names} | {"train_fitting_loss", "train_learning_rate"} == set(
        row
    )


def test_learning_rate_falls_when_validation_stalls(parts):
    wild = {"learning_rate": 0.1, "averaging": 0.0}
    history = fit(parts, epochs=12, plateau_patience_epochs=0, stopping_patience_epochs=50, **wild).history
    assert history[-1]["train_learning_rate"] < history[0]["train_learning_rate"]


def loop_of(parts, **network):
    settings = small_settings(network={**small_settings().network.model_dump(), **network}).network
    return _MemberTrainer(_SampledTensors.of(parts[0], settings, 0, torch.device("cpu")), settings, 0)


def weights_after(parts, steps, averaging):
    everything = {"mixup": 0.0, "dropout": 0.0, "batch_rows": 10**6, "averaging": averaging}
    loop = loop_of(parts, **everything)
    loop.repeat([0.01] * steps)
    return torch.cat([weight.detach().flatten() for weight in loop.net.parameters()])


def test_what_is_kept_is_a_running_mean_of_the_weights(parts):
    first, last = weights_after(parts, 1, averaging=0.0), weights_after(parts, 2, averaging=0.0)
    assert not torch.equal(first, last)
    assert torch.equal(weights_after(parts, 1, averaging=0.75), first)
    assert torch.allclose(weights_after(parts, 2, averaging=0.75), 0.75 * first + 0.25 * last, atol=1e-6)


def test_the_loss_of_mixed_rows_is_the_mean_of_the_losses_of_both(parts):
    """Zhang et al. (2018), eq. 1, with weights: linear in the label, so one loss says the same as two."""
    loop = loop_of(parts, mixup=0.8)
    rows = torch.arange(40)
    torch.manual_seed(3)
    inputs, label, weight = loop._mixed(rows)
    torch.manual_seed(3)
    other = torch.randperm(40)
    source = loop.batch
    gap = source.inputs[rows] - source.inputs[other]
    share = ((inputs - source.inputs[other]) * gap).sum() / (gap**2).sum()
    assert 0 < share < 1
    logits = torch.linspace(-3, 3, 40)
    both = share * source.weight[rows] * loop._loss(logits, source.label[rows])
    both = both + (1 - share) * source.weight[other] * loop._loss(logits, source.label[other])
    assert torch.allclose(loop._loss(logits, label) * weight, both, atol=1e-4)


def test_members_are_averaged_in_log_odds(parts):
    one, two = fit(parts, members=1, epochs=2), fit(parts, members=2, epochs=2)
    assert len(two.module.members) == 2
    features = torch.from_numpy(parts[1].features[:50])
    first = two.module.members[0](two.module.preprocessing(features)).squeeze(1)
    assert torch.allclose(
        first, one.module.members[0](one.module.preprocessing(features)).squeeze(1), atol=1e-5
    )


def test_scores_are_at_the_prevalence_of_the_stream(parts):
    """Undersampling and class weights raise every score; the prior correction brings them back down."""
    fitted = fit(parts, epochs=6, genuine_per_fraud=2.0, positive_weight=5.0)
    scores = network_scores(fitted.module, parts[1].features)
    mean = np.average(scores, weights=parts[1].truth.weight)
    prevalence = np.average(parts[1].truth.label, weights=parts[1].truth.weight)
    assert prevalence / 4 < mean < prevalence * 4


def test_trees_end_at_their_best_and_score_raw_features(parts):
    settings = small_settings(xgboost={"trees": 60, "max_depth": 3, "stopping_patience_trees": 5}).xgboost
    fitted = fit_trees(*parts, settings, seed=0, threads=1)
    assert fitted.booster.num_boosted_rounds() == fitted.best_tree + 1 <= len(fitted.history)
    quality = [row["validation_auc"] for row in fitted.history]
    assert fitted.best_tree == int(np.argmax(quality))
    scores = tree_scores(fitted.booster, parts[1].features)
    assert scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()


def test_trees_are_watched_like_the_network(parts):
    settings = small_settings(xgboost={"trees": 20, "max_depth": 3}).xgboost
    fitted = fit_trees(*parts, settings, seed=0, threads=1)
    names = {"loss", "fitting_loss", "auc", "average_precision", "f1", "precision", "recall"}
    assert {f"{part}_{name}" for part in ("train", "validation") for name in names} == set(fitted.history[0])
    score = tree_scores(fitted.booster, parts[1].features).astype(np.float64)
    truth, last = parts[1].truth, fitted.history[-1]
    figures = at_best_f1(score, truth.label == 1, truth.weight)
    for name in ("precision", "recall", "f1"):
        assert last[f"validation_{name}"] == pytest.approx(figures[name], rel=1e-3)
    assert 0 < figures["recall"] < 1
    # The loss is that of the stored score at the prevalence of the stream, as the network's is.
    right = np.where(truth.label == 1, score, 1 - score)
    loss = float(np.average(-np.log(right), weights=truth.weight))
    assert last["validation_loss"] == pytest.approx(loss, rel=1e-3)


def test_trees_side_by_side_count_as_trees(parts):
    changes = {"trees": 12, "max_depth": 2, "parallel_trees": 3}
    settings = small_settings(xgboost=changes).xgboost
    fitted = fit_trees(*parts, settings, seed=0, threads=1)
    assert len(fitted.history) == fitted.booster.num_boosted_rounds() == 4
    assert len(fitted.booster.get_dump()) == 12


def test_corrected_trees_are_the_same_trees_with_a_constant_added(parts):
    settings = small_settings().xgboost
    truth = parts[0].truth
    sample = undersample(truth.label, truth.weight, 0.0, np.random.default_rng(0))
    matrix = xgboost.DMatrix(parts[0].features, truth.label)
    plain = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, matrix, num_boost_round=5)
    corrected = correct_trees(plain, sample, settings)
    moved = corrected.predict(matrix, output_margin=True) - plain.predict(matrix, output_margin=True)
    expected = prior_shift(sample.kept_share, settings.scale_pos_weight)
    assert expected < -3
    assert moved == pytest.approx(np.full(len(moved), expected), abs=1e-4)


def test_labels_of_the_test_part_change_nothing_that_is_fitted(few_transactions, small_training):
    import dataclasses

    label = few_transactions.required_label.copy()
    test = small_training.split.test
    label[test] = label[test][::-1]
    shuffled = dataclasses.replace(few_transactions, label=label)
    parts = small_training.split
    from training.models.training import fit as fit_both

    again = fit_both(shuffled, parts, small_settings(), silent())
    assert again.rule.thresholds == small_training.fitted.rule.thresholds
    assert again.rule.calibration == small_training.fitted.rule.calibration


def test_refit_repeats_the_learning_rates_and_keeps_the_trees(few_transactions, parts):
    settings = small_settings()
    everything = labelled_rows(few_transactions, np.arange(len(few_transactions)))
    network = fit(parts, epochs=6)
    again = refit_network(everything, network, settings.network, seed=0, device=torch.device("cpu"))
    assert len(network.schedules[0]) == network.best_epoch + 1
    assert again.rows > network.rows
    assert again.schedules == network.schedules
    trees = fit_trees(*parts, settings.xgboost, seed=0, threads=1)
    more = refit_trees(everything, trees, settings.xgboost, seed=0, threads=1)
    assert more.booster.num_boosted_rounds() == trees.best_tree + 1
    assert more.rows > trees.rows


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(
        SettingsError, match="device is cuda, but this PyTorch finds no CUDA device: set auto"
    ):
        pick_device("cuda")
