"""A fresh checkout elsewhere: with Windows' line ends, on macOS, in a folder that was moved."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

# Stands for the project's packages, so that setting up needs no network.
BACKEND = """
import pathlib, zipfile
INFO = "fraud_detection-0.0.1.dist-info"
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "fraud_detection-0.0.1-py3-none-any.whl"
    files = {
        "stub.py": "def main():\\n    print('served')\\n",
        f"{INFO}/METADATA": "Metadata-Version: 2.1\\nName: fraud-detection\\nVersion: 0.0.1\\n",
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{INFO}/entry_points.txt": "[console_scripts]\\nbentoml = stub:main\\n",
    }
    files[f"{INFO}/RECORD"] = "".join(f"{one},,\\n" for one in (*files, f"{INFO}/RECORD"))
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for one, text in files.items():
            wheel.writestr(one, text)
    return name
build_editable = build_wheel
"""


def make(folder: Path, *targets: str) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", *targets],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin:" + str(Path(PYTHON).parent), "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PYTHON = shutil.which("python3.11") or ""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a set-up checkout with this Makefile whose packages are a stub."""
    if not PYTHON:
        pytest.skip("needs python3.11 on the path")
    folder = tmp_path / "before"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "constraints.txt").touch()
    (folder / "stub_backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "stub_backend"\nbackend-path = ["."]\n'
    )
    make(folder, "setup")
    return folder


def test_environment_is_kept_then_made_again_where_it_cannot_work(project: Path) -> None:
    """Its scripts name its folder, so a moved one starts nothing; without pip it installs nothing."""
    made = (project / ".venv" / "pyvenv.cfg").stat().st_ino
    assert "served" in make(project, "serve")
    assert (project / ".venv" / "pyvenv.cfg").stat().st_ino == made
    moved = project.rename(project.parent / "after")
    assert "served" in make(moved, "serve")
    (moved / ".venv" / "bin" / "pip").unlink()
    (moved / "pyproject.toml").touch()
    assert "served" in make(moved, "serve")


def test_scripts_keep_their_line_ends_on_windows(tmp_path: Path) -> None:
    """An entry point that ends its first line with CR LF does not start in an image."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the history")
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    source = tmp_path / "source"
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", "-C", str(source)]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *arguments], check=True)
    clone = ["git", "-c", "core.autocrlf=true", "clone", "-q", str(source), str(tmp_path / "clone")]
    subprocess.run(clone, check=True)
    scripts = [path for path in (tmp_path / "clone").rglob("*") if path.is_file() and is_script(path)]
    assert len(scripts) >= 2
    assert not [path.name for path in scripts if b"\r\n" in path.read_bytes()]


def is_script(path: Path) -> bool:
    return ".git" not in path.parts and path.read_bytes()[:2] == b"#!"


@pytest.mark.parametrize(
    ("platform", "package"), [("darwin", "xgboost"), ("linux", "xgboost-cpu"), ("win32", "xgboost-cpu")]
)
def test_xgboost_has_a_wheel_where_it_is_installed(platform: str, package: str) -> None:
    """xgboost-cpu has none for macOS; elsewhere the other brings 250 MB for a GPU."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for group in ("serving", "training"):
        asked = [Requirement(line) for line in groups[group] if line.startswith("xgboost")]
        named = {one.name for one in asked if one.marker and one.marker.evaluate({"sys_platform": platform})}
        assert named == {package}
    assert re.search(rf"^{package}==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
