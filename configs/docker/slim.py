"""Take out of a virtual environment what nothing uses once it is installed; run by the image builds.

Compiled modules stay: a read-only root file system could not take them later, and every start would pay.
"""

import shutil
import sys
from pathlib import Path

# Installers; headers, type stubs and static parts for compiling against a library.
UNUSED = (
    "pip",
    "pip-*.dist-info",
    "setuptools",
    "setuptools-*.dist-info",
    "numpy/_core/include",
    "pyarrow/include",
)
SUITES = ("test", "tests")
SUFFIXES = (".pyi", ".pxd", ".pyx", ".h", ".hpp", ".a")
# Their `testing` and `tests` folders are part of what others import.
KEEP = ("torch", "mlflow")


def slim(environment: Path) -> None:
    """Remove installers, test suites and files for compiling from `environment`."""
    packages = next(environment.glob("lib/python3*/site-packages"))
    for pattern in UNUSED:
        for path in packages.glob(pattern):
            shutil.rmtree(path)
    for folder in [path for path in packages.rglob("*") if path.is_dir() and path.name in SUITES]:
        if folder.relative_to(packages).parts[0] not in KEEP:
            shutil.rmtree(folder, ignore_errors=True)
    for file in packages.rglob("*"):
        if file.suffix in SUFFIXES and file.is_file() and file.relative_to(packages).parts[0] not in KEEP:
            file.unlink()


if __name__ == "__main__":
    slim(Path(sys.argv[1]))
