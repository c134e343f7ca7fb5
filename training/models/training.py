"""From checked transactions to a judged pair of models: split, fit, calibrate, choose thresholds, judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from training.console import Report, Screen
from training.data.source import split_by_protocol
from training.data.transactions import Split, Transactions
from training.evaluation.decision import Calibration, Costs, Thresholds, choose_thresholds, fit_calibration
from training.evaluation.metrics import Criteria, Figure, Judged, Rows, evaluate
from training.models.network_fit import (
    FittedNetwork,
    Part,
    fit_network,
    network_scores,
    pick_device,
    refit_network,
)
from training.models.trees import FittedTrees, fit_trees, refit_trees, tree_scores
from training.settings import Settings


@dataclass(frozen=True, eq=False)
class Fitted:
    """Both models with everything that was fitted on top of them."""

    network: FittedNetwork
    trees: FittedTrees
    calibration: Calibration
    thresholds: Thresholds

    def scores(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the network's and the trees' scores [n]."""
        return network_scores(self.network.module, features), tree_scores(self.trees.booster, features)

    def judge(self, features: NDArray[np.float32]) -> dict[str, Judged]:
        """Return what each model, and both together, say about transactions."""
        network, trees = self.scores(features)
        limits = self.thresholds
        return {
            "neural_net": Judged(network.astype(np.float64), network >= limits.neural_net),
            "xgboost": Judged(trees.astype(np.float64), trees >= limits.xgboost),
            "pair": Judged(
                self.calibration.probability(network, trees), limits.decide(network, trees) != "approve"
            ),
        }


@dataclass(frozen=True, eq=False)
class Training:
    """One complete training: what went in, what came out, how good it is."""

    data: Transactions
    split: Split
    settings: Settings
    fitted: Fitted
    test: Part
    judged: Mapping[str, Judged]  # of the test part
    figures: Mapping[str, Mapping[str, Figure]]  # of the test part


def train(data: Transactions, settings: Settings, screen: Screen) -> Training:
    """Fit both models and judge them on rows that no choice has seen.

    Raises
    ------
    DataError
        If there are too few frauds for three parts.
    """
    parts = split_by_protocol(data, settings)
    fitted = fit(data, parts, settings, screen)
    test = part(data, parts.test)
    with screen.step("Judge on the test part") as report:
        judged = fitted.judge(test.features)
        figures = _figures(judged, test.rows, settings)
        report(f"{int(test.rows.label.sum())} frauds in {len(test.features):,} rows")
    return Training(data, parts, settings, fitted, test, judged, figures)


def part(data: Transactions, rows: NDArray[np.intp]) -> Part:
    """Return the rows of a part as the models take them."""
    known = Rows(data.required_label[rows], data.sample_weight[rows], data.amount[rows])
    return Part(data.features[rows].astype(np.float32), known)


def fit(data: Transactions, parts: Split, settings: Settings, screen: Screen) -> Fitted:
    """Fit both models on the training part, calibration and thresholds on the validation part.

    Then, unless the settings say otherwise, fit both models again on the two parts together: a quarter more
    frauds are worth more than anything that could be chosen with them.
    """
    torch.set_num_threads(settings.threads)
    train_part, validation = part(data, parts.train), part(data, parts.validation)
    with screen.step("Fit the network") as report:
        network = _network(train_part, validation, settings, report)
    with screen.step("Fit XGBoost") as report:
        trees = _trees(train_part, validation, settings, report)
    with screen.step("Calibrate, choose thresholds") as report:
        fitted = on_validation(network, trees, validation, settings)
        report(f"network {fitted.thresholds.neural_net:.4g}, XGBoost {fitted.thresholds.xgboost:.4g}")
    if settings.refit:
        with screen.step("Fit again with validation") as report:
            both = part(data, np.sort(np.concatenate([parts.train, parts.validation])))
            fitted = refit(fitted, both, settings)
            report(f"{int(both.rows.label.sum())} frauds in {len(both.features):,} rows")
    return fitted


def refit(fitted: Fitted, both: Part, settings: Settings) -> Fitted:
    """Fit both models again on more rows, with the epochs and trees that were found; keep the decision."""
    device = pick_device(settings.device)
    network = refit_network(both, fitted.network, settings.network, seed=settings.seed, device=device)
    trees = refit_trees(both, fitted.trees, settings.xgboost, seed=settings.seed, threads=settings.threads)
    return replace(fitted, network=network, trees=trees)


def _network(train_part: Part, validation: Part, settings: Settings, report: Report) -> FittedNetwork:
    def progress(epoch: int, figures: Mapping[str, float]) -> None:
        quality = figures["validation_average_precision"]
        report(f"epoch {epoch}/{settings.network.epochs}, validation average precision {quality:.3f}")

    device = pick_device(settings.device)
    fitted = fit_network(
        train_part, validation, settings.network, seed=settings.seed, device=device, progress=progress
    )
    best = fitted.history[fitted.best_epoch]["validation_average_precision"]
    report(f"best epoch {fitted.best_epoch + 1} of {len(fitted.history)}, validation AP {best:.3f}")
    return fitted


def _trees(train_part: Part, validation: Part, settings: Settings, report: Report) -> FittedTrees:
    report(f"{settings.xgboost.trees} trees at most")
    fitted = fit_trees(train_part, validation, settings.xgboost, seed=settings.seed, threads=settings.threads)
    best = fitted.history[fitted.best_tree]["validation_average_precision"]
    each = settings.xgboost.parallel_trees
    kept, grown = each * (fitted.best_tree + 1), each * len(fitted.history)
    report(f"{kept} trees of {grown}, validation AP {best:.3f}")
    return fitted


def on_validation(network: FittedNetwork, trees: FittedTrees, validation: Part, settings: Settings) -> Fitted:
    """Fit calibration and thresholds of two fitted models on validation rows."""
    fitted = Fitted(network, trees, Calibration(0.0, 0.5, 0.5), Thresholds(1.0, 1.0))
    scores = fitted.scores(validation.features)
    wanted = settings.decision
    costs = Costs(wanted.review_cost, wanted.min_precision, wanted.cost_slack)
    return replace(
        fitted,
        calibration=fit_calibration(*scores, validation.rows),
        thresholds=choose_thresholds(*scores, validation.rows, costs),
    )


def criteria(settings: Settings) -> Criteria:
    """Return which figures the settings ask for."""
    return Criteria(
        settings.decision.review_cost,
        settings.evaluation.alarm_rates,
        settings.evaluation.precision_at_k,
        settings.evaluation.calibration_bins,
    )


def _figures(judged: Mapping[str, Judged], rows: Rows, settings: Settings) -> dict[str, dict[str, Figure]]:
    wanted = settings.evaluation
    return evaluate(
        judged,
        rows,
        criteria(settings),
        resamples=wanted.resamples,
        confidence=wanted.confidence,
        seed=settings.seed,
    )
