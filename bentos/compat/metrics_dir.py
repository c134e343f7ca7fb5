"""Gives each service on a machine a metrics folder of its own.

BentoML (1.4.40) keeps the files of prometheus_client's multiprocess mode in one folder per BENTOML_HOME and
empties it at start: a second service, ours or any other, would delete the metrics of the first, whose
``/metrics`` then hangs.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import lru_cache

from bentoml._internal.configuration.containers import BentoMLContainer

from bentos.compat.assumptions import require

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
NAME = "prometheus_multiproc_dir"


def check_assumptions() -> None:
    """Return if BentoML's container says where metrics are kept.

    Raises
    ------
    BrokenAssumptionError
        If BentoML takes the folder from somewhere else.
    """
    folder = getattr(BentoMLContainer, NAME, None)
    is_settable = hasattr(folder, "set") and hasattr(folder, "get")
    require("bentoml", f"`BentoMLContainer.{NAME}` sets where metrics are kept", is_settable)


@lru_cache(maxsize=1)
def use_own_metrics_dir() -> None:
    """Make BentoML keep the metrics of the service that this process starts in a folder of their own."""
    if VARIABLE in os.environ:
        return  # a worker: the first process has chosen
    folder = tempfile.mkdtemp(prefix="fraud-detection-metrics-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    BentoMLContainer.prometheus_multiproc_dir.set(folder)
