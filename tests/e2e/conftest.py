"""What the container tests share, and those on three brokers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from demo.brokers import Broker
from tests.e2e.cluster import Cluster, open_cluster


@pytest.fixture(scope="session")
def session_cluster(session_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield three genuine brokers for the whole session; idle groups soon lose their offsets."""
    if not session_broker.is_genuine:
        pytest.skip("needs genuine Kafka (KAFKA_HOME)")
    expiry = {"offsets_retention_minutes": "1", "offsets_retention_check_interval_ms": "3000"}
    with open_cluster(tmp_path_factory.mktemp("cluster") / "kafka", **expiry) as cluster:
        yield cluster


@pytest.fixture
def cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """Yield three brokers, all of them running before and after."""
    session_cluster.repair()
    yield session_cluster
    session_cluster.repair()


@pytest.fixture(scope="session")
def transactions(release_home: Path) -> list[dict[str, Any]]:
    """Return 1,000 transactions that the release never saw."""
    rows = pd.read_parquet(release_home / "held_out.parquet").head(1000)
    return [
        {name: value for name, value in row.items() if name not in ("Class", "sample_weight")}
        for row in rows.to_dict("records")
    ]
