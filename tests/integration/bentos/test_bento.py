"""`bentoml build`: the bento holds the active pair and nothing newer, and serves like the project folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.serving_fixtures import ROOT, encoded, service, store_model

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def built_home(small_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the bento from a store where an import was cut short after its first half."""
    home = tmp_path_factory.mktemp("built") / "bentoml"
    shutil.copytree(small_home, home)
    store_model(home, "fraud_neural_net", "8")
    done = subprocess.run(
        [str(BIN / "bentoml"), "build"],
        cwd=ROOT,
        env={
            **os.environ,
            "BENTOML_HOME": str(home),
            "BENTOML_DO_NOT_TRACK": "True",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def test_the_bento_holds_the_active_pair(built_home: Path) -> None:
    folder = built_home / "bentos" / "fraud_detection"
    bento = folder / (folder / "latest").read_text()
    described = yaml.safe_load((bento / "bento.yaml").read_text())
    models = [model["tag"] for service_ in described["services"] for model in service_.get("models", [])]
    assert sorted(models) == ["fraud_neural_net:7", "fraud_xgboost:7"]
    published = yaml.safe_load((bento / "apis" / "openapi.yaml").read_text())
    assert published["paths"]["/classify"]["post"]["operationId"] == "classify"
    assert (bento / "src" / "configs" / "serving.yaml").is_file()
    assert not list((bento / "src").glob("training*"))


def test_the_bento_serves_as_the_project_folder_does(
    built_home: Path, tmp_path: Path, transactions: list[dict[str, Any]], served: Any
) -> None:
    options = {"target": ["fraud_detection:latest"], "cwd": tmp_path}
    with service(built_home, tmp_path / "service.log", **options) as bento:
        answers = [
            httpx.post(
                f"{running.url}/classify",
                content=encoded(transactions[:50]),
                headers={"content-type": "application/json"},
                timeout=30,
            ).json()
            for running in (bento, served)
        ]
    assert answers[0] == answers[1]
