"""The arrows of the design: packages meet through artefacts, never through imports."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("training", "bentos", "streaming", "demo")
# What a package's image must be able to do without.
FORBIDDEN = {
    "bentos": {"torch", "mlflow", "kafka", "sklearn", "pandas"},
    "streaming": {"torch", "mlflow", "bentoml", "sklearn", "pandas", "xgboost", "onnxruntime", "numpy"},
    "training": {"kafka"},
    "demo": {"torch", "mlflow", "bentoml", "xgboost", "onnxruntime"},
}


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_roots(module: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_nothing_of_each_other(package: str) -> None:
    others = set(PACKAGES) - {package}
    forbidden = others | FORBIDDEN[package] | {"tests", "benchmarks"}
    assert modules_of(package), package
    for module in modules_of(package):
        assert not imported_roots(module) & forbidden, module


def test_only_the_broker_files_import_kafka() -> None:
    speakers = {
        m.relative_to(ROOT / "streaming").parts[0]
        for m in modules_of("streaming")
        if "kafka" in imported_roots(m)
    }
    assert speakers <= {"broker", "broker.py"}, speakers
    assert speakers, "streaming must speak Kafka somewhere"


# Folders of `training`, from the ground up: a module imports from its own folder and from those before it.
TRAINING_FLOORS = (
    "errors",
    "termination",
    "console",
    "settings",
    "data",
    "evaluation",
    "models",
    "scoring",
    "reporting",
)
TRAINING_FLOORS += ("registry", "model_store", "commands")
# What trains or records a training may import torch; `promote`, `import` and `score` must not pay for it.
TORCH_MODULES = {
    *(f"training.models.{name}" for name in ("network", "network_fit", "onnx_export", "training")),
    "training.reporting.training_plots",
    "training.registry.record",
}


def test_folders_of_training_import_downwards() -> None:
    for module in modules_of("training"):
        place = module.relative_to(ROOT / "training").with_suffix("").parts[0]
        if place in ("__init__", "__main__"):
            continue
        for imported in imported_modules(module):
            root, *inner = imported.split(".")
            if root == "training" and inner:
                assert TRAINING_FLOORS.index(inner[0]) <= TRAINING_FLOORS.index(place), (module, imported)


def imported_modules(module: Path) -> set[str]:
    found = {
        node.module
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
    }
    return found | {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "training"
        for alias in node.names
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_import_in_no_circle(package: str) -> None:
    """Imports for types alone count too: who reads follows them all the same."""
    names = {
        ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): module
        for module in modules_of(package)
    }
    graph = {name: imported_modules(module) & names.keys() - {name} for name, module in names.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


# Modules and folders of `bentos`, from the ground up.
BENTOS_FLOORS = (
    {"errors", "rows", "decision_message", "policy", "process_metrics", "task_timer"},
    {"asgi", "settings"},
    {"compat"},
    {"metric_families", "releases"},
    {"loaded_models", "metrics", "schemas"},
    {"rpc"},
    {"classify"},
    {"gateway"},
    {"start_checks"},
    {"bentoml_services"},
    {"runners"},
    {"service"},
)


def test_folders_of_bentos_import_downwards() -> None:
    floor = {name: number for number, names in enumerate(BENTOS_FLOORS) for name in names}
    for module in modules_of("bentos"):
        place = module.relative_to(ROOT / "bentos").with_suffix("").parts[0]
        if place == "__init__":
            continue
        for imported in imported_modules(module):
            root, *inner = imported.split(".")
            if root == "bentos" and inner and inner[0] != place:
                assert floor[inner[0]] < floor[place], (module, imported)


def test_only_what_trains_imports_torch() -> None:
    names = {
        ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for module in modules_of("training")
        if module.name != "__main__.py"
    }
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    script += "assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", script, *sorted(names - TORCH_MODULES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# What BentoML and uvicorn do not publish: a new release may change it without notice.
PRIVATE_OF_THE_SERVER = ("_bentoml_", "bentoml._internal", "bentoml_cli", "uvicorn")
PRIVATE_OF_PROMETHEUS = {"_buckets", "_upper_bounds", "_sum"}


def imported_names(module: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(module.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_private_parts_of_the_server_are_used_in_few_places() -> None:
    users = {
        module.relative_to(ROOT / "bentos").as_posix()
        for module in modules_of("bentos")
        if any(name.startswith(PRIVATE_OF_THE_SERVER) for name in imported_names(module))
    }
    assert "compat/uvicorn_single_write.py" in users
    assert {user for user in users if not user.startswith("compat/")} == {
        "bentoml_services.py",
        "rpc/codec.py",
    }


def test_private_parts_of_prometheus_are_used_in_one_place() -> None:
    users = {
        module.relative_to(ROOT / "bentos").as_posix()
        for module in modules_of("bentos")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE_OF_PROMETHEUS
    }
    assert users == {"compat/bulk_histogram.py"}


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_module_opens_nothing(package: str) -> None:
    """Import every module of a package in a process that refuses sockets, children and writing."""
    names = [
        ".".join(module.relative_to(ROOT).with_suffix("").parts)
        for module in modules_of(package)
        if module.name != "__main__.py"
    ]
    script = f"""
import sys
def audit(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir", "sqlite3.connect"):
        raise RuntimeError(f"{{event}} {{arguments}} at import")
    if event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1]):
        raise RuntimeError(f"writes {{arguments[0]}} at import")
    if event == "open" and str(arguments[0]).startswith({str(ROOT / "configs")!r}):
        raise RuntimeError(f"reads {{arguments[0]}} at import")
import importlib
# Third parties first: what bentoml or matplotlib do at their own import is theirs.
for name in {sorted(third_parties(package))!r}:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
sys.addaudithook(audit)
for name in {names!r}:
    importlib.import_module(name)
"""
    done = subprocess.run(
        # -B: that Python keeps what it has compiled is not the module's doing.
        [sys.executable, "-B", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def third_parties(package: str) -> set[str]:
    names: set[str] = set()
    for module in modules_of(package):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.add(node.module)
    return {name for name in names if name.partition(".")[0] not in PACKAGES}


@pytest.mark.parametrize(
    "module", [m for p in PACKAGES for m in modules_of(p)], ids=lambda m: str(m.relative_to(ROOT))
)
def test_no_file_passes_400_lines(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 400


def test_no_utils() -> None:
    assert not [
        m for p in PACKAGES for m in modules_of(p) if m.stem in {"utils", "util", "helpers", "common"}
    ]
