"""How many pods the cluster's README asks for, held to what docs/benchmarks.md measured."""

import re

from tests.conftest import ROOT
from tests.integration.deployment.test_kubernetes import FOLDER, containers


def test_sizing_rests_on_what_was_measured() -> None:
    """Halved, as said beside the table; a slower measurement must change the table."""
    measured = (ROOT / "docs" / "benchmarks.md").read_text()
    bridge = re.search(r"one bridge, topic to topic, transactions/s \| ([\d,]+)", measured)
    service = re.search(r"lists of 100 / 300 / 1000, rows/s \| ([\d,]+)", measured)
    assert bridge and int(bridge[1].replace(",", "")) >= 18_000
    assert service and int(service[1].replace(",", "")) >= 200_000
    table = (FOLDER / "README.md").read_text()
    assert "| bridges (`minReplicaCount`) | 2, one would do | 3, two would do | 16, of which 4" in table
    cores = re.search(r"requested \| [\d.]+; ([\d.]+) \| [\d.]+; ([\d.]+) \| [\d.]+; ([\d.]+) \|", table)
    assert cores and [float(found) for found in cores.groups()] == [
        bridges * cpu("StatefulSet-bridge") + replicas * cpu("Deployment-fraud-detection")
        for bridges, replicas in ((2, 2), (3, 2), (16, 3))
    ]


def cpu(name: str) -> float:
    cores: str = dict(containers())[name]["resources"]["requests"]["cpu"]
    return int(cores[:-1]) / 1000 if cores.endswith("m") else float(cores)
