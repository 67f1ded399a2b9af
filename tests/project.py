"""A copy of the project in a folder of its own, run as its users run it: as commands. It asserts nothing."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
_CREDENTIALS = ("TENCENT_PUSH_", "ATTRIBUTE_SYNC_", "DAGSTER_HOME", "PYTEST_")


@dataclass(frozen=True, slots=True)
class Project:
    """The copy at `folder`, with a Dagster history and a state folder of its own. `prefix` starts the commands."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    @classmethod
    def copy_to(cls, folder: Path) -> "Project":
        for name in ("connectors", "pipelines"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "workspace.yaml"):
            shutil.copy(ROOT / name, folder / name)
        return cls(folder)

    @property
    def yaml(self) -> Path:
        return self.folder / "pipelines/defs/example/defs.yaml"

    def edit_yaml(self, old: str, new: str) -> None:
        text = self.yaml.read_text(encoding="utf-8")
        if old not in text:
            raise ValueError(f"the example's YAML has no {old!r}")
        self.yaml.write_text(text.replace(old, new), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """This process's, without what would point elsewhere."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_CREDENTIALS)}
        return {**kept, "XDG_STATE_HOME": str(self.folder / "state"), **self.environ}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`python <arguments>` in the copy."""
        return subprocess.Popen(
            [*self.prefix, sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def make_profiles(self, rows: int, *, seed: int = 1) -> None:
        made = self.run(
            "-m", "pipelines.sample_profiles", "--rows", str(rows), "--seed", str(seed), "data/sample_profiles"
        )
        if made.returncode:
            raise RuntimeError(made.stderr)
