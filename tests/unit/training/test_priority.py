"""Commands that change what running services serve let those services go first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Says what a command has done to its process once the command is to begin its work.
PROGRAM = """
import atexit, gc, json, os, sys
import training.commands.promotion as promotion
from training import __main__ as command_line

def say(*_, **__):
    print(json.dumps([os.nice(0), gc.get_threshold()[0], sorted(sys.modules)]))

for name in ("import_command", "promote_command", "rollback_command"):
    setattr(promotion, name, say)
command_line.main()
"""
SLOW_TO_IMPORT = {"pandas", "scipy", "sklearn", "torch", "xgboost", "bentoml", "mlflow"}


@pytest.mark.parametrize("command", [("import",), ("promote", "1"), ("rollback",)])
def test_a_command_beside_a_service_lets_it_go_first(command: tuple[str, ...]) -> None:
    """Its priority is lower than ours, and nothing heavy is imported before it is."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    niceness, threshold, modules = json.loads(done.stdout)
    assert niceness == min(os.nice(0) + 5, 19)
    assert threshold == 100_000
    assert not SLOW_TO_IMPORT & set(modules)
