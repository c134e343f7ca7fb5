"""A small release in a model store of its own, and services on it: what the serving tests share."""

import asyncio
import inspect
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from demo.ports import HOST
from demo.processes import Process

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
FEATURES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
THRESHOLDS = {"neural_net": 0.8, "xgboost": 0.4}
EXPECTED_LOSS = {"lambda": 2.0, "review_cost": 3.0, "bound": 6.0}
CALIBRATION = {
    "method": "logistic",
    "intercept": -2.0,
    "coefficients": {"neural_net": 0.6, "xgboost": 0.5},
    "epsilon": 1e-7,
}
REFERENCE = {
    "rows": 10,
    "features": {
        "V14": {"edges": [0.0], "shares": [0.4, 0.6], "variation": [{"rows": 2500, "divergence": 0.1}]}
    },
    "scores": {
        "neural_net": {"edges": [0.5], "shares": [0.9, 0.1]},
        "xgboost": {"edges": [], "shares": [1.0]},
    },
    "fraud_probability": {"edges": [0.1], "shares": [0.9, 0.1]},
}


def metadata(release: str, model: str) -> dict[str, Any]:
    """Return the document that travels with a model, as DESIGN has it."""
    return {
        "schema_version": 1,
        "release": release,
        "feature_names": list(FEATURES),
        "thresholds": THRESHOLDS,
        "calibration": CALIBRATION,
        "expected_loss": EXPECTED_LOSS,
        "training_run_id": f"run-{release}",
        "data": {"name": "invented", "fingerprint": "f" * 8, "rows": 10, "frauds": 1, "prevalence": 0.1},
        "metrics": {"pair.average_precision": {"value": 0.8, "low": 0.7, "high": 0.9}},
        "reference": REFERENCE,
        "model": {"registered_model": model, "version": "1", "run_id": f"run-{release}"},
        "trained_at": "2026-01-01T00:00:00Z",
    }


def write_network(folder: Path, strength: float = 1.0) -> None:
    """Write a one-layer network and its attribution as ONNX: sigmoid(x @ w), and x * w.

    `strength` multiplies w, so that releases can be told from each other by their scores.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, save

    weights = np.zeros((30, 1), np.float32)
    weights[[4, 11, 14], 0] = np.array([0.5, 0.4, -0.6]) * strength
    float32 = TensorProto.FLOAT
    features = helper.make_tensor_value_info("features", float32, ["n", 30])

    def write(name: str, nodes: list[Any], output: str, shape: list[Any], constant: np.ndarray) -> None:
        graph = helper.make_graph(
            nodes,
            name,
            [features],
            [helper.make_tensor_value_info(output, float32, shape)],
            [numpy_helper.from_array(constant, "w"), numpy_helper.from_array(np.array([-1]), "flat")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model)
        save(model, str(folder / f"{name}.onnx"))

    write(
        "model",
        [
            helper.make_node("MatMul", ["features", "w"], ["column"]),
            helper.make_node("Reshape", ["column", "flat"], ["log_odds"]),
            helper.make_node("Sigmoid", ["log_odds"], ["score"]),
        ],
        "score",
        ["n"],
        weights,
    )
    write(
        "attribution",
        [helper.make_node("Mul", ["features", "w"], ["contributions"])],
        "contributions",
        ["n", 30],
        weights.T.copy(),
    )


def write_trees(folder: Path, rounds: int = 10) -> None:
    """Fit a few trees on invented rows and write them in XGBoost's own format."""
    import xgboost

    random = np.random.default_rng(5)
    rows = random.normal(size=(2000, 30)).astype(np.float32)
    labels = rows[:, 14] < -1.0
    matrix = xgboost.DMatrix(rows, labels, feature_names=list(FEATURES))
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1, "seed": 5}, matrix, rounds)
    booster.save_model(folder / "model.ubj")


def store_release(
    home: Path, release: str, version: str | None = None, fingerprint: str = "abc", *, is_other: bool = False
) -> None:
    """Put a complete pair into the model store in `home`; one that `is_other` gives other scores."""
    store_model(home, "fraud_neural_net", release, version, fingerprint, is_other=is_other)
    store_model(home, "fraud_xgboost", release, version, fingerprint, is_other=is_other)


def store_model(
    home: Path,
    name: str,
    release: str,
    version: str | None = None,
    fingerprint: str = "abc",
    *,
    is_other: bool = False,
) -> None:
    """Put one of the two models into the model store in `home`, as training would."""
    import bentoml
    from bentoml._internal.models.model import ModelStore

    (home / "models").mkdir(parents=True, exist_ok=True)
    labels = {"release": release, "run_id": f"run-{release}", "version": "1", "fingerprint": fingerprint}
    with bentoml.models.create(
        f"{name}:{version or release}",
        labels=labels,
        metadata=metadata(release, name.replace("_", "-")),
        _model_store=ModelStore(home / "models"),
    ) as model:
        folder = Path(model.path_of("mlflow_model"))
        folder.mkdir(parents=True)
        if name == "fraud_neural_net":
            (folder / "extra_files").mkdir()
            write_network(folder / "extra_files", 0.5 if is_other else 1.0)
        else:
            write_trees(folder, 4 if is_other else 10)
        write_reference(folder)


def write_reference(folder: Path) -> None:
    """Write how the model in `folder` scores some rows; a service holds it to that."""
    rows = np.random.default_rng(9).normal(size=(20, 30)).astype(np.float32)
    scores = reference_scores(folder, rows).astype(float).tolist()
    document = {"features": rows.tolist(), "neural_net": scores, "xgboost": scores}
    (folder / "reference.json").write_text(json.dumps(document))


def reference_scores(folder: Path, rows: np.ndarray) -> np.ndarray:
    """Return the scores of the model in `folder`, without any service."""
    if (folder / "model.ubj").is_file():
        import xgboost

        scores: np.ndarray = xgboost.Booster(model_file=folder / "model.ubj").inplace_predict(rows)
        return scores
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "extra_files" / "model.onnx")
    return np.asarray(session.run(None, {"features": rows})[0])


def write_record(home: Path, **pairs: str) -> None:
    """Write which pairs are active, challenger and previous, each by its version, as training would."""
    record: dict[str, Any] = {"schema": 1, "active": None, "challenger": None, "previous": None}
    for name, version in pairs.items():
        record[name] = {"version": version, "release": version.partition("-")[0], "fingerprint": "abc"}
    path = home / "models" / "releases.json"
    path.with_suffix(".new").write_text(json.dumps(record))
    path.with_suffix(".new").replace(path)


@pytest.fixture(scope="session")
def small_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a BENTOML_HOME with release 7, made without training."""
    home = tmp_path_factory.mktemp("small") / "bentoml"
    store_release(home, "7")
    return home


@dataclass
class Served:
    """A running service."""

    url: str
    process: Process
    log: Path


ServeService = Callable[..., Any]


@contextmanager
def service(
    home: Path, log: Path, variables: dict[str, str] | None = None, **options: Any
) -> Iterator[Served]:
    """Serve the release in `home` with ``bentoml serve``, as a user would."""
    port = free_tcp_port()
    scheme = options.get("scheme", "http")
    command = [str(BIN / "bentoml"), "serve", *options.get("target", ()), "--host", HOST, "--port", str(port)]
    environment = {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        **(variables or {}),
    }
    with Process("The service", command, log, env=environment, cwd=options.get("cwd", ROOT)) as process:
        url = f"{scheme}://{HOST}:{port}"
        process.wait_ready(lambda: is_ready(url, options.get("verify", True)), timeout_s=90)
        yield Served(url, process, log)


def is_ready(url: str, verify: Any = True) -> bool:
    """Say whether the service answers 200 at /readyz."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2, verify=verify).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def free_tcp_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def served(small_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve the small release with the settings of the file and nothing else."""
    with service(small_home, tmp_path_factory.mktemp("served") / "service.log") as running:
        yield running


@pytest.fixture
def serve(small_home: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Return a function that serves the small release under given SERVING__ variables."""
    with ExitStack() as stack:

        def start(variables: dict[str, str] | None = None, **options: Any) -> Served:
            log = tmp_path / "service.log"
            return stack.enter_context(service(small_home, log, variables, **options))

        yield start


@pytest.fixture(scope="session")
def transactions() -> list[dict[str, Any]]:
    """Return 1,200 invented transactions with identities, alarming ones among them."""
    random = np.random.default_rng(11)
    rows = random.normal(size=(1200, 30)).round(4)
    rows[:, 0] = np.arange(1200)
    rows[:, 29] = random.lognormal(3, 1, 1200).round(2)
    rows[::7, 14] -= 4
    rows[::5, 4] += 4
    return [
        {"transaction_id": f"T-{number}", **dict(zip(FEATURES, row, strict=True))}
        for number, row in enumerate(rows.tolist())
    ]


@pytest.fixture
def transaction(transactions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one valid transaction, to be spoilt at will."""
    return dict(transactions[0])


def metric_samples(text: str) -> dict[str, float]:
    """Return name with labels to value of what `GET /metrics` answers."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def encoded(value: Any) -> bytes:
    """Return `value` as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end; a plugin would be one more dependency for these lines."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
