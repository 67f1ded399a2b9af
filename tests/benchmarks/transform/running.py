"""All measurements of one size: our steps in the order of two nights, the whole command, and the other tools beside."""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from pipelines.resources import MEMORY
from tests.benchmarks.transform.inputs import FEW, FEW_ROWS, SYNC, Inputs, warm
from tests.benchmarks.transform.measuring import Measured, StepError, measure, measure_command
from tests.benchmarks.transform.task import Task
from tests.benchmarks.transform.tools import PYTHON, TOOLS, Tool
from tests.project import Project

_STEPS, _OTHERS = "tests.benchmarks.transform.steps", "tests.benchmarks.transform.others"


class Step(StrEnum):
    """What is measured of ours, in this order."""

    DECODE = "decode"
    STREAM = "decode, as a stream of Arrow batches"
    FIRST = "first run"
    FOLD = "its fold into the state"
    DELTA = "delta 2 %"
    SAME = "no change"
    ALL = "no change, `frames: all`"
    PLAN = "`plan` of the delta, the whole command"
    START = f"`plan` of {FEW_ROWS:,} profiles, the whole command"


# step -> its name in steps.py, whether it reads the edited profiles; each begins with the folded state
_NIGHTS = {
    Step.DELTA: ("night", True),
    Step.SAME: ("night", False),
    Step.ALL: ("all", False),
}


class DisagreementError(Exception):
    """Two ways have found different changes: then no number says anything."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`most_mb` is what another tool may take of the machine's memory."""

    repeat: int
    memory_limit: str
    most_mb: float
    tell: Callable[[str], None]


Ours = dict[Step, list[Measured]]
Beside = dict[tuple[str, Step], list[Measured] | str]  # a text says why there is no result


def measure_ours(inputs: Inputs, settings: Settings) -> Ours:
    """Each repetition runs all steps, so that a slow minute of the machine is one run of each."""
    runs: Ours = {step: [] for step in Step}
    project = inputs.make_project()
    plan_of(project, FEW, settings)  # so that its modules are compiled and its history is made
    for _ in range(settings.repeat):
        for step, measured in nights(inputs, settings):
            runs[step].append(measured)
        settings.tell(Step.PLAN)
        inputs.restore_folded()
        runs[Step.PLAN].append(plan_of(project, SYNC, settings))
        settings.tell(Step.START)
        runs[Step.START].append(plan_of(project, FEW, settings))
    require_night(runs)
    return runs


def nights(inputs: Inputs, settings: Settings) -> Iterator[tuple[Step, Measured]]:
    def step(step: Step, name: str, source: Path) -> tuple[Step, Measured]:
        settings.tell(step)
        warm(source)
        return step, measure(_STEPS, Task(name, source, inputs.data, memory_limit=settings.memory_limit))

    inputs.forget()
    yield step(Step.DECODE, "decode", inputs.source)
    yield step(Step.STREAM, "stream", inputs.source)
    yield step(Step.FIRST, "first", inputs.source)
    yield step(Step.FOLD, "fold", inputs.source)
    inputs.keep_folded()
    for night, (name, is_edited) in _NIGHTS.items():
        inputs.restore_folded()
        yield step(night, name, inputs.edited if is_edited else inputs.source)


def require_night(runs: Ours) -> None:
    """Raises DisagreementError unless repetitions agree, no change is none, and the plan has the night's changes."""
    for step, each in runs.items():
        require_equal(step, [run.changes for run in each])
    for step in (Step.SAME, Step.ALL):
        require_equal(step, [dict.fromkeys(runs[Step.FIRST][0].changes, 0), runs[step][0].changes])
    require_equal(Step.FOLD, [runs[Step.FIRST][0].changes, runs[Step.FOLD][0].changes])
    require_equal(Step.PLAN, [runs[Step.DELTA][0].changes, runs[Step.PLAN][0].changes])


def plan_of(project: Project, sync: str, settings: Settings) -> Measured:
    """Its changes are counted in the frames that it left."""
    command = [sys.executable, "-m", "pipelines", "plan", sync]
    data = project.folder / "data"
    environ = {**project.environment(), MEMORY: settings.memory_limit}
    measured, _ = measure_command(command, folder=data, cwd=project.folder, environ=environ)
    frames = [Path(file) for file in measured.written if "plans" in Path(file).parts]
    rows = {file.stem: pq.read_metadata(file).num_rows for file in frames if file.stem != "invalid_rows"}
    return replace(measured, changes=rows)


def measure_tool(tool: Tool, inputs: Inputs, settings: Settings, *, expected_mb: float) -> Beside:
    """First run and delta. It is not tried where it is expected to need more memory than it may have."""
    if expected_mb > settings.most_mb:
        why = f"skipped: an estimated {expected_mb / 1024:.0f} GiB, of {settings.most_mb / 1024:.0f}"
        return {(tool.name, step): why for step in (Step.FIRST, Step.DELTA)}
    base = inputs.folder / tool.module
    runs: Beside = {}
    try:
        for step, source, state in (
            (Step.FIRST, inputs.source, None),
            (Step.DELTA, inputs.edited, base / Step.FIRST.name),
        ):
            settings.tell(f"{tool.name}: {step}")
            folder = base / step.name
            folder.mkdir(parents=True, exist_ok=True)
            runs[tool.name, step] = [
                _tool_run(tool, Task(step.name, source, folder, state), inputs, settings)
                for _ in range(settings.repeat)
            ]
    except StepError as error:
        runs |= {(tool.name, step): str(error) for step in (Step.FIRST, Step.DELTA) if (tool.name, step) not in runs}
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return runs


def _tool_run(tool: Tool, task: Task, inputs: Inputs, settings: Settings) -> Measured:
    warm(task.source)
    return measure(f"{_OTHERS}.{tool.module}", task, python=PYTHON, most_mb=settings.most_mb)


def require_agreement(ours: Ours, beside: Beside, *, tools: Iterable[Tool] = TOOLS) -> None:
    """Raises DisagreementError unless every tool with a result found as many changes and invalid rows as we did."""
    tells_nan = {tool.name: tool.tells_nan for tool in tools}
    for (name, step), runs in beside.items():
        if isinstance(runs, str):
            continue
        require_equal(f"{name}, {step}", [ours[step][0].changes, *(run.changes for run in runs)])
        if tells_nan[name]:
            invalid = [{"invalid rows": run.invalid_rows} for run in (ours[step][0], *runs)]
            require_equal(f"{name}, {step}", invalid)


def require_equal(what: str, changes: Sequence[Mapping[str, int]]) -> None:
    if any(dict(each) != dict(changes[0]) for each in changes):
        raise DisagreementError(f"{what}: the numbers differ: {[dict(each) for each in changes]}")


def expected_mb(smaller: Mapping[int, Beside], name: str, *, rows: int) -> float:
    """What the tool will need for `rows`, by the largest size so far that it came through; 0 where there is none."""
    known = [(size, peak_mb(runs, name)) for size, runs in smaller.items()]
    size, peak = max(((size, peak) for size, peak in known if peak), default=(1, 0.0))
    return peak * rows / size


def peak_mb(beside: Beside, name: str) -> float:
    """The largest median of the tool's steps; 0 where there is none."""
    runs = [runs for (tool, _), runs in beside.items() if tool == name and not isinstance(runs, str)]
    return max((median(run.peak_mb for run in each) for each in runs), default=0.0)
