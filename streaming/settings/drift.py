"""The block ``drift`` of ``configs/streaming.yaml``: when the monitor takes a difference for drift."""

from pydantic import Field

from streaming.settings.sections import Section


class DriftSettings(Section):
    """When the inputs and scores of a stream count as drifted from what the release was fitted on."""

    min_divergence: float = Field(
        0.03,
        ge=0,
        le=10,
        description="Smallest population stability index that matters; a shift by a tenth of a standard "
        "deviation has 0.01, by a fifth 0.04, by a half 0.25.",
    )
    variation_factor: float = Field(
        1.6,
        ge=1,
        le=100,
        description="Factor by which a window may exceed the greatest variation of the training data, which "
        "follows the hour of the day.",
    )
    false_alarm_transactions: float = Field(
        3e10,
        ge=1e6,
        le=1e15,
        description="Chance alone raises one alarm in this many transactions, all features together; "
        "the default is about a year at 1,000/s.",
    )
