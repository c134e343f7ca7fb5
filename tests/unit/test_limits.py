"""What training accepts and what serving accepts come from the same limits."""

from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[2] / "configs"


def test_training_and_serving_have_the_same_limits() -> None:
    training, serving = (
        yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["limits"] for name in ("training", "serving")
    )
    assert training == serving
