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
        """Return scores, probability, decision, is_fraud and raised_by under the index of the input.

        A row with a value that is missing or not finite is not decided: its decision is ``refused``, its
        scores are NaN.
        """
        features = model_input[self.document["feature_names"]].to_numpy(dtype=np.float64, na_value=np.nan)
        with np.errstate(over="ignore"):
            features = np.ascontiguousarray(features, dtype=np.float32)
        usable = np.isfinite(features).all(axis=1)
        scored = np.where(usable[:, None], features, np.float32(0))
        scores = {
            "neural_net": self.network.run(None, {"features": scored})[0],
            "xgboost": self.trees.inplace_predict(scored, validate_features=False),
        }
        probability = self._probability(scores)
        raised = {model: scores[model] >= limit for model, limit in self.document["thresholds"].items()}
        is_fraud = raised["neural_net"] | raised["xgboost"]
        loss = self.document.get("expected_loss")
        amount = scored[:, -1].astype(np.float64)
        raised["expected_loss"] = (
            np.zeros(len(scored), bool) if loss is None else probability * amount >= loss["bound"]
        )
        decision = np.where(is_fraud | raised["expected_loss"], "review", "approve").astype(object)
        decision[raised["neural_net"] & raised["xgboost"]] = "decline"
        decision[~usable] = "refused"
        answer = {
            **{f"{model}_score": np.where(usable, score, np.nan) for model, score in scores.items()},
            "fraud_probability": np.where(usable, probability, np.nan),
            "decision": decision,
            "is_fraud": is_fraud & usable,
            "raised_by": [
                ";".join(name for name, rows in raised.items() if rows[i] and usable[i])
                for i in range(len(scored))
            ],
        }
        return pd.DataFrame(answer, index=model_input.index)

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
