"""The manifests, held offline to the types of the Kubernetes API and to what images and settings offer."""

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import yaml
from lightkube.models.core_v1 import Container, Service
from pydantic import BaseModel, ConfigDict, Field

from streaming.settings.load import Settings as StreamingSettings
from tests.conftest import ROOT
from training.errors import GateRefusedError

FOLDER = ROOT / "configs" / "kubernetes"
# What manifests and documented commands make, and the module of lightkube-models that declares it.
DECLARED = {
    ("v1", "Namespace"): "core_v1",
    ("v1", "PersistentVolumeClaim"): "core_v1",
    ("v1", "Pod"): "core_v1",
    ("v1", "Service"): "core_v1",
    ("v1", "Secret"): "core_v1",
    ("v1", "ConfigMap"): "core_v1",
    ("apps/v1", "Deployment"): "apps_v1",
    ("apps/v1", "StatefulSet"): "apps_v1",
    ("batch/v1", "CronJob"): "batch_v1",
    ("batch/v1", "Job"): "batch_v1",
    ("policy/v1", "PodDisruptionBudget"): "policy_v1",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "autoscaling_v2",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networking_v1",
}


class Strict(BaseModel):
    """Refuses what it does not know: a misspelt key is silently ignored by a cluster."""

    model_config = ConfigDict(extra="forbid")


class Metadata(Strict):
    """Name and labels; namespace and annotations are added on the way."""

    name: str
    namespace: str = ""
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}


class Target(Strict):
    """What is scaled."""

    apiVersion: Literal["apps/v1"]  # noqa: N815
    kind: Literal["Deployment", "StatefulSet"]
    name: str


class KafkaLag(Strict):
    """Metadata of KEDA's scaler `kafka`; all text, as KEDA wants it."""

    bootstrapServers: str  # noqa: N815
    consumerGroup: str  # noqa: N815
    topic: str
    lagThreshold: str = Field(pattern=r"^\d+$")  # noqa: N815
    offsetResetPolicy: Literal["earliest", "latest"]  # noqa: N815
    allowIdleConsumers: Literal["true", "false"]  # noqa: N815


class Trigger(Strict):
    """One reason to scale."""

    type: Literal["kafka"]
    metadata: KafkaLag


class ScaledSpec(Strict):
    """KEDA's ScaledObject, the part used here."""

    scaleTargetRef: Target  # noqa: N815
    minReplicaCount: int = Field(ge=0)  # noqa: N815
    maxReplicaCount: int = Field(ge=1)  # noqa: N815
    pollingInterval: int  # noqa: N815
    cooldownPeriod: int  # noqa: N815
    advanced: dict[str, Any]
    triggers: list[Trigger] = Field(min_length=1)


class ScaledObject(Strict):
    """https://keda.sh/docs/latest/reference/scaledobject-spec/ ."""

    apiVersion: Literal["keda.sh/v1alpha1"]  # noqa: N815
    kind: Literal["ScaledObject"]
    metadata: Metadata
    spec: ScaledSpec


class Image(Strict):
    """An image that kustomize renames."""

    name: str
    newName: str  # noqa: N815
    newTag: str  # noqa: N815


class Kustomization(Strict):
    """kustomization.yaml."""

    apiVersion: Literal["kustomize.config.k8s.io/v1beta1"]  # noqa: N815
    kind: Literal["Kustomization"]
    namespace: str
    labels: list[dict[str, Any]]
    resources: list[str]
    images: list[Image]
    configMapGenerator: list[dict[str, Any]]  # noqa: N815


class Component(Strict):
    """kustomization.yaml of a component."""

    apiVersion: Literal["kustomize.config.k8s.io/v1alpha1"]  # noqa: N815
    kind: Literal["Component"]
    resources: list[str]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


KUSTOMIZATION = Kustomization.model_validate(documents("kustomization.yaml")[0])
BASE = [document for name in KUSTOMIZATION.resources for document in documents(name)]
# Beside the base, for those who want them.
COMPONENTS = ("monitor", "shadow")
MANIFESTS = BASE + [
    document
    for component in COMPONENTS
    for name in Component.model_validate(documents(f"{component}/kustomization.yaml")[0]).resources
    for document in documents(f"{component}/{name}")
]
# Applied by hand once; read by Prometheus.
LOADER = documents("loader.yaml")[0]
SCRAPE = yaml.safe_load((FOLDER / "prometheus-scrape.yml").read_text())["scrape_configs"]
RULES = ROOT / "configs" / "prometheus"


def find(kind: str, name: str) -> dict[str, Any]:
    return next(m for m in MANIFESTS if (m["kind"], m["metadata"]["name"]) == (kind, name))


def identify(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


def unknown_keys(given: Any, understood: Any, place: str = "") -> list[str]:
    """Return the places of `given` that the typed form did not take over."""
    if isinstance(given, dict) and isinstance(understood, dict):
        return [
            fault
            for key, value in given.items()
            for fault in (
                unknown_keys(value, understood[key], f"{place}.{key}")
                if key in understood
                else [f"{place}.{key}"] * (value not in (None, {}, []))
            )
        ]
    if isinstance(given, list) and isinstance(understood, list):
        pairs = enumerate(zip(given, understood, strict=True))
        return [fault for at, (one, other) in pairs for fault in unknown_keys(one, other, f"{place}[{at}]")]
    return []


def check(manifest: dict[str, Any]) -> list[str]:
    """Hold `manifest` to the types of its kind; wrong types raise, unknown keys are returned."""
    if manifest["kind"] == "ScaledObject":
        ScaledObject.model_validate(manifest)
        return []
    module = DECLARED[manifest["apiVersion"], manifest["kind"]]
    declared = getattr(importlib.import_module(f"lightkube.models.{module}"), manifest["kind"])
    typed = msgspec.convert(manifest, declared)
    return unknown_keys(manifest, msgspec.to_builtins(typed))


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Return the pod templates by the name of what makes them."""
    found = []
    for manifest in MANIFESTS:
        spec = manifest.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            found.append((identify(manifest), template))
    return found


def containers() -> list[tuple[str, dict[str, Any]]]:
    return [(name, one) for name, template in pods() for one in template["spec"]["containers"]]


@pytest.mark.parametrize("manifest", [*MANIFESTS, LOADER], ids=identify)
def test_manifest_is_what_the_api_declares(manifest: dict[str, Any]) -> None:
    assert check(manifest) == []


def test_misspelt_and_mistyped_manifests_would_be_found() -> None:
    container = {"name": "a", "imagePullPolice": "Always"}
    typed = msgspec.to_builtins(msgspec.convert(container, Container))
    assert unknown_keys(container, typed) == [".imagePullPolice"]
    with pytest.raises(msgspec.ValidationError, match=r"spec\.type"):
        msgspec.convert({"spec": {"type": 7}}, Service)


def test_every_file_is_part_of_the_kustomization() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "loader.yaml"}
    assert files == set(KUSTOMIZATION.resources)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, which holds kustomize")
def test_kustomize_puts_it_together() -> None:
    made = kustomize(FOLDER)
    assert len(made) == len(BASE) + len(KUSTOMIZATION.configMapGenerator)
    names = {one["metadata"].get("namespace", one["metadata"]["name"]) for one in made}
    assert names == {KUSTOMIZATION.namespace}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, which holds kustomize")
def test_kustomize_adds_monitor_and_shadow(tmp_path: Path) -> None:
    folder = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, folder)
    with (folder / "kustomization.yaml").open("a") as file:
        file.write("components: [store-volume, monitor, shadow]\n")
    made = kustomize(folder)
    claim = 1  # of store-volume
    assert len(made) == len(MANIFESTS) + len(KUSTOMIZATION.configMapGenerator) + claim
    parts = {(one["kind"], one["metadata"]["name"]): one for one in made}
    pod = parts["StatefulSet", "monitor"]["spec"]["template"]["spec"]
    image = next(one for one in KUSTOMIZATION.images if one.name == "fraud-detection-monitor")
    assert pod["containers"][0]["image"] == f"{image.newName}:{image.newTag}"
    # The generated name, with its hash, has reached the component too.
    assert pod["containers"][0]["envFrom"][0]["configMapRef"]["name"].startswith("bridge-")


def kustomize(folder: Path) -> list[dict[str, Any]]:
    """Return what ``kubectl apply -k`` would send."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_images_are_the_ones_named_and_pinned() -> None:
    named = {image.name for image in KUSTOMIZATION.images}
    assert {container["image"] for _, container in containers()} == named
    assert all(image.newTag and image.newTag != "latest" for image in KUSTOMIZATION.images)


@pytest.mark.parametrize(("name", "container"), containers())
def test_container_has_limits_and_no_privileges(name: str, container: dict[str, Any]) -> None:
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]) == {"requests", "limits"}
    if not name.startswith("CronJob"):
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


def test_refusal_of_the_gate_is_not_trained_a_second_time() -> None:
    parts = yaml.safe_load_all((FOLDER / "training.yaml").read_text())
    job = next(part for part in parts if part["kind"] == "CronJob")["spec"]["jobTemplate"]["spec"]
    rule = job["podFailurePolicy"]["rules"][0]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [GateRefusedError.exit_code])


@pytest.mark.parametrize(("name", "template"), pods())
def test_pod_is_not_root_and_its_mounts_exist(name: str, template: dict[str, Any]) -> None:
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1034
    assert spec["automountServiceAccountToken"] is False
    volumes = {volume["name"] for volume in spec.get("volumes", [])} | set(claims_of_its_own(name))
    for container in spec["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def claims_of_its_own(name: str) -> list[str]:
    """Return the volumes that each pod of a set gets for itself."""
    (spec,) = [m["spec"] for m in MANIFESTS if identify(m) == name]
    return [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])]


def test_claims_are_made_and_the_loader_fills_what_training_reads() -> None:
    claims = {m["metadata"]["name"] for m in BASE if m["kind"] == "PersistentVolumeClaim"}
    wanted, filled = claimed(dict(pods())["CronJob-training"]["spec"]), claimed(LOADER["spec"])
    assert claims == wanted == filled
    assert LOADER["metadata"]["namespace"] == KUSTOMIZATION.namespace
    training = next(image for image in KUSTOMIZATION.images if image.name == "fraud-detection-training")
    assert LOADER["spec"]["containers"][0]["image"] == f"{training.newName}:{training.newTag}"


def claimed(spec: dict[str, Any]) -> set[str]:
    volumes = [one["persistentVolumeClaim"] for one in spec["volumes"] if "persistentVolumeClaim" in one]
    return {volume["claimName"] for volume in volumes}


def test_probes_and_services_name_ports_that_there_are() -> None:
    ports = {name: {one["name"] for one in container.get("ports", [])} for name, container in containers()}
    for name, container in containers():
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                assert container[probe]["httpGet"]["port"] in ports[name], (name, probe)
    for service in (m for m in MANIFESTS if m["kind"] == "Service"):
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports[behind(service["spec"]["selector"])]


def behind(labels: dict[str, str]) -> str:
    """Return the name of what makes the pods with these labels."""
    (name,) = [name for name, template in pods() if labels.items() <= template["metadata"]["labels"].items()]
    return name


def test_network_policies_open_the_ports_that_are_listened_on() -> None:
    listening = {name: {one["containerPort"] for one in c.get("ports", [])} for name, c in containers()}
    for policy in (m["spec"] for m in MANIFESTS if m["kind"] == "NetworkPolicy"):
        labels = policy["podSelector"].get("matchLabels")
        for rule in policy.get("ingress", []):
            assert {port["port"] for port in rule["ports"]} == listening[behind(labels)]
        for rule in policy.get("egress", []):
            for peer in rule["to"]:
                if "podSelector" in peer:
                    target = behind(peer["podSelector"]["matchLabels"])
                    assert {port["port"] for port in rule["ports"]} == listening[target]


def test_addresses_agree_with_network_policies() -> None:
    """Whoever changes an address meets the policy that would block it."""
    opened = {
        (name, namespace, port["port"])
        for policy in (m for m in MANIFESTS if m["kind"] == "NetworkPolicy")
        for name in [policy["metadata"]["name"]]
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        for namespace in peer.get("namespaceSelector", {}).get("matchLabels", {}).values()
        for port in rule["ports"]
    }
    for name, variable in (("bridge", "KAFKA_BOOTSTRAP_SERVERS"), ("training", "MLFLOW_TRACKING_URI")):
        host, port = literals(name)[variable].removeprefix("http://").rsplit(":", 1)
        assert (name, host.split(".")[1], int(port)) in opened


def test_key_files_are_where_their_secret_is_mounted() -> None:
    for name, template in pods():
        spec = template["spec"]
        for container in spec["containers"]:
            files = [Path(one["value"]) for one in container.get("env", []) if one["name"].endswith("_FILE")]
            secrets = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
            mounted = {
                Path(mount["mountPath"], item["path"])
                for mount in container["volumeMounts"]
                if mount["name"] in secrets
                for item in secrets[mount["name"]]["items"]
            }
            assert set(files) == mounted, name


def test_jobs_are_scraped_under_the_names_that_the_rules_ask_for() -> None:
    asked = set(re.findall(r'job="(\w+)"', (RULES / "alerts.yml").read_text()))
    assert {job["job_name"] for job in SCRAPE} == asked
    for job in SCRAPE:
        assert job["kubernetes_sd_configs"][0]["namespaces"]["names"] == [KUSTOMIZATION.namespace]
        rules = job["relabel_configs"]
        kept = {one["source_labels"][0]: one["regex"] for one in rules if one.get("action") == "keep"}
        scraped = re.compile(kept["__meta_kubernetes_pod_label_app_kubernetes_io_name"])
        names = [label for label in app_labels() if scraped.fullmatch(label)]
        assert names
        for label in names:
            ports = {one["name"] for one in dict(containers())[behind({APP: label})]["ports"]}
            assert kept["__meta_kubernetes_pod_container_port_name"] in ports
            environments = {environment(rules, label), "fraud-detection-shadow"}
            assert len(environments) == (1 if label.endswith("-shadow") else 2)
        assert all(not rule.get("target_label", "").startswith("job") for rule in job["relabel_configs"])


APP = "app.kubernetes.io/name"


def app_labels() -> list[str]:
    return [template["metadata"]["labels"][APP] for _, template in pods()]


def environment(rules: list[dict[str, Any]], label: str) -> str:
    """Return the label `environment` that the rules give a pod, as Prometheus applies them."""
    found = ""
    known = {
        "__meta_kubernetes_namespace": KUSTOMIZATION.namespace,
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": label,
    }
    for rule in (one for one in rules if one.get("target_label") == "environment"):
        value = rule.get("separator", ";").join(known[name] for name in rule["source_labels"])
        match = re.fullmatch(rule.get("regex", "(.*)"), value)
        if match:
            found = match.expand(rule.get("replacement", "$1").replace("$1", r"\1"))
    return found


def test_replicas_spread_over_nodes() -> None:
    """A node that dies must not take every bridge, or every replica of the service, with it."""
    for name in ("Deployment-fraud-detection", "StatefulSet-bridge"):
        template = dict(pods())[name]
        (spread,) = template["spec"]["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def first_steps() -> list[str]:
    """Return the commands of the chapter for a stranger, one a line."""
    chapter = (ROOT / "docs" / "operations.md").read_text().split("\n## Kubernetes: the first steps\n")[1]
    blocks = re.findall(r"```bash\n(.*?)```", chapter, flags=re.DOTALL)
    return "".join(blocks).replace("\\\n", " ").splitlines()


def test_first_steps_name_one_registry_everywhere(tmp_path: Path) -> None:
    """The command of the chapter, run: no manifest keeps the example registry."""
    (tmp_path / "configs").mkdir()
    shutil.copytree(FOLDER, tmp_path / "configs" / "kubernetes")
    (command,) = [line for line in first_steps() if line.startswith("sed -i")]
    variables = {"REGISTRY": "registry.bank.test:5000", "VERSION": "0.4.2", "RELEASE": "release-12"}
    subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"} | variables, check=True
    )
    copied = tmp_path / "configs" / "kubernetes"
    images = yaml.safe_load((copied / "kustomization.yaml").read_text())["images"]
    assert {f"{image['newName']}:{image['newTag']}" for image in images} == {
        "registry.bank.test:5000/fraud_detection:release-12",
        "registry.bank.test:5000/fraud-detection-bridge:0.4.2",
        "registry.bank.test:5000/fraud-detection-monitor:0.4.2",
        "registry.bank.test:5000/fraud-detection-training:0.4.2",
    }
    loader = yaml.safe_load((copied / "loader.yaml").read_text())
    assert (
        loader["spec"]["containers"][0]["image"] == "registry.bank.test:5000/fraud-detection-training:0.4.2"
    )


def test_first_steps_wait_as_long_as_an_image_takes() -> None:
    """`kubectl wait` gives up after 30 s by itself; the training image has 1.6 GB."""
    waits = [
        line for line in first_steps() if "kubectl" in line and (" wait " in line or "rollout status" in line)
    ]
    assert len(waits) == 3
    assert all("--timeout=15m" in line for line in waits)
    assert not any(line.startswith("kustomize ") for line in first_steps())


def test_mlflow_answers_under_its_name_in_the_cluster() -> None:
    """Its check of the Host header refuses every name that `--allowed-hosts` does not list."""
    security = pytest.importorskip("mlflow.server.security_utils")
    allowed = re.search(r"--allowed-hosts=(\S+?)`", (ROOT / "docs" / "operations.md").read_text())
    assert allowed
    host = literals("training")["MLFLOW_TRACKING_URI"].removeprefix("http://")
    assert security.is_allowed_host_header(allowed[1].split(","), host)
    assert not security.is_allowed_host_header(["localhost:*"], host)


def test_drains_are_not_held_up_by_what_is_not_ready() -> None:
    for budget in (m["spec"] for m in MANIFESTS if m["kind"] == "PodDisruptionBudget"):
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_selectors_meet_their_pods() -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pods()}
    for manifest in MANIFESTS:
        spec = manifest.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector"))
        if not selector:
            continue
        wanted = selector.get("matchLabels", selector)
        assert any(wanted.items() <= one.items() for one in labels.values()), identify(manifest)


def test_scalers_name_what_exists_and_leave_the_number_to_one_of_them() -> None:
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for manifest in (m for m in MANIFESTS if m["kind"] == kind):
            target = manifest["spec"]["scaleTargetRef"]
            assert "replicas" not in find(target["kind"], target["name"])["spec"]


def literals(name: str) -> dict[str, str]:
    generated = next(one for one in KUSTOMIZATION.configMapGenerator if one["name"] == name)
    return dict(literal.split("=", 1) for literal in generated["literals"])


def test_bridge_never_scales_beyond_its_partitions() -> None:
    values = literals("bridge")
    spec = find("ScaledObject", "bridge")["spec"]
    trigger = spec["triggers"][0]["metadata"]
    assert spec["maxReplicaCount"] == int(values["STREAMING__TOPICS__PARTITIONS"])
    assert trigger["bootstrapServers"] == values["KAFKA_BOOTSTRAP_SERVERS"]
    defaults = StreamingSettings.model_construct()
    assert trigger["consumerGroup"] == defaults.bridge.group
    assert trigger["topic"] == defaults.topics.input


def test_bridge_is_known_by_its_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the manifests are settings of the bridge, so a misspelt one cannot hide."""
    from streaming.settings.load import load_settings

    container = dict(containers())["StatefulSet-bridge"]
    values = literals("bridge") | {
        variable["name"]: variable.get("value", "bridge-3") for variable in container["env"]
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.bridge.instance_id == "bridge-3"
    assert settings.service.api_key_file == Path("/run/secrets/fraud-detection/api-key")
    assert settings.service.classify_url == "http://fraud-detection/classify"


def test_service_gets_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from bentos.settings.load import load_settings

    for variable in dict(containers())["Deployment-fraud-detection"]["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    keys = load_settings().security.api_keys_file
    assert keys == Path("/run/secrets/fraud-detection/api-keys")


def test_secrets_are_in_no_manifest() -> None:
    assert "Secret" not in {manifest["kind"] for manifest in MANIFESTS}
