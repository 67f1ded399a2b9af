"""The other tools' environment: a virtual one of their own, made from requirements.txt when it is not there yet."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.push.measuring import Tool
from tests.benchmarks.push.target import PROJECT

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = PROJECT / ".venv-push-benchmark"

OURS = Tool("**this project's sink**", "sink")
_LOOPS = (
    Tool("requests, a loop", "requests_loop"),
    Tool("requests, 32 threads and a token bucket", "requests_loop", 32),
)
# name, the package that it needs, module, files at once
_INSTALLED = (
    ("dlt, 1 file", "dlt", "dlt_destination", 1),
    ("dlt, 20 files", "dlt", "dlt_destination", 20),
    ("singer-sdk target", "singer-sdk", "singer_target", 1),
)


@dataclass(frozen=True, slots=True)
class Others:
    """What can be measured beside our sink: `tools`, the `versions` behind them, and `missing` by name, with why."""

    tools: tuple[Tool, ...]
    versions: dict[str, str]
    missing: dict[str, str]


def find_others(*, install: bool = True) -> Others:
    """Each requirement is installed by itself, so that one that cannot be had does not cost the others."""
    python = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if install and not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=False)
    wanted = dict(line.split("==") for line in REQUIREMENTS.read_text(encoding="ascii").split())
    versions = _versions(python)
    for name, version in wanted.items():
        if install and versions.get(name) != version:
            _pip(python, "install", "--quiet", f"{name}=={version}")
    versions = _versions(python)
    missing = {name: "could not be installed" for name, version in wanted.items() if versions.get(name) != version}
    tools = [
        Tool(name, module, parallel, python)
        for name, package, module, parallel in _INSTALLED
        if not {package, "requests"} & missing.keys()
    ]
    return Others((*_LOOPS, *tools), {name: versions[name] for name in wanted if name in versions}, missing)


def _pip(python: Path, *arguments: str) -> str:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def _versions(python: Path) -> dict[str, str]:
    listed = _pip(python, "list", "--format", "json") if python.exists() else ""
    return {package["name"]: package["version"] for package in json.loads(listed or "[]")}
