"""BentoML asks whether to report usage before it imports a service, and remembers the answer."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from bentoml._internal.utils.analytics import usage_stats
before = usage_stats.do_not_track()
import bentos.service
try:
    bentos.service.FraudDetection.inject_config()
except SystemExit:
    pass  # no release to serve here
print(before, usage_stats.do_not_track())
"""


@pytest.mark.parametrize(("variable", "asked"), [(None, "False True"), ("False", "False False")])
def test_usage_is_not_reported_unless_the_environment_asks_for_it(tmp_path, variable, asked):
    known = {name: value for name, value in os.environ.items() if name != "BENTOML_DO_NOT_TRACK"}
    chosen = {} if variable is None else {"BENTOML_DO_NOT_TRACK": variable}
    environment = {**known, **chosen, "BENTOML_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == [asked], done.stderr
