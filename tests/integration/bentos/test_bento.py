"""`bentoml build`: the bento holds the active pair and nothing newer, and serves like the project folder."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.serving_fixtures import (
    ROOT,
    encoded,
    free_tcp_port,
    service,
    store_model,
    store_release,
    write_record,
)

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


def test_the_bento_serves_what_was_packed_whatever_becomes_active_in_the_store(
    built_home: Path, tmp_path: Path, transaction: dict[str, Any]
) -> None:
    home = tmp_path / "bentoml"
    shutil.copytree(built_home, home)
    store_release(home, "9", is_other=True)
    write_record(home, active="9")
    tag = (home / "bentos" / "fraud_detection" / "latest").read_text()
    options: dict[str, Any] = {"target": [f"fraud_detection:{tag}"], "cwd": tmp_path}
    with service(home, tmp_path / "service.log", **options) as bento:
        for active in ("7", "9"):
            write_record(home, active=active)
            time.sleep(1.0)  # several looks at the store
            assert httpx.get(f"{bento.url}/info", timeout=5).json()["release"] == "7"
            answer = httpx.post(f"{bento.url}/classify", json=transaction, timeout=10).json()
            assert answer["models"] == {"neural_net": "fraud_neural_net:7", "xgboost": "fraud_xgboost:7"}


def test_the_bento_refuses_to_serve_another_release_than_its_own(built_home: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(BIN / "bentoml"), "serve", "fraud_detection:latest", "--port", str(free_tcp_port())],
        cwd=tmp_path,
        env={**os.environ, "BENTOML_HOME": str(built_home), "SERVING__RELEASE": "9"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "This bento was built with release 7 and serves no other" in done.stderr
