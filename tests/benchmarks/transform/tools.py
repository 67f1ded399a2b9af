"""The other tools: their modules, and the environment of their own, made from requirements.txt when it is not there."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.transform.measuring import PROJECT

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = PROJECT / ".venv-transform-benchmark"
PYTHON = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
_NAMED = ("matplotlib", "pandas", "polars", "pyarrow", "regex")


@dataclass(frozen=True, slots=True)
class Tool:
    """A way to do the same work, as a module of `others`. Not all can tell NaN from null, which is not invalid."""

    name: str
    module: str
    tells_nan: bool = True


TOOLS = (
    Tool("pandas, its own types", "pandas_plain", tells_nan=False),
    Tool("pandas, Arrow types", "pandas_arrow"),
    Tool("polars, lazy and streaming", "polars_lazy"),
)


def versions_installed(*, install: bool = True) -> dict[str, str]:
    """Of what is there; empty when the environment could not be made."""
    if install:
        if not PYTHON.exists():
            subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=False)
        _pip("install", "--quiet", "--require-hashes", "--requirement", str(REQUIREMENTS))
    listed = _pip("list", "--format", "json") if PYTHON.exists() else ""
    return {each["name"]: each["version"] for each in json.loads(listed or "[]") if each["name"] in _NAMED}


def _pip(*arguments: str) -> str:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
