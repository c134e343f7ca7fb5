"""The commands of docs/operations.md for a cluster, word for word, on what answers `kubectl` like one."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.integration.deployment import test_kubernetes as manifests
from tests.integration.deployment.cluster import Cluster

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
NAMESPACE = "fraud-detection"
# Nothing is built, pushed, copied or forwarded here: of these it is seen that command and flags exist.
ONLY_PARSED = '*" cp "*|*" port-forward "*'
STAND_INS = {
    "make": "exit 0",
    "docker": "exit 0",
    "kubectl": f'case " $* " in {ONLY_PARSED}) exec {KUBECTL} "$@" --help;; esac; exec {KUBECTL} "$@"',
}
CONTEXT = {
    "apiVersion": "v1",
    "kind": "Config",
    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    "current-context": "here",
    "users": [{"name": "me", "user": {}}],
}


def commands(heading: str, with_: str) -> str:
    """Return the commands of the chapters under `heading` whose block holds `with_`, as they stand there."""
    chapter = OPERATIONS.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = [block for block in re.findall(r"```bash\n(.*?)```", chapter, flags=re.DOTALL) if with_ in block]
    assert blocks, f"{heading} has no commands with {with_}"
    return "".join(blocks)


class Shell:
    """A shell in a checkout, whose `kubectl` asks `cluster`."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        (folder / "configs").mkdir()
        shutil.copytree(manifests.FOLDER, folder / "configs" / "kubernetes")
        tools = folder / "tools"
        tools.mkdir()
        for name, script in STAND_INS.items():
            (tools / name).write_text(f"#!/bin/sh\n{script}\n")
            (tools / name).chmod(0o755)
        (folder / ".docker").mkdir()
        (folder / ".docker" / "config.json").write_text(
            '{"auths": {"registry.example.com": {"auth": "YTpi"}}}'
        )
        servers = [{"name": "here", "cluster": {"server": cluster.url}}]
        (folder / "kubeconfig").write_text(yaml.safe_dump(CONTEXT | {"clusters": servers}))
        self._env = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(folder),
            "KUBECONFIG": str(folder / "kubeconfig"),
        }

    def run(self, script: str, **variables: str) -> str:
        """Run commands; each must succeed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self._env | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(manifests.check) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path) -> Shell:
    return Shell(tmp_path, cluster)


@pytest.fixture
def first_steps(cluster: Cluster, shell: Shell) -> str:
    """Return what the chapter's commands print, all of them run in turn."""
    return shell.run(commands("Kubernetes: the first steps", with_=""))


def test_first_steps_make_everything(first_steps: str, cluster: Cluster) -> None:
    made = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests.BASE}
    kept = {(one["kind"], one["metadata"]["name"]) for one in cluster.objects.values()}
    assert made <= kept
    assert 'deployment "fraud-detection" successfully rolled out' in first_steps
    assert "pod/loader condition met" in first_steps
    assert 'pod "loader" deleted' in first_steps
    assert "job.batch/first created" in first_steps


def test_secrets_have_what_pods_mount(first_steps: str, cluster: Cluster) -> None:
    kept = cluster.objects["secrets", NAMESPACE, "api-keys"]["data"]
    for _, template in manifests.pods():
        for volume in template["spec"].get("volumes", []):
            if "secret" in volume:
                assert {item["key"] for item in volume["secret"]["items"]} <= kept.keys()


def test_images_are_pulled_with_the_registrys_secret(first_steps: str, cluster: Cluster) -> None:
    account = cluster.objects["serviceaccounts", NAMESPACE, "default"]
    (secret,) = account["imagePullSecrets"]
    assert ("secrets", NAMESPACE, secret["name"]) in cluster.objects


def test_a_release_is_upgraded_and_keys_rotate(first_steps: str, shell: Shell, cluster: Cluster) -> None:
    shell.run(commands("Upgrade", with_="kubectl"), REGISTRY="registry.example.com")
    service = cluster.objects["deployments", NAMESPACE, "fraud-detection"]["spec"]["template"]["spec"]
    assert service["containers"][0]["image"].endswith("fraud_detection:release-13")
    with (shell.folder / "secrets" / "api-keys").open("a") as file:
        file.write("another\n")
    said = shell.run(commands("Rotate keys", with_="kubectl"))
    assert "statefulset.apps/bridge restarted" in said
    kept = cluster.objects["secrets", NAMESPACE, "api-keys"]["data"]
    assert set(kept) == {"api-keys", "api-key"}


def test_whatever_sends_the_key_is_started_again(shell: Shell) -> None:
    """A monitor or a shadow that went on with the old key would be refused from the last step on."""
    senders = {
        (manifest["kind"], manifest["metadata"]["name"])
        for file in manifests.FOLDER.rglob("*.yaml")
        for manifest in yaml.safe_load_all(file.read_text())
        if "STREAMING__SERVICE__API_KEY_FILE" in str(manifest)
    }
    shell.run("kubectl apply -f configs/kubernetes/namespace.yaml")
    with (shell.folder / "configs" / "kubernetes" / "kustomization.yaml").open("a") as file:
        file.write("components: [store-volume, monitor, shadow]\n")
    shell.run("kubectl apply -k configs/kubernetes")
    (shell.folder / "secrets").mkdir()
    for name in ("api-key", "api-keys"):
        (shell.folder / "secrets" / name).write_text("a-key\n")
    said = shell.run(commands("Rotate keys", with_="kubectl"))
    restarted = set(re.findall(r"statefulset.apps/(\S+) restarted", said))
    assert {("StatefulSet", name) for name in restarted} == senders
    assert {"bridge", "monitor", "bridge-shadow"} <= restarted


def test_a_misspelt_manifest_would_be_refused(shell: Shell) -> None:
    shell.run("kubectl create namespace fraud-detection")
    file = shell.folder / "configs" / "kubernetes" / "bridge.yaml"
    file.write_text(file.read_text().replace("podManagementPolicy", "podManagementPolize"))
    with pytest.raises(AssertionError, match="podManagementPolize"):
        shell.run("kubectl apply -k configs/kubernetes")


def inline_commands() -> list[str]:
    """Return the `kubectl` commands that stand in sentences and tables, without what is to be filled in."""
    prose = re.sub(r"```.*?```", "", OPERATIONS, flags=re.DOTALL)
    return sorted({" ".join(one.split()).rstrip(" …") for one in re.findall(r"`(kubectl -[^`]+)`", prose)})


@pytest.mark.parametrize("command", inline_commands())
def test_commands_in_sentences_are_kubectls(shell: Shell, command: str) -> None:
    """What they do needs a cluster; that there is such a command, with such flags, does not."""
    command, *_ = command.split(" -- ")  # what follows runs in a pod
    said = shell.run(f"{command} --help")
    words = [word for word in command.split() if "/" not in word and not word.startswith("-")]
    group = words[2:4] if words[2] == "rollout" else words[2:3]  # after kubectl and the namespace
    assert re.search(rf"Usage:\s+kubectl {' '.join(group)} ", said), said


def variants() -> list[str]:
    """Return the lines by which each component says how it is used."""
    files = sorted(manifests.FOLDER.glob("*/kustomization.yaml"))
    return [re.search(r"components: \[.*\]", file.read_text())[0] for file in files]  # type: ignore[index]


@pytest.mark.parametrize("variant", variants())
def test_every_variant_is_applied(shell: Shell, cluster: Cluster, variant: str) -> None:
    shell.run("kubectl apply -f configs/kubernetes/namespace.yaml")
    with (shell.folder / "configs" / "kubernetes" / "kustomization.yaml").open("a") as file:
        file.write(f"{variant}\n")
    shell.run("kubectl apply -k configs/kubernetes")
    shell.run("kubectl apply -k configs/kubernetes")  # again: nothing to change is no fault
    assert len(cluster.objects) > len(manifests.BASE)
