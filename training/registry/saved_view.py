"""The view of the releases that MLflow's UI offers: which columns its table of runs shows, in which order.

The UI chooses columns in the browser and begins with source, models and data. What it can be given is a saved
view: a tag of the experiment, listed in its menu *Views*, and an address of its own.
"""

from __future__ import annotations

import json

NAME = "Releases"
KEY = "releases"
TAG = f"mlflow.sharedViewState.{KEY}"
# Outside any section: what releases are compared by.
FIGURES = ("average_precision", "recall", "precision", "cost_saved")
# Pixels, so that the last column is seen beside the UI's panels; the gate's sentence begins with its verdict.
_WIDTHS = {f"metrics.`{FIGURES[0]}`": 140, "tags.`gate`": 90}


def view_link(experiment_id: str) -> str:
    """Return the address of the view within the UI."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={KEY}"


def view_state() -> str:
    """Return the view as the UI reads it, the value of ``TAG``."""
    columns = [*(f"metrics.`{name}`" for name in FIGURES), "tags.`gate`", "tags.`alias`"]
    state = {"selectedColumns": columns, "columnOrder": columns, "columnWidths": _WIDTHS}
    return json.dumps({"name": NAME, "createdAt": 0, "state": json.dumps(state)})
