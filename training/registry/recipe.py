"""What makes two trainings the same: data, split, settings and the code that fits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from training.settings import Settings

# What a change of would give another model; plots, tracking and commands would not.
FITTING_FOLDERS = ("data", "models", "evaluation")
# What commands do besides fitting.
ERRANDS = {"held_out", "if_changed", "if_none", "score", "simulate"}
# Settings that only say where or how fast, or judge what was fitted.
IRRELEVANT = {"data", "known_samples", "threads", "device", "tracking_uri", "gate"} | ERRANDS


def split_key(settings: Settings) -> str:
    """Return text that is equal when the same data would be split into the same parts."""
    parts = settings.split.model_dump()
    if settings.protocol == "temporal":
        del parts["seed"]
    return json.dumps({"protocol": settings.protocol, **parts}, sort_keys=True)


def recipe_key(settings: Settings) -> str:
    """Return text that is equal when the same data would give the same release."""
    digest = hashlib.sha256(settings.model_dump_json(exclude=IRRELEVANT).encode())
    package = Path(__file__).parents[1]
    for folder in FITTING_FOLDERS:
        for file in sorted((package / folder).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
