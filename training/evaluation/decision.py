"""From two scores to a calibrated probability and a decision: fitted on validation rows, applied anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import GroundTruth
from training.evaluation.expected_loss import Bools, ExpectedLoss, choose_expected_loss
from training.evaluation.log_odds import logit, sigmoid
from training.settings.sections import DecisionSettings

Floats = NDArray[np.float64]

# Where float32 scores are clipped before their log-odds are taken; part of the release.
EPSILON = 1e-7
# Where the coefficients are drawn to, and how strongly: validation frauds are too few to weigh two models
# that agree. Equal weights, against .1 and .8 with strengths 100 and 20, on splits 700-704 of the ULB subset:
# AUC .9857 against .9841 (above on 4 of 5), AP .867 against .869 (above on 3 of 5), mean |z| of the
# calibration 1.6 against 2.0.
PRIOR = np.array([0.0, 0.45, 0.45])  # intercept, network, trees
PRIOR_STRENGTH = np.array([0.05, 100.0, 100.0])
# The same for a model alone.
SOLO_PRIOR, SOLO_STRENGTH = np.array([0.0, 0.9]), np.array([0.05, 100.0])
SLOPE_MIN = 1e-6
# Share of the frauds alarmed at that must still be, for thresholds to be raised to the least probability.
KEPT = 0.9


@dataclass(frozen=True)
class Calibration:
    """``sigmoid(intercept + neural_net * logit(s_nn) + xgboost * logit(s_xgb))``; coefficients are >= 0."""

    intercept: float
    neural_net: float
    xgboost: float
    epsilon: float = EPSILON

    def probability(self, neural_net: NDArray[np.floating], xgboost: NDArray[np.floating]) -> Floats:
        """Return calibrated fraud probabilities [n] of scores [n]."""
        a, b = logit(neural_net, self.epsilon), logit(xgboost, self.epsilon)
        return sigmoid(self.intercept + self.neural_net * a + self.xgboost * b)

    def as_document(self) -> dict[str, object]:
        """Return the form in which a release carries it."""
        return {
            "method": "logistic",
            "intercept": self.intercept,
            "coefficients": {"neural_net": self.neural_net, "xgboost": self.xgboost},
            "epsilon": self.epsilon,
        }


@dataclass(frozen=True)
class Thresholds:
    """A model is alarmed when its score reaches its threshold."""

    neural_net: float
    xgboost: float

    def alarms(self, neural_net: NDArray[np.floating], xgboost: NDArray[np.floating]) -> Bools:
        """Return at which scores [n] a model is alarmed."""
        return np.asarray((neural_net >= self.neural_net) | (xgboost >= self.xgboost))


@dataclass(frozen=True, eq=False)
class Decisions:
    """What is decided about transactions, and what raised it.

    Attributes
    ----------
    probability : float64 array of shape (n,)
        Calibrated probability of fraud.
    raised_by : dict of str to bool array of shape (n,)
        For each of ``neural_net``, ``xgboost`` and ``expected_loss``, whether it raised the transaction.
    """

    probability: Floats
    raised_by: Mapping[str, Bools]

    @property
    def is_fraud(self) -> Bools:
        """Whether a model is alarmed."""
        return self.raised_by["neural_net"] | self.raised_by["xgboost"]

    @property
    def action(self) -> NDArray[np.str_]:
        """Decline what both models suspect; review what one does, or what risks more than a review costs."""
        network, trees = self.raised_by["neural_net"], self.raised_by["xgboost"]
        review = network | trees | self.raised_by["expected_loss"]
        return np.where(network & trees, "decline", np.where(review, "review", "approve"))


@dataclass(frozen=True)
class DecisionRule:
    """All that turns two scores into a decision: fitted on validation rows, part of the release."""

    calibration: Calibration
    thresholds: Thresholds
    expected_loss: ExpectedLoss | None  # None: no review for expected loss

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> DecisionRule:
        """Return the rule of a release document; older ones know no expected loss."""
        calibration, loss = document["calibration"], document.get("expected_loss")
        return cls(
            Calibration(
                calibration["intercept"], **calibration["coefficients"], epsilon=calibration["epsilon"]
            ),
            Thresholds(**document["thresholds"]),
            None if loss is None else ExpectedLoss(loss["lambda"], loss["review_cost"]),
        )

    def decide(
        self, neural_net: NDArray[np.floating], xgboost: NDArray[np.floating], amount: NDArray[np.floating]
    ) -> Decisions:
        """Return what is decided about transactions with these scores [n] and amounts [n]."""
        probability = self.calibration.probability(neural_net, xgboost)
        loss = self.expected_loss
        raised = {
            "neural_net": neural_net >= self.thresholds.neural_net,
            "xgboost": xgboost >= self.thresholds.xgboost,
            "expected_loss": np.zeros(len(probability), bool)
            if loss is None
            else loss.raised(probability, amount.astype(np.float64)),
        }
        return Decisions(probability, raised)


@dataclass(frozen=True)
class Costs:
    """What alarms and missed frauds cost, and what bounds the search for thresholds.

    Attributes
    ----------
    review_cost : float
        Cost of looking at one transaction, account currency.
    min_precision : float
        Least share of frauds among the alarms of the models.
    slack : float
        Share of the amount at risk that may be spent beyond the cheapest thresholds.
    capacity : float
        Most transactions that may be reviewed or declined, as a share of the stream; 0: no review for
        expected loss.
    multiplier : float or None
        Lambda of the review for expected loss; None: chosen on validation rows.
    min_probability : float
        Least probability of fraud that a score must mean by itself for its model to be alarmed.
    """

    review_cost: float
    min_precision: float
    slack: float
    capacity: float = 0.0
    multiplier: float | None = None
    min_probability: float = 0.0


def decision_costs(settings: DecisionSettings) -> Costs:
    """Return what the settings say about costs."""
    return Costs(
        settings.review_cost,
        settings.min_precision,
        settings.cost_slack,
        settings.review_capacity,
        settings.review_multiplier,
        settings.min_probability,
    )


def fit_decision_rule(
    neural_net: NDArray[np.float32], xgboost: NDArray[np.float32], truth: GroundTruth, costs: Costs
) -> DecisionRule:
    """Fit calibration and thresholds on validation rows, then choose when expected loss asks for a review."""
    calibration = fit_calibration(neural_net, xgboost, truth)
    thresholds = choose_thresholds(neural_net, xgboost, truth, costs)
    thresholds = _raise_thresholds(thresholds, neural_net, xgboost, truth, costs.min_probability)
    loss = None
    if costs.capacity and costs.multiplier is not None:
        loss = ExpectedLoss(costs.multiplier, costs.review_cost)
    elif costs.capacity:
        alarm = thresholds.alarms(neural_net, xgboost)
        probability = calibration.probability(neural_net, xgboost)
        loss = choose_expected_loss(probability, alarm, truth, costs.review_cost, costs.capacity)
    return DecisionRule(calibration, thresholds, loss)


def fit_calibration(
    neural_net: NDArray[np.floating], xgboost: NDArray[np.floating], truth: GroundTruth
) -> Calibration:
    """Fit the logistic calibrator on validation rows at the prevalence their weights give."""
    return Calibration(*_fit_log_odds((neural_net, xgboost), truth, PRIOR, PRIOR_STRENGTH))


def _fit_log_odds(
    scores: tuple[NDArray[np.floating], ...], truth: GroundTruth, prior: Floats, strength: Floats
) -> list[float]:
    """Return intercept and coefficients (>= 0) of a logistic regression on the scores' log-odds."""
    from scipy.optimize import minimize  # most of the start of a process that only scores

    design = np.stack([np.ones(len(truth.label)), *(logit(score, EPSILON) for score in scores)], axis=1)
    sign = np.where(truth.label == 1, -1.0, 1.0)

    def loss(x: Floats) -> tuple[float, Floats]:
        margin = sign * (design @ x)
        off = x - prior
        value = truth.weight @ np.logaddexp(0, margin) + strength @ off**2
        slope = design.T @ (truth.weight * sign * sigmoid(margin)) + 2 * strength * off
        return float(value), slope

    bounds = [(None, None), *((0.0, None) for _ in scores)]
    fitted = minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})
    return [float(value) for value in fitted.x]


def choose_thresholds(
    neural_net: NDArray[np.float32], xgboost: NDArray[np.float32], truth: GroundTruth, costs: Costs
) -> Thresholds:
    """Choose both thresholds on validation rows: recall first at bounded cost.

    A missed fraud costs its amount, an alarm ``costs.review_cost``. Pairs of thresholds whose alarms hold too
    few frauds are left out. Among those that cost at most ``costs.slack`` of the amount at risk more than the
    cheapest, the one that catches the most frauds wins; then the cheaper, where a fraud that both models find
    needs no review: else one false alarm could silence a model that only confirms, and nothing be declined.
    """
    first, second = _candidates(neural_net, truth), _candidates(xgboost, truth)
    place = (np.searchsorted(first, neural_net, "right"), np.searchsorted(second, xgboost, "right"))
    shape = (len(first) + 1, len(second) + 1)
    fraud = truth.label == 1

    def below(values: Floats) -> Floats:
        """Total of `values` over rows below both thresholds; in the last row and column, below one."""
        table = np.zeros(shape)
        np.add.at(table, place, values)
        return table.cumsum(0).cumsum(1)

    frauds = below(truth.weight * fraud)
    missed = frauds[:-1, :-1]
    confirmed = frauds[-1, -1] - frauds[:-1, -1:] - frauds[-1:, :-1] + missed
    alarms = truth.weight.sum() - below(truth.weight)[:-1, :-1]
    at_risk = truth.weight * fraud * truth.amount
    cost = below(at_risk)[:-1, :-1] + costs.review_cost * alarms
    precise = _precise(alarms, frauds[-1, -1] - missed, costs.min_precision)
    allowed = precise & (cost <= cost[precise].min() + costs.slack * at_risk.sum())
    keys = (cost - costs.review_cost * confirmed, missed, ~allowed)
    i, j = np.unravel_index(np.lexsort([key.ravel() for key in keys])[0], cost.shape)
    return Thresholds(float(first[i]), float(second[j]))


def _precise(alarms: Floats, caught: Floats, least: float) -> NDArray[np.bool_]:
    """Return which pairs are precise enough; all where that would catch nothing."""
    precise = (caught > 0) & (caught >= least * alarms)
    return precise if precise.any() else np.ones_like(precise)


def _candidates(score: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
    """Return where a threshold may lie: midway, in log-odds, between a fraud and the score below it."""
    levels = np.unique(score)
    frauds = np.unique(score[truth.label == 1])
    below = levels[np.maximum(np.searchsorted(levels, frauds) - 1, 0)]
    middle = sigmoid((logit(frauds) + logit(below)) / 2).astype(np.float32)
    return np.unique(np.append(np.clip(middle, below, frauds), np.float32(1.0)))


def _raise_thresholds(
    chosen: Thresholds,
    neural_net: NDArray[np.float32],
    xgboost: NDArray[np.float32],
    truth: GroundTruth,
    probability: float,
) -> Thresholds:
    """Return the thresholds, each at least where its model's score means `probability` by itself.

    Models too weak to mean that much of the frauds they find keep theirs: they would be silenced.
    """
    raised = Thresholds(
        max(chosen.neural_net, least_score(neural_net, truth, probability)),
        max(chosen.xgboost, least_score(xgboost, truth, probability)),
    )
    before, after = (
        (truth.weight * truth.label)[limits.alarms(neural_net, xgboost)].sum() for limits in (chosen, raised)
    )
    return raised if after >= KEPT * before else chosen


def least_score(score: NDArray[np.floating], truth: GroundTruth, probability: float) -> float:
    """Return the score from which on a model, heard alone, means at least this probability of fraud.

    A threshold lies beside the few genuine rows that score highest, and where they lie is chance. The curve
    through all rows depends less on it.
    """
    if probability <= 0:
        return 0.0
    intercept, slope = _fit_log_odds((score,), truth, SOLO_PRIOR, SOLO_STRENGTH)
    wanted = math.log(probability / (1 - probability)) - intercept
    if slope < SLOPE_MIN:  # the score says nothing: every one means the same
        return 0.0 if wanted <= 0 else 1.0
    return float(np.float32(sigmoid(np.array(wanted / slope))))
