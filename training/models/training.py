"""From checked transactions to a judged pair of models: split, fit, calibrate, choose thresholds, judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.console import ProgressConsole, Report
from training.data.labelled import GroundTruth, LabelledRows, labelled_rows
from training.data.split import Split, split_by_protocol
from training.data.transactions import FEATURES, Transactions
from training.evaluation.decision import DecisionRule, decision_costs, fit_decision_rule
from training.evaluation.metrics import Estimate, ModelOutput, evaluate, metric_criteria
from training.evaluation.reference import describe_reference
from training.models.network_fit import FittedNetwork, fit_network, network_scores, pick_device, refit_network
from training.models.trees import FittedTrees, fit_trees, refit_trees, tree_scores
from training.models.validation import EpochReport, ignore_epoch
from training.settings.load import Settings

AMOUNT = FEATURES.index("Amount")


@dataclass(frozen=True, eq=False)
class FittedPair:
    """Both models with everything that was fitted on top of them."""

    network: FittedNetwork
    trees: FittedTrees
    rule: DecisionRule

    def scores(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the network's and the trees' scores [n]."""
        return network_scores(self.network.module, features), tree_scores(self.trees.booster, features)

    def outputs(self, features: NDArray[np.float32]) -> dict[str, ModelOutput]:
        """Return what each model, and both together, say about transactions."""
        network, trees = self.scores(features)
        decided = self.rule.decide(network, trees, features[:, AMOUNT])
        raised = decided.raised_by
        return {
            "neural_net": ModelOutput(network.astype(np.float64), raised["neural_net"]),
            "xgboost": ModelOutput(trees.astype(np.float64), raised["xgboost"]),
            "pair": ModelOutput(decided.probability, decided.is_fraud, decided.action != "approve"),
        }


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """One complete training: what went in, what came out, how good it is."""

    data: Transactions
    split: Split
    settings: Settings
    fitted: FittedPair  # what is judged
    served: FittedPair  # what is stored: the same, or fitted again on the test part too
    test: LabelledRows
    outputs: Mapping[str, ModelOutput]  # of the test part
    figures: Mapping[str, Mapping[str, Estimate]]  # of the test part
    reference: Mapping[str, Any]  # what rows of the stream and their scores look like


def train(
    data: Transactions,
    settings: Settings,
    console: ProgressConsole,
    reports: Mapping[str, EpochReport] | None = None,
) -> TrainingResult:
    """Fit both models and judge them on rows that no choice has seen.

    Parameters
    ----------
    reports : mapping of model to callable, optional
        Called after each epoch of `neural_net` and each boosting round of `xgboost`.

    Raises
    ------
    DataError
        If there are too few frauds for three parts.
    """
    parts = split_by_protocol(data, settings)
    fitted = fit(data, parts, settings, console, reports)
    test = labelled_rows(data, parts.test)
    with console.step("Judge on the test part") as report:
        outputs = fitted.outputs(test.features)
        figures = _figures(outputs, test.truth, settings)
        report(f"{int(test.truth.label.sum())} frauds in {len(test.features):,} rows")
    reference = _describe_unseen(test, outputs, parts, data)
    served = fitted
    if settings.refit_newest:
        with console.step("Fit again with the test part") as report:
            served = refit(fitted, labelled_rows(data, np.arange(len(data))), settings)
            report(f"{data.frauds} frauds in {len(data):,} rows")
    return TrainingResult(data, parts, settings, fitted, served, test, outputs, figures, reference)


def fit(
    data: Transactions,
    parts: Split,
    settings: Settings,
    console: ProgressConsole,
    reports: Mapping[str, EpochReport] | None = None,
) -> FittedPair:
    """Fit both models on the training part, calibration and thresholds on the validation part.

    Then, unless the settings say otherwise, fit both models again on the two parts together: a quarter more
    frauds are worth more than anything that could be chosen with them.
    """
    torch.set_num_threads(settings.threads)
    own = {"neural_net": ignore_epoch, "xgboost": ignore_epoch, **(reports or {})}
    train_part, validation = labelled_rows(data, parts.train), labelled_rows(data, parts.validation)
    with console.step("Fit the network") as report:
        network = _network(train_part, validation, settings, report, own["neural_net"])
    with console.step("Fit XGBoost") as report:
        trees = _trees(train_part, validation, settings, report, own["xgboost"])
    with console.step("Calibrate, choose thresholds") as report:
        rule = _fit_rule(network, trees, validation, settings)
        report(_describe_rule(rule))
    fitted = FittedPair(network, trees, rule)
    if settings.refit:
        with console.step("Fit again with validation") as report:
            both = labelled_rows(data, np.sort(np.concatenate([parts.train, parts.validation])))
            fitted = refit(fitted, both, settings)
            report(f"{int(both.truth.label.sum())} frauds in {len(both.features):,} rows")
    return fitted


def refit(fitted: FittedPair, both: LabelledRows, settings: Settings) -> FittedPair:
    """Fit both models again on more rows, with the epochs and trees that were found; keep the decision."""
    device = pick_device(settings.device)
    network = refit_network(both, fitted.network, settings.network, seed=settings.seed, device=device)
    trees = refit_trees(both, fitted.trees, settings.xgboost, seed=settings.seed, threads=settings.threads)
    return replace(fitted, network=network, trees=trees)


def _network(
    train_part: LabelledRows,
    validation: LabelledRows,
    settings: Settings,
    report: Report,
    record: EpochReport,
) -> FittedNetwork:
    def progress(epoch: int, figures: Mapping[str, float]) -> None:
        record(epoch, figures)
        quality = figures["validation_average_precision"]
        report(f"epoch {epoch}/{settings.network.epochs}, validation average precision {quality:.3f}")

    device = pick_device(settings.device)
    fitted = fit_network(
        train_part, validation, settings.network, seed=settings.seed, device=device, progress=progress
    )
    best = fitted.history[fitted.best_epoch]["validation_average_precision"]
    report(f"best epoch {fitted.best_epoch + 1} of {len(fitted.history)}, validation AP {best:.3f}")
    return fitted


def _trees(
    train_part: LabelledRows,
    validation: LabelledRows,
    settings: Settings,
    report: Report,
    record: EpochReport,
) -> FittedTrees:
    report(f"{settings.xgboost.trees} trees at most")
    fitted = fit_trees(
        train_part, validation, settings.xgboost, seed=settings.seed, threads=settings.threads, report=record
    )
    best = fitted.history[fitted.best_tree]["validation_average_precision"]
    each = settings.xgboost.parallel_trees
    kept, grown = each * (fitted.best_tree + 1), each * len(fitted.history)
    report(f"{kept} trees of {grown}, validation AP {best:.3f}")
    return fitted


def _fit_rule(
    network: FittedNetwork, trees: FittedTrees, validation: LabelledRows, settings: Settings
) -> DecisionRule:
    """Fit what decides on rows that the models have not seen."""
    first = network_scores(network.module, validation.features)
    second = tree_scores(trees.booster, validation.features)
    return fit_decision_rule(first, second, validation.truth, decision_costs(settings.decision))


def _describe_unseen(
    test: LabelledRows, outputs: Mapping[str, ModelOutput], parts: Split, data: Transactions
) -> dict[str, Any]:
    """Describe the test part as the served models score it.

    The models that are served were fitted on the validation part too, and score on another scale than those
    before that: only rows that neither has seen look as the stream will look.
    """
    share = test.truth.weight.sum() / data.sample_weight.sum() if parts.protocol == "random" else 1.0
    scores = {name: outputs[name].score for name in ("neural_net", "xgboost")}
    return describe_reference(test, scores, outputs["pair"].score, float(share))


def _describe_rule(rule: DecisionRule) -> str:
    limits, loss = rule.thresholds, rule.expected_loss
    review = "no review for expected loss" if loss is None else f"expected loss from {loss.bound:g}"
    return f"network {limits.neural_net:.4g}, XGBoost {limits.xgboost:.4g}, {review}"


def _figures(
    outputs: Mapping[str, ModelOutput], truth: GroundTruth, settings: Settings
) -> dict[str, dict[str, Estimate]]:
    wanted = settings.evaluation
    return evaluate(
        outputs,
        truth,
        metric_criteria(settings),
        resamples=wanted.resamples,
        confidence=wanted.confidence,
        seed=settings.seed,
    )
