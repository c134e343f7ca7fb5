"""Invented transactions with the statistics of the real set: none of them was ever made.

The numbers in ``simulation_parameters.json`` were estimated from two genuine subsets of the ULB set
(Dal Pozzolo et al., "Calibrating Probability with Undersampling for Unbalanced Classification", IEEE
CIDM 2015): all 492 frauds and 18,809 genuine rows drawn from both days, and the first 7,972 rows in
order. Genuine rows of the first three hours come from the latter with weight 1, later ones from the
former with the weight that makes 284,315 of them; the 25 frauds in both were counted once.

Each class is a mixture of groups, and each group a t copula: a latent row ``z * sqrt(d / chi2_d)`` with
``z`` normal and correlated, of which every feature is a monotone function. The function runs through
weighted quantiles of the feature in that group (the knots), which fixes mean, spread, skew and tails; an
amount that is common, such as 1.00, has a knot at either end of its share. The correlation is a mean of
those of normal scores, of ranks (`usual`) and of values (`far`, `moderate`, `extreme`), shrunk towards
none in the small groups; ``d`` is the likeliest of 3 to 20 for the genuine rows, and smaller where a
group is all tail.

========  ============================================================================================
usual     genuine, 99 %
far       genuine, like the 1 % farthest from the mean: large amounts, tails in many features at once
odd       genuine, like the 0.15 % that a cross-validated logistic regression suspects most
hidden    fraud that looks genuine: scored below the top 0.25 % of genuine rows by cross-validated trees
moderate  fraud in between
extreme   the other frauds with V17 < -8
========  ============================================================================================

A few genuine rows in 100,000 are drawn from `moderate` and `extreme`: what every model takes for fraud.
Their share and those of `far`, `odd` and `hidden` are not counted but adjusted, until logistic
regression and boosted trees found the invented rows as hard as the real ones. Time follows the hourly
counts of each class (those of fraud smoothed), in the order of a latent variable that is correlated with
the features, so they drift over the two days as in the real set; and as there, some rows are exact
repeats. There are no customers or cards: nothing links one transaction to another.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.pattern_change import PatternChange, change_pattern
from training.data.transactions import FEATURES, TRANSACTION_ID
from training.data.writing import SUFFIXES, write_frame
from training.errors import UsageError
from training.settings.paths import require_path
from training.settings.sections import SimulateSettings

PREVALENCE = 492 / 284_807
ROWS = 284_807
_PARAMETERS = Path(__file__).with_name("simulation_parameters.json")
_CLASSES = ("genuine", "fraud")

FloatArray = NDArray[np.float64]


def simulate(rows: int, seed: int, *, prevalence: float = PREVALENCE) -> pd.DataFrame:
    """Return invented transactions, the 31 columns of a data file in order of Time.

    Parameters
    ----------
    rows : int
        Number of transactions, at least 2.
    seed : int
        At least 0. The same rows, seed and prevalence give the same transactions.
    prevalence : float
        Share of fraud in (0, 1), rounded to whole rows but never to none; the real set's by default.

    Raises
    ------
    UsageError
        If `rows`, `seed` or `prevalence` is out of range.

    Examples
    --------
    >>> frame = simulate(5_000, seed=1)
    >>> frame.shape, int(frame["Class"].sum())
    ((5000, 31), 9)
    """
    if rows < 2 or seed < 0 or not 0 < prevalence < 1:
        raise UsageError(
            f"cannot simulate {rows} rows with seed {seed} and prevalence {prevalence}: "
            "give at least 2 rows, a seed from 0 up and a prevalence between 0 and 1"
        )
    rng = np.random.default_rng(seed)
    frauds = min(rows - 1, max(1, round(rows * prevalence)))
    classes = [_draw_class(rng, kind, n) for kind, n in zip(_CLASSES, (rows - frauds, frauds), strict=True)]
    values = np.hstack(classes)
    label = np.repeat(np.array([0, 1], np.int8), [rows - frauds, frauds])
    order = np.argsort(values[0], kind="stable")
    columns = {name: row[order] for name, row in zip(FEATURES, values, strict=True)}
    return pd.DataFrame({**columns, "Class": label[order]}, copy=False)


def simulate_file(settings: SimulateSettings) -> str:
    """Write a data file as the settings say, with a `transaction_id` for each row where they ask for it.

    Returns
    -------
    str
        One sentence on what was written.

    Raises
    ------
    UsageError
        If the file cannot be one, or the settings make no sense together.
    """
    path = require_path(settings.output, "--output")
    if path.suffix.lower() not in SUFFIXES or not path.parent.is_dir():
        raise UsageError(f"{path}: must be a {' or '.join(SUFFIXES)} file in a folder that exists")
    frame = simulate(settings.rows, settings.seed, prevalence=settings.prevalence)
    said = f"{settings.rows:,} simulated transactions, {int(frame['Class'].sum())} frauds"
    if settings.change_at is not None:
        change = PatternChange(
            settings.change_at,
            settings.changed_fraud_share,
            settings.changed_feature,
            settings.changed_feature_shift,
        )
        frame = change_pattern(frame, change, settings.seed)
        said += f", the pattern changes after {settings.change_at:.0%}"
    if settings.transaction_ids:
        frame.insert(0, TRANSACTION_ID, [f"sim-{settings.seed}-{row}" for row in range(1, len(frame) + 1)])
    write_frame(frame, path)
    return f"{said}: {path}"


@cache
def _parameters() -> dict[str, Any]:
    parameters: dict[str, Any] = json.loads(_PARAMETERS.read_text(encoding="utf-8"))
    return parameters


def _draw_class(rng: np.random.Generator, kind: str, rows: int) -> FloatArray:
    """Return [30, rows]: Time, V1..V28, Amount of one class, in no order."""
    parameters = _parameters()
    mixture = parameters["mixture"][kind]
    counts = _apportion(rows, np.array(list(mixture.values())))
    values = np.hstack([_draw_group(rng, name, n) for name, n in zip(mixture, counts, strict=True)])
    values[0] = _time_of_rank(rng, values[0], np.array(parameters["hourly"][kind]))
    repeated, copied = rng.permutation(rows)[: 2 * round(rows * parameters["repeats"][kind])].reshape(2, -1)
    values[:, repeated] = values[:, copied]
    return values


def _apportion(rows: int, shares: FloatArray) -> NDArray[np.intp]:
    """Return whole numbers that add up to `rows` and are nearest to the shares (largest remainder)."""
    exact = rows * shares / shares.sum()
    counts: NDArray[np.intp] = np.floor(exact).astype(np.intp)
    short = rows - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:short]] += 1
    return counts


def _draw_group(rng: np.random.Generator, name: str, rows: int) -> FloatArray:
    """Return [30, rows]: a latent time, then V1..V28 and Amount."""
    group = _parameters()["groups"][name]
    latent: FloatArray = _factor(name) @ rng.standard_normal((len(FEATURES), rows))
    freedom = group["degrees_of_freedom"]
    # Time is only ranked: the rows that are extreme in many features are not extreme in time.
    latent[1:] *= np.sqrt(freedom / rng.chisquare(freedom, rows))
    latent[0] += group["time_shift"]
    for row, column in zip(latent[1:], FEATURES[1:], strict=True):
        positions, digits = ("amount_latent", 2) if column == "Amount" else ("latent", 6)
        row[:] = np.round(np.interp(row, group[positions], group["knots"][column]), digits)
    return latent


def _factor(name: str) -> FloatArray:
    """Return the Cholesky factor of a group's correlation of Time, V1..V28, Amount."""
    groups = _parameters()["groups"]
    rows = groups[groups[name].get("correlation_of", name)]["correlation"]
    matrix = np.eye(len(FEATURES))
    for i, row in enumerate(rows.values()):
        matrix[i, :i] = matrix[:i, i] = row
    return np.asarray(np.linalg.cholesky(matrix), np.float64)


def _time_of_rank(rng: np.random.Generator, latent: FloatArray, hourly: FloatArray) -> FloatArray:
    """Return whole seconds in the order of `latent`, distributed like the hourly counts."""
    passed = np.concatenate([[0.0], np.cumsum(hourly) / hourly.sum()])
    seconds = np.interp(np.sort(rng.random(len(latent))), passed, 3600.0 * np.arange(len(passed)))
    time = np.empty(len(latent))
    time[np.argsort(latent, kind="stable")] = np.floor(seconds)
    return time
