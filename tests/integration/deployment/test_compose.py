"""The compose file and the images: consistent with each other, with pyproject.toml and with the settings."""

import fnmatch
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from tests.conftest import ROOT

DOCKER = ROOT / "configs" / "docker"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BENTOFILE = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TLS = "SERVING__SECURITY__TLS__"
DOCKERFILES = sorted([*DOCKER.glob("*.Dockerfile"), DOCKER / "bento.Dockerfile.j2"])
# Images of this project, by the service that builds them.
BUILT = {service["image"]: name for name, service in SERVICES.items() if "build" in service}
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def environment(service: str) -> dict[str, str]:
    """Return the variables of a service that have a value."""
    return {k: str(v) for k, v in SERVICES[service].get("environment", {}).items() if v is not None}


def instructions(dockerfile: Path, name: str) -> list[str]:
    text = dockerfile.read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, flags=re.MULTILINE)


def is_sent_to_the_engine(path: str) -> bool:
    """Apply .dockerignore as far as it is used here: `*`, then exceptions, folders included."""
    wanted = [rule[1:] for rule in IGNORED if rule.startswith("!")]
    return any(fnmatch.fnmatch(path, rule) or path.startswith(f"{rule}/") for rule in wanted)


def test_file_is_understood_by_old_and_new_compose() -> None:
    # `version` draws a warning from v2, `name` and `develop` are refused by v1.29.
    assert set(COMPOSE) - {key for key in COMPOSE if key.startswith("x-")} == {"services", "volumes"}
    # v1.29 applies limits under `deploy` only when told to.
    assert all(
        "deploy" not in service and {"mem_limit", "cpus"} <= service.keys() for service in SERVICES.values()
    )


def resolved(file: Path) -> str:
    """Return the file with defaults for variables and without YAML's merges, as Compose reads it."""
    return yaml.safe_dump(yaml.safe_load(re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", file.read_text())))


@pytest.mark.parametrize(
    "file", [ROOT / "docker-compose.yml", DOCKER / "secured.yml"], ids=lambda path: path.stem
)
def test_file_keeps_to_the_compose_specification(file: Path) -> None:
    """By a strict parser of the specification that Compose v2 follows."""
    compose_spec.PyCompose.from_yaml(resolved(file)).validate()


@pytest.mark.parametrize(("key", "value"), [("mem_limitt", "1g"), ("restart", "sometimes"), ("cpus", "many")])
def test_what_the_specification_does_not_know_would_be_found(key: str, value: str) -> None:
    document = yaml.safe_load(resolved(ROOT / "docker-compose.yml"))
    document["services"]["kafka"][key] = value
    with pytest.raises(ValueError, match="kafka"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(document))


def test_each_image_is_built_once_and_before_others_use_it() -> None:
    """Compose v2 builds all at once: two builds of one tag fail with "already exists"."""
    assert len(BUILT) == sum("build" in service for service in SERVICES.values())
    for service in SERVICES.values():
        if "build" not in service and service["image"] in BUILT:
            assert BUILT[service["image"]] in service["depends_on"]


@pytest.mark.parametrize("files", [[], ["configs/docker/secured.yml"]], ids=["plain", "secured"])
def test_compose_accepts_it(files: list[str]) -> None:
    command = _compose()
    if command is None:
        pytest.skip("needs docker-compose")
    arguments = [flag for name in ["docker-compose.yml", *files] for flag in ("-f", name)]
    done = subprocess.run(
        [*command, *arguments, "config", "-q"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _compose() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return command
    return None


def test_profiles() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {
        "train": ["train"],
        "replay": ["replay"],
        "service-shadow": ["shadow"],
        "bridge-shadow": ["shadow"],
        "grafana": ["dashboards"],
        "kafka-ui": ["dashboards"],
    }


def test_images_of_others_are_pinned() -> None:
    for name, service in SERVICES.items():
        if service["image"] not in BUILT:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_ports_open_on_the_loopback_address_each_by_a_switch_of_its_own() -> None:
    """Who opens the service to callers must not open Kafka or MLflow, which ask nobody who he is."""
    for name, service in SERVICES.items():
        own = name.upper().replace("-", "_")
        for port in service.get("ports", []):
            assert port.startswith(f"${{{own}_ADDRESS:-127.0.0.1}}:${{{own}_PORT:-"), name


def test_others_reach_it_under_the_name_that_is_advertised() -> None:
    advertised = environment("kafka")["KAFKA_ADVERTISED_LISTENERS"]
    assert "HOST://${ADVERTISED_HOST:-localhost}:${KAFKA_PORT:-9092}" in advertised
    (allowed,) = [flag for flag in SERVICES["mlflow"]["command"] if flag.startswith("--allowed-hosts=")]
    assert allowed.endswith(",${ADVERTISED_HOST:-localhost}:*")


def test_what_keeps_running_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        if service["restart"] != "no":
            assert "healthcheck" in service or instructions(_dockerfile(service), "HEALTHCHECK"), name


def test_volumes_are_declared_and_used() -> None:
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith(".")
    }
    assert used == set(COMPOSE["volumes"])


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (ROOT / volume.split(":")[0]).exists(), volume


def test_order_rests_on_health() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            target = SERVICES[other]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in target or instructions(_dockerfile(target), "HEALTHCHECK"), name
            if how["condition"] == "service_completed_successfully":
                assert target["restart"] == "no", name
    assert list(SERVICES["service"]["depends_on"]) == ["release"]
    assert set(SERVICES["bridge"]["depends_on"]) == {"kafka", "service"}


def _dockerfile(service: dict[str, Any]) -> Path:
    built = service if "build" in service else SERVICES[BUILT[service["image"]]]
    return ROOT / built["build"]["dockerfile"]


def test_our_containers_have_no_privileges() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        # What the README says of the others: they write beside their volumes.
        assert service.get("read_only", False) == (name not in {"kafka", "grafana", "kafka-ui"}), name


def test_prometheus_scrapes_what_is_there() -> None:
    jobs = yaml.safe_load((ROOT / "configs" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    for name in ("service", "bridge", "monitor"):
        port = SERVICES[name]["ports"][0].rsplit(":", 1)[1]
        assert targets[name] == [f"{name}:{port}"]


def test_alerts_go_where_something_listens() -> None:
    """Prometheus knows Alertmanager, which knows a receiver for each severity, which prints what it gets."""
    prometheus = yaml.safe_load((ROOT / "configs" / "prometheus" / "prometheus.yml").read_text())
    (group,) = prometheus["alerting"]["alertmanagers"]
    assert group["static_configs"][0]["targets"] == ["alertmanager:9093"]
    routing = yaml.safe_load((ROOT / "configs" / "alertmanager" / "alertmanager.yml").read_text())
    urls = {
        one["name"]: hook["url"] for one in routing["receivers"] for hook in one.get("webhook_configs", ())
    }
    port = SERVICES["alert-log"]["entrypoint"][-1]
    assert urls == {name: f"http://alert-log:{port}/{name}" for name in ("page", "ticket")}


def test_variables_are_settings_of_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    from streaming.settings.load import load_settings

    for name, value in (environment("bridge") | _secured("bridge")).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.kafka.bootstrap_servers == "kafka:29092"
    assert settings.service.classify_url == "http://service:3000/classify"
    assert settings.service.api_key_file == Path("/run/secrets/api-key")


def test_variables_are_settings_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    from bentos.settings.load import load_settings

    for name, value in (environment("service") | _secured("service")).items():
        monkeypatch.setenv(name, value)
    assert load_settings().security.api_keys_file == Path("/run/secrets/api-keys")


def _secured(service: str) -> dict[str, str]:
    return dict(yaml.safe_load((DOCKER / "secured.yml").read_text())["services"][service]["environment"])


def test_rotating_keys_recreates_whatever_sends_one() -> None:
    services = yaml.safe_load((DOCKER / "secured.yml").read_text())["services"]
    senders = {name for name in services if "STREAMING__SERVICE__API_KEY_FILE" in _secured(name)}
    chapter = (ROOT / "docs" / "operations.md").read_text().split("\n## Rotate keys\n")[1].split("\n## ")[0]
    step = chapter.split("\n2. ")[1].split("\n3. ")[0]
    assert senders == {"bridge", "monitor", "bridge-shadow"}
    assert not [name for name in senders if not re.search(rf"(?<![\w-]){name}(?![\w-])", step)]


def test_kafka_keeps_what_transactions_need() -> None:
    values = environment("kafka")
    assert values["KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR"] == "1"
    assert values["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "1"
    assert values["KAFKA_LOG_DIRS"] == SERVICES["kafka"]["volumes"][0].split(":")[1]


def test_bentofile_asks_for_the_serving_group() -> None:
    assert sorted(BENTOFILE["python"]["packages"]) == sorted(GROUPS["serving"])


def test_bento_carries_what_its_dockerfile_takes() -> None:
    text = (DOCKER / "bento.Dockerfile.j2").read_text()
    for path in re.findall(r"src/(\S+\.(?:txt|py))", text):
        assert path in BENTOFILE["include"], path


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile(dockerfile: Path) -> None:
    assert {source.split(" AS ")[0] for source in instructions(dockerfile, "FROM")} <= {
        "python:3.11-slim",
        "packages",
        "base",
    }
    users = instructions(dockerfile, "USER")
    assert users and users[-1] not in ("root", "0")
    assert re.search(r"useradd --uid 1034", dockerfile.read_text())
    # BuildKit alone would understand these; v1.29 builds without it.
    assert "--mount" not in dockerfile.read_text() and "<<" not in dockerfile.read_text()


@pytest.mark.parametrize("dockerfile", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_what_is_copied_exists_and_is_sent(dockerfile: Path) -> None:
    for arguments in instructions(dockerfile, "COPY"):
        if arguments.startswith("--from"):
            continue
        for source in arguments.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert is_sent_to_the_engine(source), source


def test_data_stores_and_secrets_are_not_sent() -> None:
    for path in ("data/creditcard.csv", "mlflow.db", "secrets/api-key", ".git/config", ".venv/bin/python"):
        assert not is_sent_to_the_engine(path), path


def test_requirements_prints_a_group(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "configs/docker/requirements.py"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        [sys.executable, tmp_path / "requirements.py", "streaming", "parquet"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == GROUPS["streaming"] + GROUPS["parquet"]


def test_slim_takes_out_only_what_nothing_uses(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    gone = ["pip/__init__.py", "scipy/tests/test_a.py", "numpy/_core/include/a.h", "numpy/__init__.pyi"]
    kept = ["scipy/__init__.py", "scipy/__pycache__/__init__.cpython-311.pyc", "torch/testing/tests/a.py"]
    for name in gone + kept:
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    subprocess.run([sys.executable, DOCKER / "slim.py", tmp_path], check=True)
    assert [name for name in gone + kept if (packages / name).exists()] == kept


@pytest.mark.parametrize(
    ("training_ends", "has_held_out", "code", "commands"),
    [
        (0, True, 0, ["train --if-none"]),
        (0, False, 0, ["train --if-none", "simulate --rows"]),
        (1, False, 1, ["train --if-none"]),
    ],
)
def test_first_release(
    tmp_path: Path, training_ends: int, has_held_out: bool, code: int, commands: list[str]
) -> None:
    """A failure to ask the registry ends it: it must not train, and perhaps promote, over what is there."""
    held_out = tmp_path / "held-out.parquet"
    if has_held_out:
        held_out.touch()
    log = tmp_path / "log"
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\necho "$@" >>{log}\n[ "$3" = simulate ] || exit {training_ends}\n')
    stub.chmod(0o755)
    script = (DOCKER / "first-release.sh").read_text().replace("/app/data/held-out.parquet", str(held_out))
    done = subprocess.run(
        ["sh", "-c", script, "first-release", "--epochs", "1"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    )
    lines = log.read_text().splitlines()
    assert done.returncode == code
    assert [" ".join(line.split()[2:4]) for line in lines] == commands
    assert lines[0].endswith("--epochs 1")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (401, 0)])
def test_healthcheck(status: int, code: int) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert _healthcheck(server.server_port) == code
        assert _healthcheck(server.server_port, "/nowhere") == 1
        server.shutdown()
    assert _healthcheck(server.server_port) == 1  # nobody listens any more


@pytest.mark.parametrize("variable", ["SERVING__PORT", "STREAMING__METRICS__PORT"])
def test_healthcheck_follows_the_port_that_is_set(variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        moved = {variable: str(server.getsockname()[1]), f"{TLS}CLIENT_CA_FILE": "/ca.pem"}
        assert _healthcheck(1, **moved) == 0
    assert _healthcheck(1, **moved) == 1
    assert _healthcheck(1, STREAMING__METRICS__PORT="0") == 0


def test_healthcheck_has_no_certificate_to_show(tmp_path: Path) -> None:
    """Where clients need one, a port that takes connections is all it can see."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.listen()
        mutual = {f"{TLS}CERTIFICATE_FILE": "/c.pem", f"{TLS}CLIENT_CA_FILE": "/ca.pem"}
        assert _healthcheck(port, **mutual) == 0
    assert _healthcheck(port, **mutual) == 1


def _healthcheck(port: int, *path: str, **variables: str) -> int:
    command = [sys.executable, "-S", str(DOCKER / "healthcheck.py"), str(port), *path]
    return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode
