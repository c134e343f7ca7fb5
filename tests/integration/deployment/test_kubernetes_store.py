"""The variant with a store on a volume: what training makes active is where the service looks for it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "configs" / "kubernetes"


def image_home(dockerfile: str) -> str:
    """Return the BENTOML_HOME of an image."""
    text = (ROOT / "configs" / "docker" / dockerfile).read_text()
    return text.split("BENTOML_HOME=")[1].split()[0]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, which holds kustomize")
def test_service_and_training_share_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, folder)
    with (folder / "kustomization.yaml").open("a") as file:
        file.write("components: [store-volume]\n")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = {(part["kind"], part["metadata"]["name"]): part for part in yaml.safe_load_all(done.stdout)}
    assert ("PersistentVolumeClaim", "models") in parts
    service = parts["Deployment", "fraud-detection"]["spec"]["template"]["spec"]
    training = parts["CronJob", "training"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert mount(service) == (f"{image_home('service.Dockerfile')}/models", True)
    assert mount(training) == (f"{image_home('training.Dockerfile')}/models", False)


def mount(pod: dict[str, Any]) -> tuple[str, bool]:
    """Return where the claim `models` is mounted, and whether only to be read."""
    volume = next(
        v for v in pod["volumes"] if v.get("persistentVolumeClaim", {}).get("claimName") == "models"
    )
    found = next(m for m in pod["containers"][0]["volumeMounts"] if m["name"] == volume["name"])
    return found["mountPath"], found.get("readOnly", False)
