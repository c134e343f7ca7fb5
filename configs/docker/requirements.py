"""Print the packages of the named groups of pyproject.toml, for an image that needs no more than them."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for group in sys.argv[1:]:
    sys.stdout.write("\n".join(project["optional-dependencies"][group]) + "\n")
