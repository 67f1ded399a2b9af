"""Measurements as Markdown tables, ready for the README."""

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from statistics import median

from tests.benchmarks import markdown
from tests.benchmarks.push.measuring import Measured

QUOTA = 100


def machine(versions: Mapping[str, str]) -> str:
    """Size and versions, since numbers mean nothing without them."""
    ours = f"Python {platform.python_version()}, requests {version('requests')}"
    others = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{markdown.machine()}; {ours}; beside it {others or 'nothing else'}."


def sink_table(runs: Mapping[tuple[str, int], Sequence[Measured]]) -> str:
    """By scheme and round trip."""
    head = [
        "", "round trip", "rows/s", "calls/s", "share of the quota", "worst sliding second",
        "CPU s per 1,000 calls", "peak memory, MB", "rows acknowledged",
    ]  # fmt: skip
    rows = [
        [
            scheme,
            f"{round_trip_ms} ms",
            *_rates(measured),
            *_costs(measured),
            _span(measured, lambda run: run.told.claimed_rows),
        ]
        for (scheme, round_trip_ms), measured in runs.items()
    ]
    return markdown.table(head, rows)


def tools_table(runs: Mapping[str, Sequence[Measured]], *, ours: str, missing: Mapping[str, str]) -> str:
    """All tools at one round trip; `ours` is what the ratios are to."""
    head = [
        "", "rows/s", "ratio", "calls/s", "share of the quota", "worst sliding second",
        "CPU s per 1,000 calls", "peak memory, MB",
    ]  # fmt: skip
    base = median(run.rows_per_second for run in runs[ours])
    rows = []
    for name, measured in runs.items():
        rows_per_second, *rest = _rates(measured)
        ratio = median(run.rows_per_second for run in measured) / base
        rows.append([name, rows_per_second, f"{ratio:.2f}", *rest, *_costs(measured)])
    return markdown.table(head, [*rows, *([name, why, *[""] * 6] for name, why in missing.items())])


def refusals_table(runs: Mapping[tuple[str, str], Measured | str], *, rows: int) -> str:
    """By scenario and tool: what is stored against what the tool says."""
    head = ["", "", "rows stored", "rows claimed", "rows named as refused", "rows neither stored nor named", "it says"]
    return markdown.table(head, [[scenario, name, *_refusals(run, rows)] for (scenario, name), run in runs.items()])


def _refusals(run: Measured | str, rows: int) -> list[str]:
    if isinstance(run, str):
        return [run, *[""] * 4]
    says = run.told.error or ("success but for the rows named" if run.told.named_rows else "success")
    unnamed = rows - run.stored_rows - run.told.named_rows
    counts = (run.stored_rows, run.told.claimed_rows, run.told.named_rows, unnamed)
    return [*(f"{count:,}" for count in counts), says]


def killed_table(runs: Mapping[str, Measured | str]) -> str:
    head = ["", "rows sent again", "rows stored in the end", "rows claimed in the end"]
    return markdown.table(head, [[name, *_killed(run)] for name, run in runs.items()])


def _killed(run: Measured | str) -> list[str]:
    if isinstance(run, str):
        return [run, "", ""]
    return [f"{count:,}" for count in (run.sent_again_rows, run.stored_rows, run.told.claimed_rows)]


def _rates(measured: Sequence[Measured]) -> list[str]:
    return [
        _span(measured, lambda run: run.rows_per_second),
        _span(measured, lambda run: run.calls_per_second, digits=1),
        _span(measured, lambda run: 100 * run.calls_per_second / QUOTA, digits=1, unit=" %"),
        _span(measured, lambda run: run.worst_second),
    ]


def _costs(measured: Sequence[Measured]) -> list[str]:
    return [
        _span(measured, lambda run: run.cpu_seconds_per_1000_calls, digits=2),
        _span(measured, lambda run: run.told.peak_mb),
    ]


def _span(measured: Sequence[Measured], of: Callable[[Measured], float], *, digits: int = 0, unit: str = "") -> str:
    return markdown.span([of(run) for run in measured], digits=digits, unit=unit)
