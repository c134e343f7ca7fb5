"""What the container tests share."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest


@pytest.fixture(scope="session")
def transactions(release_home: Path) -> list[dict[str, Any]]:
    """Return 1,000 transactions that the release never saw."""
    rows = pd.read_parquet(release_home / "held_out.parquet").head(1000)
    return [
        {name: value for name, value in row.items() if name not in ("Class", "sample_weight")}
        for row in rows.to_dict("records")
    ]
