"""One decision as it is encoded; `bentos.schemas` publishes its form."""

from typing import Any

import msgspec


class ModelScores(msgspec.Struct, gc=False):
    """Each model's own output; `bentos.schemas.Scores` is its published form."""

    neural_net: float
    xgboost: float


class DecisionMessage(msgspec.Struct, gc=False, omit_defaults=True):
    """One decision, ready to encode; `bentos.schemas.Decision` is its published form."""

    transaction_id: str | msgspec.UnsetType
    decision: str
    is_fraud: bool
    fraud_probability: float
    risk_level: str
    raised_by: msgspec.Raw
    scores: ModelScores
    release: str
    models: msgspec.Raw
    reasons: Any = msgspec.UNSET
    reasons_for: Any = msgspec.UNSET
