"""The blocks ``label`` and ``export`` of ``configs/streaming.yaml``: labels in, labelled transactions out."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from streaming.settings.sections import BOUND, Section


class LabelSettings(Section):
    """Which labels are sent, and how."""

    data: Path | None = Field(
        None,
        description="CSV or parquet file with transaction_id (else the row number, as replay counts), Class "
        "or is_fraud (empty: withdrawn), and perhaps labelled_at_ms and origin; null: none, name one.",
    )
    origin: Literal["chargeback", "investigation", "control"] = Field(
        "chargeback", description="Where the labels come from, for rows that do not say."
    )
    limit: int | None = Field(None, ge=1, description="Largest number of rows to read; null: all.")
    rate: float = Field(
        0.0, ge=0, le=10_000_000, description="Labels per second; 0: as fast as the broker takes them."
    )
    tick_ms: float = Field(
        10.0, gt=0, le=1000, description="Labels are sent in ticks of this length, milliseconds."
    )
    delivery_timeout_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="The command fails when the broker does not acknowledge a record for this long, seconds.",
    )


class ExportSettings(Section):
    """Which labelled transactions are written."""

    output: Path | None = Field(None, description="Parquet file to write; null: none, name one.")
    begin: str = Field("earliest", description=f"Start of the range: {BOUND}.")
    end: str = Field("latest", description=f"End of the range, not included: {BOUND}.")
    label_delay_days: float = Field(
        90.0,
        ge=0,
        le=3650,
        description="An approved transaction without a label counts as genuine after this many days.",
    )
