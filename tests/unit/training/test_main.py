"""What the command line settles before any command begins."""

import os
import subprocess
import sys

PROGRAM = """
import os
from training import __main__ as command_line

def say():
    print("✓ done", *(os.environ[name] for name in ("MLFLOW_DISABLE_TELEMETRY", "BENTOML_DO_NOT_TRACK")))

command_line.app = say
command_line.main()
"""
TELEMETRY = ("MLFLOW_DISABLE_TELEMETRY", "BENTOML_DO_NOT_TRACK")


def run(**variables):
    kept = {name: value for name, value in os.environ.items() if name not in TELEMETRY}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**kept, **variables},
        capture_output=True,
        timeout=120,
        check=True,
    ).stdout


def test_telemetry_is_off_unless_the_environment_turns_it_on():
    assert run().split()[-2:] == [b"true", b"True"]
    assert run(MLFLOW_DISABLE_TELEMETRY="false", BENTOML_DO_NOT_TRACK="False").split()[-2:] == [
        b"false",
        b"False",
    ]


def test_output_that_is_not_utf_8_ends_no_command():
    assert b"done" in run(PYTHONIOENCODING="ascii", PYTHONUTF8="0")
