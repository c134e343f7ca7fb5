"""`train` from a file to a promoted release: split, fit, calibrate, judge, record, promote, import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import Split, Transactions, split_random, split_temporal
from training.decision import Calibration, Thresholds, choose_thresholds, fit_calibration
from training.evaluate import Criteria, Figure, Judged, Rows, evaluate
from training.fit import FittedNetwork, FittedTrees, Part, fit_network, fit_trees, pick_device, tree_scores
from training.settings import Settings

Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Both models with everything that was fitted on top of them."""

    network: FittedNetwork
    trees: FittedTrees
    calibration: Calibration
    thresholds: Thresholds

    def scores(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the network's and the trees' scores [n]."""
        with torch.no_grad():
            parts = [self.network.module(part).numpy() for part in torch.from_numpy(features).split(8192)]
        return np.concatenate(parts), tree_scores(self.trees.booster, features)

    def judge(self, part: Part) -> dict[str, Judged]:
        """Return what each model, and both together, say about a part."""
        network, trees = self.scores(part.features)
        limits = self.thresholds
        return {
            "neural_net": Judged(network.astype(np.float64), network >= limits.neural_net),
            "xgboost": Judged(trees.astype(np.float64), trees >= limits.xgboost),
            "pair": Judged(
                self.calibration.probability(network, trees), limits.decide(network, trees) != "approve"
            ),
        }


def split(data: Transactions, settings: Settings) -> Split:
    """Split by the protocol of the settings."""
    shares = {
        "validation_fraction": settings.split.validation_share,
        "test_fraction": settings.split.test_share,
    }
    if settings.protocol == "temporal":
        return split_temporal(data, **shares)
    return split_random(data, seed=settings.seed, **shares)


def part(data: Transactions, rows: NDArray[np.intp]) -> Part:
    """Return the rows of a part as the models take them."""
    return Part(
        data.features[rows].astype(np.float32),
        Rows(data.required_label[rows], data.sample_weight[rows], data.amount[rows]),
    )


def fit(data: Transactions, parts: Split, settings: Settings, report: Report) -> Fitted:
    """Fit both models on the training part, calibration and thresholds on the validation part."""
    torch.set_num_threads(settings.threads)
    train_part, validation = part(data, parts.train), part(data, parts.validation)
    device = pick_device(settings.device)
    network = fit_network(
        train_part,
        validation,
        settings.network,
        seed=settings.seed,
        device=device,
        progress=_lines(report, "network epoch"),
    )
    trees = fit_trees(
        train_part,
        validation,
        settings.xgboost,
        seed=settings.seed,
        threads=settings.threads,
        progress=_lines(report, "XGBoost tree"),
    )
    fitted = Fitted(network, trees, Calibration(0.0, 0.5, 0.5), Thresholds(1.0, 1.0))
    scores = fitted.scores(validation.features)
    return replace(
        fitted,
        calibration=fit_calibration(*scores, validation.rows),
        thresholds=choose_thresholds(
            *scores,
            validation.rows,
            review_cost=settings.decision.review_cost,
            cost_slack=settings.decision.cost_slack,
        ),
    )


def _lines(report: Report, what: str) -> Callable[[int, int, dict[str, float]], None]:
    def progress(done: int, most: int, figures: dict[str, float]) -> None:
        quality = figures.get("validation_average_precision", figures.get("validation_aucpr", float("nan")))
        report(f"{what} {done}/{most}: validation average precision {quality:.3f}")

    return progress


def criteria(settings: Settings) -> Criteria:
    """Return which figures the settings ask for."""
    return Criteria(
        settings.decision.review_cost,
        settings.evaluation.alarm_rates,
        settings.evaluation.precision_at_k,
        settings.evaluation.calibration_bins,
    )


def test_figures(fitted: Fitted, test: Part, settings: Settings) -> dict[str, dict[str, Figure]]:
    """Return every figure of the test part with its interval."""
    return evaluate(
        fitted.judge(test),
        test.rows,
        criteria(settings),
        resamples=settings.evaluation.resamples,
        confidence=settings.evaluation.confidence,
        seed=settings.seed,
    )
