"""``python locks/wanted.py``: what cytoloop needs to run, PyTorch left out, as pip-compile reads it."""

from __future__ import annotations

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
wanted = [*project["dependencies"], *project["optional-dependencies"]["onnx"]]
print("\n".join(line for line in wanted if line != "torch"))
