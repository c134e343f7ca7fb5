"""The release as one MLflow model: both scores, calibrated probability and decision of each transaction.

MLflow stores this file itself and runs it where the model is loaded, without this package: it must import
nothing of ``training``.
"""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class FraudDetector(PythonModel):
    """Raw features in, one row of scores, probability and decision for each transaction out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open both models and the release document."""
        import onnxruntime
        import xgboost

        self.document = json.loads(Path(context.artifacts["release"]).read_text(encoding="utf-8"))
        self.network = onnxruntime.InferenceSession(
            context.artifacts["network"], providers=["CPUExecutionProvider"]
        )
        self.trees = xgboost.Booster(model_file=context.artifacts["trees"])

    # MLflow takes any other type hint for a schema of single rows and complains.
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return neural_net_score, xgboost_score, fraud_probability and decision for each row."""
        names = self.document["feature_names"]
        features = np.ascontiguousarray(model_input[names], dtype=np.float32)
        scores = {
            "neural_net": self.network.run(None, {"features": features})[0],
            "xgboost": self.trees.inplace_predict(features, validate_features=False),
        }
        alarms = sum(
            (scores[model] >= limit).astype(int) for model, limit in self.document["thresholds"].items()
        )
        return pd.DataFrame(
            {
                **{f"{model}_score": score for model, score in scores.items()},
                "fraud_probability": self._probability(scores),
                "decision": np.array(["approve", "review", "decline"])[alarms],
            }
        )

    def _probability(
        self, scores: dict[str, np.ndarray[Any, np.dtype[np.float32]]]
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        calibration = self.document["calibration"]
        log_odds = calibration["intercept"]
        for model, coefficient in calibration["coefficients"].items():
            p = np.clip(scores[model].astype(np.float64), calibration["epsilon"], 1 - calibration["epsilon"])
            log_odds = log_odds + coefficient * (np.log(p) - np.log1p(-p))
        return np.asarray(1 / (1 + np.exp(-log_odds)))


mlflow.models.set_model(FraudDetector())
