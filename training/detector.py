"""The release as one MLflow model: both networks' scores, calibrated probability and decision for each transaction.

MLflow stores this file itself and runs it where the model is loaded, without this package: it must import
nothing of ``training``.
"""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel


class FraudDetector(PythonModel):  # type: ignore[misc]
    """Raw features in, one row of scores, probability and decision for each transaction out."""

    def load_context(self, context: Any) -> None:
        """Open both models and the release document."""
        import onnxruntime
        import xgboost

        self.document = json.loads(Path(context.artifacts["release"]).read_text(encoding="utf-8"))
        self.network = onnxruntime.InferenceSession(
            context.artifacts["network"], providers=["CPUExecutionProvider"]
        )
        self.trees = xgboost.Booster(model_file=context.artifacts["trees"])

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return neural_net_score, xgboost_score, fraud_probability and decision for each row."""
        names = self.document["feature_names"]
        frame = model_input[names] if isinstance(model_input, pd.DataFrame) else model_input
        features = np.ascontiguousarray(frame, dtype=np.float32)
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

    def _probability(self, scores: dict[str, Any]) -> Any:
        calibration = self.document["calibration"]
        log_odds = calibration["intercept"]
        for model, coefficient in calibration["coefficients"].items():
            p = np.clip(scores[model].astype(np.float64), calibration["epsilon"], 1 - calibration["epsilon"])
            log_odds = log_odds + coefficient * (np.log(p) - np.log1p(-p))
        return 1 / (1 + np.exp(-log_odds))


mlflow.models.set_model(FraudDetector())
