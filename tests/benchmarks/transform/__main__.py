"""Measures the transform: `python -m tests.benchmarks.transform 1 10 50` (millions of profiles); `--quick`: 1, once.

Arguments in, Markdown tables out; progress goes to standard error. Nothing leaves this machine but pip's downloads for
the tools that are measured beside ours, into a virtual environment of their own (`.venv-transform-benchmark`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.transform.inputs import Inputs
from tests.benchmarks.transform.measuring import PROJECT
from tests.benchmarks.transform.running import (
    Beside,
    Ours,
    Settings,
    Step,
    expected_mb,
    measure_ours,
    measure_tool,
    require_agreement,
)
from tests.benchmarks.transform.tables import (
    beside_table,
    growth_curves,
    growth_table,
    machine,
    ours_table,
    written_table,
)
from tests.benchmarks.transform.tools import PYTHON, TOOLS, versions_installed

MILLIONS, QUICK_MILLIONS = (1.0, 10.0, 50.0), (1.0,)
REPEAT, REPEATED_UP_TO_ROWS = 3, 10_000_000
GUARDED_FRACTION = 0.85  # of the machine's memory, that another tool may take


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    sizes = sorted(round(1e6 * millions) for millions in _millions(arguments))
    versions = (
        {} if arguments.only_ours and not arguments.plot else versions_installed(install=not arguments.no_install)
    )
    is_beside = not arguments.only_ours and "polars" in versions
    print(f"{machine(versions)} The engine's memory limit is {arguments.memory}.\n")
    by_rows: dict[int, Ours] = {}
    beside: dict[int, Beside] = {}
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transform-")))
        for rows in sizes:
            settings = _settings(arguments, rows)
            inputs = Inputs(folder.absolute() / str(rows), rows)
            _progress(f"{rows:,} profiles")
            inputs.make()
            by_rows[rows] = measure_ours(inputs, settings)
            beside[rows] = _beside(inputs, settings, beside) if is_beside else {}
            inputs.clear()
            require_agreement(by_rows[rows], beside[rows])
            print(_section(rows, by_rows[rows], beside[rows], repeat=settings.repeat), flush=True)
    if len(sizes) > 1:
        print(f"Growth, seconds:\n\n{growth_table(by_rows)}")
    if arguments.plot:
        _draw(by_rows, beside, arguments.plot.absolute())
    return 0


def _beside(inputs: Inputs, settings: Settings, smaller: dict[int, Beside]) -> Beside:
    found: Beside = {}
    for tool in TOOLS:
        expected = expected_mb(smaller, tool.name, rows=inputs.rows)
        found |= measure_tool(tool, inputs, settings, expected_mb=expected)
    return found


def _section(rows: int, ours: Ours, beside: Beside, *, repeat: int) -> str:
    repeated = "one run each" if repeat == 1 else f"medians of {repeat} runs (least–most)"
    parts = [f"{rows:,} profiles; {repeated}:\n\n{ours_table(ours)}"]
    if beside:
        parts.append(f"The same work beside it:\n\n{beside_table(ours, beside)}")
    parts.append(f"Every file of the night without changes:\n\n{written_table(ours[Step.SAME])}")
    return "\n".join(parts)


def _draw(by_rows: dict[int, Ours], beside: dict[int, Beside], path: Path) -> None:
    curves = json.dumps(growth_curves(by_rows, beside))
    subprocess.run([str(PYTHON), "-m", "tests.benchmarks.transform.plot", curves, str(path)], check=True, cwd=PROJECT)


def _settings(arguments: argparse.Namespace, rows: int) -> Settings:
    repeat = arguments.repeat or (1 if arguments.quick or rows > REPEATED_UP_TO_ROWS else REPEAT)
    memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    return Settings(repeat, arguments.memory, GUARDED_FRACTION * memory_mb, _progress)


def _millions(arguments: argparse.Namespace) -> Sequence[float]:
    return arguments.millions or (QUICK_MILLIONS if arguments.quick else MILLIONS)


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.transform", description="Measures the transform.")
    parser.add_argument("millions", nargs="*", type=float, help="millions of profiles; default 1 10 50")
    parser.add_argument("--quick", action="store_true", help="one million unless told otherwise, each step once")
    parser.add_argument("--repeat", type=int, help=f"runs per step; default {REPEAT}, above 10 million 1")
    parser.add_argument("--folder", type=Path, help="where profiles are kept for the next time; default none")
    parser.add_argument("--memory", default="1GB", help="the engine's memory limit; default 1GB")
    parser.add_argument("--plot", type=Path, help="where to draw the growth: a name that ends in .svg or .png")
    parser.add_argument("--only-ours", action="store_true", help="without the other tools")
    parser.add_argument("--no-install", action="store_true", help="only with the other tools that are there already")
    return parser


if __name__ == "__main__":
    sys.exit(main())
