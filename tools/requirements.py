"""Prints requirements from pyproject.toml, for pip install -r: "build-system", or extras."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text())
extras = project["project"]["optional-dependencies"]
groups = {"build-system": project["build-system"]["requires"], **extras}
for name in sys.argv[1:]:
    print(*groups[name], sep="\n")
