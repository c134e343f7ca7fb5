"""Transaction and Decision: the HTTP contract as pydantic models, published in the OpenAPI document.

The fast path decodes with msgspec (`bentos.classify.decoding`); a test holds that both agree.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from bentos.releases.release import FEATURE_NAMES
from bentos.settings.sections import LimitSettings

MAX_ID_CHARACTERS = 128
MEANINGS = {
    "Time": "Seconds since the first transaction of the stream.",
    "Amount": "Amount in the account's currency.",
}


def feature_range(name: str, limits: LimitSettings) -> tuple[float, float]:
    """Return the smallest and the largest value the feature `name` may have."""
    if name == "Time":
        return 0.0, limits.time_max_s
    if name == "Amount":
        return 0.0, limits.amount_max
    return -limits.component_max, limits.component_max


@lru_cache(maxsize=4)
def transaction_model(limits: LimitSettings) -> type[BaseModel]:
    """Return the pydantic model of one transaction under `limits`.

    Strict: what is not a JSON number is not a number. Fields beyond the contract's are ignored.
    """
    fields: dict[str, Any] = {}
    for name in FEATURE_NAMES:
        smallest, largest = feature_range(name, limits)
        meaning = MEANINGS.get(name, f"Principal component {name[1:]}.")
        fields[name] = (
            Annotated[float, Field(ge=smallest, le=largest, allow_inf_nan=False, description=meaning)],
            ...,
        )
    fields["transaction_id"] = (
        Annotated[str, Field(max_length=MAX_ID_CHARACTERS, description="Comes back in the decision.")],
        Field(default=""),
    )
    return create_model(
        "Transaction",
        __config__=ConfigDict(strict=True, extra="ignore", frozen=True),
        __doc__="One card payment: the 30 features of the ULB set, and an optional identity.",
        **fields,
    )


class Scores(BaseModel):
    """Each model's own output; higher is more suspicious."""

    neural_net: float = Field(ge=0, le=1, description="The network's score.")
    xgboost: float = Field(ge=0, le=1, description="The trees' score.")


class Models(BaseModel):
    """Tags in the BentoML model store."""

    neural_net: str = Field(description="The network's tag.")
    xgboost: str = Field(description="The trees' tag.")


class Reason(BaseModel):
    """A feature that moved the score which is explained."""

    feature: str = Field(description="Name of the feature.")
    contribution: float = Field(
        description="Log-odds this feature added to the score; negative: made it less suspicious."
    )


class ReasonsFor(BaseModel):
    """What the reasons explain: base value and the contributions of all 30 features sum to the log-odds."""

    score: Literal["neural_net", "xgboost", "fraud_probability"] = Field(
        description="The score of the one model that is alarmed; fraud_probability where both or none are."
    )
    base_value: float = Field(description="Log-odds before any feature is looked at.")
    log_odds: float = Field(description="Log-odds of the score.")


class Decision(BaseModel):
    """What to do with one transaction, and why."""

    transaction_id: str | None = Field(
        default=None,
        max_length=MAX_ID_CHARACTERS,
        description="As in the transaction; absent where it had none.",
    )
    decision: Literal["approve", "review", "decline"] = Field(
        description="decline: both models are alarmed; review: one alone, or the expected loss reaches the "
        "release's bound; approve: none of these."
    )
    is_fraud: bool = Field(description="A model is alarmed.")
    fraud_probability: float = Field(ge=0, le=1, description="Calibrated, at the prevalence of the stream.")
    risk_level: Literal["LOW", "MEDIUM", "HIGH"] = Field(description="One for one with the decision.")
    raised_by: list[Literal["neural_net", "xgboost", "expected_loss"]] = Field(
        description="What asked for a review or a decline; empty for approve."
    )
    scores: Scores
    release: str = Field(description="The version under which models and thresholds were promoted together.")
    models: Models
    reasons: list[Reason] | None = Field(
        default=None, description="With ?explain: the features that moved the score most."
    )
    reasons_for: ReasonsFor | None = Field(default=None, description="With ?explain: what they explain.")
