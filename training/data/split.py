"""Split transactions into training, validation and test rows, at random or by time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.data.row_keys import row_keys
from training.data.transactions import IndexArray, Transactions
from training.errors import DataError
from training.settings.load import Settings

# Share of the stream before the first origin: less would leave too few frauds to fit.
_FIRST_ORIGIN = 0.4


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint row indices of one data set; together they are all rows."""

    protocol: str  # "random" or "temporal"
    train: IndexArray
    validation: IndexArray
    test: IndexArray


def split_key(settings: Settings) -> str:
    """Return text that is equal when the same data would be split into the same parts."""
    parts = settings.split.model_dump()
    if settings.protocol == "temporal":
        del parts["seed"]
    return json.dumps({"protocol": settings.protocol, **parts}, sort_keys=True)


def split_by_protocol(data: Transactions, settings: Settings) -> Split:
    """Split by the protocol and shares of the settings."""
    validation, test = settings.split.validation_share, settings.split.test_share
    if settings.protocol == "temporal":
        return split_temporal(data, validation_fraction=validation, test_fraction=test)
    return split_random(data, seed=settings.split.seed, validation_fraction=validation, test_fraction=test)


def split_as(key: str, data: Transactions, settings: Settings) -> Split:
    """Split as another training did, from what its ``split_key`` was."""
    recorded = json.loads(key)
    protocol = recorded.pop("protocol")
    split = settings.split.model_copy(update=recorded)
    return split_by_protocol(data, settings.model_copy(update={"protocol": protocol, "split": split}))


def split_random(
    data: Transactions, *, seed: int, validation_fraction: float = 0.15, test_fraction: float = 0.15
) -> Split:
    """Split at random, each part with its share of frauds; exact repeats of a row stay on one side.

    Raises
    ------
    DataError
        If a part would be left without a fraud or without a genuine row.
    """
    _, first, group = np.unique(row_keys(data.features), return_index=True, return_inverse=True)
    group_label = data.required_label[first]
    size = np.bincount(group)
    part = np.zeros(len(first), np.int8)
    rng = np.random.default_rng(seed)
    for label in (0, 1):
        members = rng.permutation(np.flatnonzero(group_label == label))
        # Where the middle of each group falls: a lone fraud goes to the part that needs it most.
        reached = (np.cumsum(size[members]) - size[members] / 2) / size[members].sum()
        part[members] = np.searchsorted([test_fraction, test_fraction + validation_fraction], reached, "left")
    row_part = part[group]
    train, validation, test = (np.flatnonzero(row_part == number) for number in (2, 1, 0))
    return _checked(data, Split("random", train, validation, test))


def split_temporal(
    data: Transactions, *, validation_fraction: float = 0.15, test_fraction: float = 0.15
) -> Split:
    """Split by time: train on the past, validate on what follows, test on the end.

    Fractions count transactions of the stream (weights). Indices are in order of Time; transactions of
    the same second stay on one side, and with them exact repeats.

    Raises
    ------
    DataError
        If a part would be left without a fraud or without a genuine row.
    """
    order = np.argsort(data.time, kind="stable")
    time = data.time[order]
    passed = np.cumsum(data.sample_weight[order]) / data.sample_weight.sum()
    cuts = np.searchsorted(passed, [1 - test_fraction - validation_fraction, 1 - test_fraction])
    start_validation, start_test = np.searchsorted(time, time[np.minimum(cuts, len(time) - 1)])
    parts = np.split(order, [start_validation, start_test])
    return _checked(data, Split("temporal", *parts))


def split_rolling(data: Transactions, *, windows: int, validation_fraction: float = 0.15) -> Iterator[Split]:
    """Yield splits with rolling origins: each tests on one window and knows only what came before it.

    The windows divide the last 60 % of the stream. One split by time tells of one window, which a few frauds
    decide; several tell how much windows differ.

    Raises
    ------
    DataError
        If a part would be left without a fraud or without a genuine row.
    """
    order = np.argsort(data.time, kind="stable")
    time = data.time[order]
    passed = np.cumsum(data.sample_weight[order]) / data.sample_weight.sum()
    bounds = _FIRST_ORIGIN + (1 - _FIRST_ORIGIN) * np.arange(windows + 1) / windows
    for start, end in itertools.pairwise(bounds):
        cuts = np.searchsorted(passed, [start * (1 - validation_fraction), start, min(end, 1.0)])
        inner = np.searchsorted(time, time[np.minimum(cuts, len(time) - 1)])
        last = len(time) if end >= 1 else inner[2]
        yield _checked(
            data,
            Split("rolling", order[: inner[0]], order[inner[0] : inner[1]], order[inner[1] : last]),
        )


def _checked(data: Transactions, split: Split) -> Split:
    for part in ("train", "validation", "test"):
        rows = getattr(split, part)
        frauds = int(data.required_label[rows].sum())
        if not 0 < frauds < len(rows):
            raise DataError(
                f"{data.name}: the {split.protocol} split leaves the {part} part with {len(rows)} rows and "
                f"{frauds} of {data.frauds} frauds; use more data, larger parts or another protocol"
            )
    return split
