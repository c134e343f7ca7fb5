"""What is promoted together, as one document: what decides, its data, its figures, what it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.split import Split
from training.data.transactions import FEATURES, Transactions
from training.evaluation.decision import DecisionRule
from training.evaluation.metrics import Estimate
from training.settings.load import Settings

if TYPE_CHECKING:
    from training.models.training import TrainingResult

SCHEMA_VERSION = 1


def build_document(training: TrainingResult, *, run_id: str, trained_at: str) -> dict[str, Any]:
    """Return the document both store models carry; `release` and `model` are added where they are known."""
    fitted = training.fitted
    return {
        "schema_version": SCHEMA_VERSION,
        "feature_names": list(FEATURES),
        **describe_decision(fitted.rule, training.settings, training.data.prevalence, training.reference),
        "training_run_id": run_id,
        "data": describe_data(training.data, training.split),
        "metrics": describe_figures(training.figures),
        "trained_at": trained_at,
    }


def describe_decision(
    rule: DecisionRule, settings: Settings, prevalence: float, reference: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what decides, and what it was made for."""
    return {
        "thresholds": asdict(rule.thresholds),
        "calibration": rule.calibration.as_document(),
        "expected_loss": None if rule.expected_loss is None else rule.expected_loss.as_document(),
        "review_cost": settings.decision.review_cost,
        "prevalence": prevalence,
        "input_limits": {"time_min_s": 0.0, "amount_min": 0.0, **settings.limits.model_dump()},
        "reference": dict(reference),
    }


def describe_figures(figures: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    """Return every metric of every model with its interval."""
    return {
        f"{model}.{metric}": asdict(figure)
        for model, metrics in figures.items()
        for metric, figure in metrics.items()
    }


def describe_data(data: Transactions, split: Split) -> dict[str, Any]:
    """Return what a release says about the data it was fitted on."""
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "rows": len(data),
        "frauds": data.frauds,
        "prevalence": data.prevalence,
        "protocol": split.protocol,
    }


def describe_parts(data: Transactions, split: Split) -> dict[str, dict[str, Any]]:
    """Return rows, the transactions they stand for, frauds and share of fraud of each part."""
    label, weight = data.required_label, data.sample_weight
    return {
        name: {
            "rows": len(rows),
            "transactions": float(weight[rows].sum()),
            "frauds": int(label[rows].sum()),
            "prevalence": float(np.average(label[rows], weights=weight[rows])),
        }
        for name, rows in (("training", split.train), ("validation", split.validation), ("test", split.test))
    }
