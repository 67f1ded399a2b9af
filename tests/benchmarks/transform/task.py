"""What a measured process is told, and how it measures itself and says what came out.

Runs in other tools' environments as well, so it imports nothing but Python's own library.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Task:
    """One step over the Parquet files of `source`.

    `folder` is the data folder of our own steps; for others, where they write. `state` is what an earlier first run of
    the same tool wrote: None on the first run, and for ours, whose state stands in the data folder.
    """

    step: str
    source: Path
    folder: Path
    state: Path | None = None
    memory_limit: str = "1GB"

    @classmethod
    def from_command_line(cls) -> "Task":
        fields = json.loads(sys.argv[1])
        paths = {name: Path(fields[name]) for name in ("source", "folder", "state") if fields[name] is not None}
        return cls(**{**fields, **paths})

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @property
    def files(self) -> list[Path]:
        return sorted(self.source.glob("*.parquet"))


@dataclass(frozen=True, slots=True)
class Told:
    """What a process says of its work. `changes` are accounts to be changed, by account type."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    changes: Mapping[str, int] = field(default_factory=dict)
    invalid_rows: int = 0

    @classmethod
    def from_json(cls, line: str) -> "Told":
        return cls(**json.loads(line))


class Meter:
    """Begins when it is made: after the imports, before the work. The memory's peak is that of the whole process."""

    def __init__(self) -> None:
        self._began_at, self._cpu_seconds = time.perf_counter(), _cpu_seconds()

    def tell(self, changes: Mapping[str, int] | None = None, *, invalid_rows: int = 0) -> None:
        """One line of JSON on standard output; the last that the process does."""
        seconds, cpu_seconds = time.perf_counter() - self._began_at, _cpu_seconds() - self._cpu_seconds
        told = Told(seconds, cpu_seconds, memory_mb("self", "VmHWM"), dict(changes or {}), invalid_rows)
        sys.stdout.write(json.dumps(asdict(told)) + "\n")
        sys.stdout.flush()


def memory_mb(process: int | str, field_name: str) -> float:
    """`VmRSS` (now) or `VmHWM` (the peak) in MiB; 0 for a process that has ended, and where there is no /proc."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field_name}:")), 0) / 1024


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
