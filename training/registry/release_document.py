"""What is promoted together, as one document: thresholds, calibration, data, figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from training.data.split import Split
from training.data.transactions import FEATURES, Transactions
from training.evaluation.decision import Calibration, Thresholds
from training.evaluation.metrics import Estimate

SCHEMA_VERSION = 1


def build_document(
    *,
    thresholds: Thresholds,
    calibration: Calibration,
    data: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, Estimate]],
    run_id: str,
    trained_at: str,
) -> dict[str, Any]:
    """Return the document both store models carry; `release` and `model` are added where they are known."""
    return {
        "schema_version": SCHEMA_VERSION,
        "feature_names": list(FEATURES),
        "thresholds": asdict(thresholds),
        "calibration": calibration.as_document(),
        "training_run_id": run_id,
        "data": dict(data),
        "metrics": {
            f"{model}.{metric}": asdict(figure)
            for model, metrics in figures.items()
            for metric, figure in metrics.items()
        },
        "trained_at": trained_at,
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
