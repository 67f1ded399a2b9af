"""Runs a command in a fresh process and watches it from outside: memory, the engine's temporary area, files written.

What the process says of itself comes from task.py. Linux only: it reads /proc.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from tests.benchmarks.transform.task import Task, Told, memory_mb

PROJECT = Path(__file__).resolve().parents[3]
POLL_SECONDS = 0.02
DATABASE = "engine.duckdb"  # the engine's file in its temporary folder; what else lies there was spilled
_TEMPORARY = "temporary"


class StepError(Exception):
    """A process ended in a way that is no result; the message says how."""


class MemoryGuardError(StepError):
    """It would have taken the machine's memory, and was stopped."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One process. `spilled_mb` and `database_mb` are the largest sizes seen; `written` is bytes by file."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    spilled_mb: float = 0.0
    database_mb: float = 0.0
    written: Mapping[str, int] = field(default_factory=dict)
    changes: Mapping[str, int] = field(default_factory=dict)
    invalid_rows: int = 0

    @property
    def written_mb(self) -> float:
        return sum(self.written.values()) / 2**20


@dataclass(slots=True)
class Watch:
    """The largest of what is seen whenever it looks, in MiB."""

    area: Path
    peak_mb: float = 0.0
    spilled_mb: float = 0.0
    database_mb: float = 0.0

    def look(self, process: int) -> None:
        self.peak_mb = max(self.peak_mb, memory_mb(process, "VmHWM"))
        spilled = database = 0
        for file, (bytes_, _, _) in _files(self.area).items():
            if Path(file).name.startswith(DATABASE):
                database += bytes_
            else:
                spilled += bytes_
        self.spilled_mb = max(self.spilled_mb, spilled / 2**20)
        self.database_mb = max(self.database_mb, database / 2**20)


def measure(module: str, task: Task, *, python: Path | None = None, most_mb: float = float("inf")) -> Measured:
    """The work that `module` does for `task`; its start is not in the seconds. Raises StepError."""
    command = [str(python or sys.executable), "-m", module, task.to_json()]
    ran, output = measure_command(command, folder=task.folder, most_mb=most_mb)
    lines = output.splitlines()
    if not lines:
        raise StepError(f"{module} ended without a word")
    told = Told.from_json(lines[-1])
    return Measured(
        told.seconds,
        told.cpu_seconds,
        max(told.peak_mb, ran.peak_mb),
        ran.spilled_mb,
        ran.database_mb,
        ran.written,
        told.changes,
        told.invalid_rows,
    )


def measure_command(
    command: Sequence[str],
    *,
    folder: Path,
    cwd: Path = PROJECT,
    environ: Mapping[str, str] | None = None,
    most_mb: float = float("inf"),
) -> tuple[Measured, str]:
    """The whole process from its start to its end, and what it printed; `folder` is its data folder.

    Raises StepError when it fails, MemoryGuardError when it had more than `most_mb` and was killed.
    """
    before = written_in(folder)
    watch = Watch(folder / _TEMPORARY)
    with TemporaryFile("w+", encoding="utf-8") as output, TemporaryFile("w+", encoding="utf-8") as messages:
        began_at = time.perf_counter()
        with subprocess.Popen(command, stdout=output, stderr=messages, cwd=cwd, env=environ) as process:
            try:
                usage = _awaited(process, watch, most_mb=most_mb)
            finally:
                process.kill()
        seconds = time.perf_counter() - began_at
        if process.returncode:
            messages.seek(0)
            sys.stderr.write(messages.read()[-5000:])
            raise StepError(f"it ended with {process.returncode}")
        output.seek(0)
        printed = output.read()
    after = written_in(folder)
    return Measured(
        seconds,
        usage.ru_utime + usage.ru_stime,
        watch.peak_mb,
        watch.spilled_mb,
        watch.database_mb,
        {file: facts[0] for file, facts in after.items() if facts != before.get(file)},
    ), printed


def written_in(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Size, identity and time of change of every file of a data folder but the temporary ones."""
    skipped = folder / _TEMPORARY
    return {file: facts for file, facts in _files(folder).items() if skipped not in Path(file).parents}


def _awaited(process: subprocess.Popen[bytes], watch: Watch, *, most_mb: float) -> resource.struct_rusage:
    """What the process used. It waits by itself, since `Popen.wait` forgets what the system tells of one child."""
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage
        watch.look(process.pid)
        if memory_mb(process.pid, "VmRSS") > most_mb:
            process.kill()
            process.wait()
            raise MemoryGuardError(f"stopped at {watch.peak_mb / 1024:.0f} GiB of memory")
        time.sleep(POLL_SECONDS)


def _files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Files come and go while it looks."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            found[str(path)] = (facts.st_size, facts.st_ino, facts.st_mtime_ns)
    return found
