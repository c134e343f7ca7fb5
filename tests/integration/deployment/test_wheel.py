"""What a wheel installs: every command runs from it, without the source tree."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("bentos", "training", "streaming", "demo")


def run(*command, cwd):
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked_files():
    names = run("git", "ls-files", *PACKAGES, "pyproject.toml", "README.md", "LICENSE", cwd=ROOT).splitlines()
    return [name for name in names if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build a wheel from the files that git tracks, so that nothing left lying around gets in."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", output, ".")
    run(sys.executable, "-m", "pip", *build, cwd=source)
    return next(output.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Install the wheel into an environment of its own; only the libraries come from this one."""
    home = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", home / "bin" / "python", *install, cwd=home)
    libraries = sysconfig.get_path("purelib")
    # A path that is named so has its own .pth files left alone: the editable install stays out.
    next(home.glob("lib/python*/site-packages")).joinpath("libraries.pth").write_text(libraries + "\n")
    return home / "bin" / "python"


def test_wheel_holds_every_module_and_all_package_data(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in tracked_files() if "/" in name and name not in inside]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "command",
    [
        ("training",),
        ("training", "train"),
        ("training", "score"),
        ("streaming",),
        ("streaming", "bridge"),
        ("demo",),
        ("bentoml", "containerize"),
    ],
    ids=" ".join,
)
def test_command_runs_from_the_wheel(python, command, tmp_path):
    assert "sage" in run(python, "-W", "ignore", "-m", *command, "--help", cwd=tmp_path)


def test_package_comes_from_the_wheel(python, tmp_path):
    script = "import {0}; print({0}.__file__)"
    for package in PACKAGES:
        path = run(python, "-c", script.format(package), cwd=tmp_path)
        assert path.startswith(str(python.parent.parent)), path
    invent = "from training.data.simulate import simulate; assert len(simulate(10, 1)) == 10"
    run(python, "-c", invent, cwd=tmp_path)
