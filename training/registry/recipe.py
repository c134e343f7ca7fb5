"""What makes two trainings the same: data, split, settings and the code that fits."""

from __future__ import annotations

import hashlib
from pathlib import Path

from training.settings.load import Settings

# A change here would give another model; one of plots, tracking or commands would not.
FITTING_FOLDERS = ("data", "models", "evaluation")
# Settings of what commands do besides fitting.
COMMAND_SETTINGS = {"held_out", "if_changed", "if_none", "challenge", "score", "simulate"}
# Settings that only say where, how fast or how long kept, or judge what was fitted.
NOT_IN_RECIPE = {
    "data",
    "known_samples",
    "threads",
    "device",
    "tracking_uri",
    "gate",
    "store",
} | COMMAND_SETTINGS


def recipe_key(settings: Settings) -> str:
    """Return text that is equal when the same data would give the same release."""
    digest = hashlib.sha256(settings.model_dump_json(exclude=NOT_IN_RECIPE).encode())
    package = Path(__file__).parents[1]
    for folder in FITTING_FOLDERS:
        for file in sorted((package / folder).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
