"""Measurements as Markdown tables, ready for the README, and as curves."""

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tests.benchmarks import markdown
from tests.benchmarks.transform.measuring import Measured
from tests.benchmarks.transform.running import Beside, Ours, Step

GROWING = (Step.DECODE, Step.FIRST, Step.FOLD, Step.DELTA, Step.SAME, Step.ALL, Step.PLAN)


def machine(versions: Mapping[str, str]) -> str:
    """Size and versions, since numbers mean nothing without them."""
    ours = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "ibis-framework", "pyarrow"))
    others = ", ".join(f"{name} {number}" for name, number in versions.items())
    about = f"{markdown.machine()}; Python {platform.python_version()}, {ours}"
    return f"{about}; beside it {others or 'nothing else'}."


def ours_table(ours: Ours) -> str:
    """By step; ratios are of medians, to decoding."""
    head = [
        "", "seconds", "× decode", "CPU s", "CPU × decode", "peak memory, MB", "spilled, MB", "database, MB",
        "written, MB", "accounts changed",
    ]  # fmt: skip
    seconds, cpu = _median(ours[Step.DECODE], _seconds), _median(ours[Step.DECODE], _cpu)
    rows = []
    for step, runs in ours.items():
        changed = " + ".join(f"{count:,}" for count in runs[0].changes.values())
        rows.append(
            [
                str(step),
                _span(runs, _seconds, digits=2),
                f"{_median(runs, _seconds) / seconds:.1f}",
                _span(runs, _cpu, digits=2),
                f"{_median(runs, _cpu) / cpu:.1f}",
                _span(runs, _peak),
                _span(runs, lambda run: run.spilled_mb),
                _span(runs, lambda run: run.database_mb),
                _span(runs, lambda run: run.written_mb, digits=1),
                changed,
            ]
        )
    return markdown.table(head, rows)


def written_table(runs: Sequence[Measured]) -> str:
    """Every file of one step."""
    files = sorted(runs[0].written.items())
    return markdown.table(["file", "bytes"], [[_short(file), f"{size:,}"] for file, size in files])


def beside_table(ours: Ours, beside: Beside) -> str:
    """First run and delta, their ratios to ours; the peak is that of either."""
    head = ["", "first run, s", "ratio", "delta, s", "ratio", "CPU s, first", "CPU s, delta", "peak memory, MB"]
    rows = [_beside("**this project**", {step: ours[step] for step in (Step.FIRST, Step.DELTA)}, ours)]
    for name in dict.fromkeys(tool for tool, _ in beside):
        rows.append(_beside(name, {step: beside[name, step] for step in (Step.FIRST, Step.DELTA)}, ours))
    return markdown.table(head, rows)


def _beside(name: str, found: Mapping[Step, list[Measured] | str], ours: Ours) -> list[str]:
    cells: list[str] = []
    measured = {step: runs for step, runs in found.items() if not isinstance(runs, str)}
    for step, runs in found.items():
        if isinstance(runs, str):
            cells += [runs, ""]
        else:
            ratio = _median(runs, _seconds) / _median(ours[step], _seconds)
            cells += [_span(runs, _seconds, digits=2), f"{ratio:.2f}"]
    cells += [_span(measured[step], _cpu, digits=2) if step in measured else "" for step in found]
    peak = max((_median(runs, _peak) for runs in measured.values()), default=None)
    return [name, *cells, "" if peak is None else f"{peak:,.0f}"]


def growth_table(by_rows: Mapping[int, Ours]) -> str:
    """Seconds by size, and what they are of linear growth from the smallest: 1 where a profile costs the same."""
    least, *larger = sorted(by_rows)
    head = ["", _millions(least)]
    for rows in larger:
        head += [_millions(rows), "of linear", "peak memory, MB"]
    table = []
    for step in GROWING:
        base = _median(by_rows[least][step], _seconds)
        cells = [str(step), f"{base:,.2f} s"]
        for rows in larger:
            seconds = _median(by_rows[rows][step], _seconds)
            linear = base * rows / least
            cells += [f"{seconds:,.2f} s", f"{seconds / linear:.2f}", f"{_median(by_rows[rows][step], _peak):,.0f}"]
        table.append(cells)
    return markdown.table(head, table)


def growth_curves(
    by_rows: Mapping[int, Ours], beside: Mapping[int, Beside]
) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Panel -> curve -> (rows, value); of the other tools the delta."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for title, of in (("seconds", _seconds), ("peak memory, MB", _peak)):
        curves: dict[str, list[tuple[int, float]]] = {
            step.replace("`", ""): [(rows, _median(by_rows[rows][step], of)) for rows in sorted(by_rows)]
            for step in GROWING
        }
        for rows in sorted(beside):
            for (name, step), runs in beside[rows].items():
                if step is Step.DELTA and not isinstance(runs, str):
                    curves.setdefault(f"{name}: {step}", []).append((rows, _median(runs, of)))
        panels[title] = curves
    return panels


def _seconds(run: Measured) -> float:
    return run.seconds


def _cpu(run: Measured) -> float:
    return run.cpu_seconds


def _peak(run: Measured) -> float:
    return run.peak_mb


def _median(runs: Sequence[Measured], of: Callable[[Measured], float]) -> float:
    return median(of(run) for run in runs)


def _span(runs: Sequence[Measured], of: Callable[[Measured], float], *, digits: int = 0) -> str:
    return markdown.span([of(run) for run in runs], digits=digits)


def _millions(rows: int) -> str:
    return f"{rows / 1e6:g} million"


def _short(file: str) -> str:
    """Below the data folder."""
    parts = Path(file).parts
    return "/".join(parts[parts.index("data") + 1 :]) if "data" in parts else Path(file).name
