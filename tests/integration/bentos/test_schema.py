"""schemathesis over the published document: the service keeps to what it publishes, whatever comes in."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving_fixtures import Served

CLI = Path(sys.executable).parent / "schemathesis"


# A list over the cap is refused with 413 here, which schemathesis does not count among refusals by itself.
CONFIGURATION = """
[checks]
negative_data_rejection.expected-statuses = ["400", "401", "404", "405", "413", "415"]
"""


@pytest.mark.timeout(170)
def test_the_service_keeps_to_its_document(served: Served, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    done = subprocess.run(
        [
            *(str(CLI), "run", f"{served.url}/docs.json", "--url", served.url),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1"),
            *("--request-timeout", "20", "--no-color", "--suppress-health-check", "all"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=160,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Traceback" not in served.log.read_text()
