"""Checks that a loaded model scores as it did when it was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bentos.errors import ReleaseError
from bentos.releases.release import FEATURE_NAMES
from bentos.rows import Rows

REFERENCE_FILE = "reference.json"
# Another processor rounds float32 in another order: some 1e-7. A wrong model is off by far more.
TOLERANCE = 1e-5


def check_reference(folder: Path, model: str, score: Callable[[Rows], Rows]) -> None:
    """Return if the model scores its reference batch as when it was trained.

    Parameters
    ----------
    folder : Path
        The model's files; ``reference.json`` lies among them. An import by an older version has none: then
        the scores are only checked to be scores.
    model : str
        ``neural_net`` or ``xgboost``: whose scores to compare with.
    score : callable
        Rows of features to scores.

    Raises
    ------
    ReleaseError
        If it does not.
    """
    rows, expected = _read(folder / REFERENCE_FILE, model)
    try:
        scores = score(rows)
    except Exception as error:  # each library has its own for a model it cannot run
        raise ReleaseError(f"{folder} cannot score its reference batch.") from error
    if scores.shape != (len(rows),) or not np.all((scores >= 0) & (scores <= 1)):
        raise ReleaseError(f"{folder} does not give scores for its reference batch.")
    if expected is None:
        return
    difference = float(np.abs(scores - expected).max())
    if not difference <= TOLERANCE:
        raise ReleaseError(
            f"{folder} does not score its reference batch as when it was trained (off by {difference:.2g})."
        )


def _read(path: Path, model: str) -> tuple[Rows, npt.NDArray[np.float64] | None]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return np.array(document["features"], np.float32), np.array(document[model], np.float64)
    except FileNotFoundError:
        return np.zeros((1, len(FEATURE_NAMES)), np.float32), None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ReleaseError(f"{path} is damaged.") from error
