"""The block ``monitor`` of ``configs/streaming.yaml``."""

from itertools import pairwise
from pathlib import Path

from pydantic import Field, field_validator

from streaming.settings.sections import Section

HTTP = r"^https?://[^/\s]+"


class MonitorSettings(Section):
    """What the monitor keeps, from where it learns about releases, and when it raises an alarm."""

    state: Path = Field(Path(".monitor"), description="Folder of the database; each monitor has its own.")
    host: str = Field("127.0.0.1", min_length=1, description="Address that the page and its data bind.")
    port: int = Field(9465, ge=0, le=65_535, description="Its port; 0: any free port.")
    partitions: tuple[int, ...] | None = Field(
        None,
        description="Partitions to read, such as [0, 1], where several monitors share the work; null: all.",
    )
    label_delay_days: float = Field(
        90.0,
        gt=0,
        le=3650,
        description="How long a transaction waits for its label, and a label for its transaction, days.",
    )
    bucket_s: int = Field(
        300, ge=1, le=3600, description="Width of the finest time slices that are counted, seconds."
    )
    refresh_s: float = Field(
        5.0, gt=0, le=300, description="How often figures and alarms are worked out anew, seconds."
    )
    stale_after_s: float = Field(
        900.0, gt=0, description="Older than this the newest transaction makes the figures stale, seconds."
    )
    max_batch_records: int = Field(
        10_000, ge=1, le=100_000, description="Most records in one transaction of the database."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of every interval that is shown.")
    review_cost: float = Field(
        1.0,
        ge=0,
        description="Cost of an alarm, account currency, where the release does not say its own.",
    )
    amount_bands: tuple[float, ...] = Field(
        (100.0, 250.0, 500.0),
        description="Bounds of the amount bands of the fraud rate, account currency (PSD2: 100, 250, 500).",
    )
    info_url: str | None = Field(
        None,
        pattern=HTTP,
        description="Address of the champion's GET /info; null: beside service.classify_url.",
    )
    shadow_info_url: str | None = Field(
        None,
        pattern=HTTP,
        description="Address of the challenger's GET /info; null: no challenger is served.",
    )
    info_refresh_s: float = Field(10.0, gt=0, le=3600, description="How often /info is asked, seconds.")
    alarm_window_s: float = Field(
        86_400.0,
        gt=0,
        le=691_200,
        description="Quality alarms look at the labels of the last so many seconds, 8 days at most.",
    )
    alarm_confidence: float = Field(
        0.999,
        gt=0.5,
        lt=1,
        description="Confidence that an alarm wants; high, since figures are looked at often.",
    )
    min_frauds: int = Field(
        20, ge=1, description="Fewer labelled frauds (for precision: labelled alarms) raise no quality alarm."
    )
    recall_tolerance: float = Field(
        0.05, ge=0, lt=1, description="How far recall may lie below what the release promised."
    )
    precision_tolerance: float = Field(
        0.2, ge=0, lt=1, description="How far precision may lie below what the release promised."
    )
    alarm_rate_factor: float = Field(
        3.0, gt=1, description="How many times the promised alarm rate, or what part of it, is an alarm."
    )

    @field_validator("amount_bands")
    @classmethod
    def _ascend(cls, bounds: tuple[float, ...]) -> tuple[float, ...]:
        if not bounds or bounds[0] <= 0 or any(high <= low for low, high in pairwise(bounds)):
            raise ValueError("wants ascending bounds above 0, such as [100, 250, 500]")
        return bounds

    @field_validator("partitions")
    @classmethod
    def _differ(cls, partitions: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if partitions is not None and (not partitions or len(set(partitions)) < len(partitions)):
            raise ValueError("wants partitions that differ, such as [0, 1], or null for all")
        return tuple(sorted(partitions)) if partitions else None
