"""What the demo prints at its end leads to what it tells of."""

from types import SimpleNamespace
from typing import cast

import pytest

from demo.pipeline import Links
from demo.summary import Summary


@pytest.mark.parametrize("address", ["http://127.0.0.1:5000", "http://127.0.0.1:5000/"])
def test_the_link_to_mlflow_leads_to_the_models(address: str) -> None:
    """MLflow's first page is a welcome, which says nothing of what was trained."""
    links = Links(service="http://127.0.0.1:3000", bridge_metrics="", mlflow=address)
    shown = dict(Summary._links(cast("Summary", SimpleNamespace(links=links))))
    assert shown["MLflow"] == "http://127.0.0.1:5000/#/models"
