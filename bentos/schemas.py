"""Transaction and Decision: the HTTP contract as pydantic models, published in the OpenAPI document.

The fast path decodes with msgspec (`bentos.classify.decoding`); a test holds both to the same verdicts.
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
    """A feature that moved the score."""

    feature: str = Field(description="Name of the feature.")
    contribution: float = Field(
        description="Log-odds of fraud_probability this feature added; negative: made it less suspicious."
    )


class Decision(BaseModel):
    """What to do with one transaction, and why."""

    transaction_id: str | None = Field(
        default=None,
        max_length=MAX_ID_CHARACTERS,
        description="As in the transaction; absent where it had none.",
    )
    decision: Literal["approve", "review", "decline"] = Field(
        description="decline: both models are alarmed; review: one alone; approve: neither."
    )
    is_fraud: bool = Field(description="The decision is not approve.")
    fraud_probability: float = Field(ge=0, le=1, description="Calibrated, at the prevalence of the stream.")
    risk_level: Literal["LOW", "MEDIUM", "HIGH"] = Field(description="One for one with the decision.")
    scores: Scores
    release: str = Field(description="The version under which models and thresholds were promoted together.")
    models: Models
    reasons: list[Reason] | None = Field(
        default=None, description="With ?explain=true: the features that moved the score most."
    )
