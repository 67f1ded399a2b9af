"""What a pusher is told, the rows that it pushes, and how it measures itself.

Runs in other tools' environments as well, so it imports nothing but Python's own library.
"""

import json
import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

BATCH_ROWS = 100
NAMES = ("city", "tier", "last_order", "segments", "language")


@dataclass(frozen=True, slots=True)
class Task:
    """One push. `call_url` is the whole, signed address of set_attr; `folder` stays when a push is started again.

    `parallel` is the tool's own way of doing several things at once: threads, or files.
    """

    base_url: str
    call_url: str
    rows: int
    folder: Path
    parallel: int = 1
    calls_per_second: int = 100

    @classmethod
    def from_command_line(cls) -> "Task":
        fields = json.loads(sys.argv[1])
        return cls(**{**fields, "folder": Path(fields["folder"])})

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)})


@dataclass(frozen=True, slots=True)
class Told:
    """What a pusher says of itself. `claimed_rows` it holds for delivered, `named_rows` it names as refused."""

    claimed_rows: int
    named_rows: int
    error: str
    cpu_seconds: float
    peak_mb: float

    @classmethod
    def from_json(cls, line: str) -> "Told":
        return cls(**json.loads(line))


class Meter:
    """Begins when it is made: after the imports, before the push."""

    def __init__(self) -> None:
        self._cpu_seconds = _cpu_seconds()
        self._memory_mb = _memory_mb("VmRSS")

    def tell(self, *, claimed_rows: int, named_rows: int = 0, error: BaseException | str | None = None) -> None:
        """One line of JSON on standard output; the last that the pusher does."""
        cpu_seconds, peak_mb = _cpu_seconds() - self._cpu_seconds, _memory_mb("VmHWM") - self._memory_mb
        text = type(error).__name__ if isinstance(error, BaseException) else error or ""
        told = Told(claimed_rows, named_rows, text, cpu_seconds, peak_mb)
        sys.stdout.write(json.dumps(asdict(told)) + "\n")
        sys.stdout.flush()


def account_of(number: int) -> str:
    return f"user-{number:08}"


def attributes_of(number: int) -> dict[str, str]:
    """Within the limits of the API; a call of 100 rows has a body of some 20 KB."""
    return {
        "city": f"city number {number % 3000}",
        "tier": ("bronze", "silver", "gold")[number % 3],
        "last_order": f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}T08:15:00Z",
        "segments": f"sports,travel,food,music,offers {number % 97:02},visits {number % 89:02}",
        "language": ("en", "zh-Hans", "pt-BR")[number % 3],
    }


def records(rows: int) -> Iterator[dict[str, str]]:
    """Rows as other tools like them: flat."""
    for number in range(rows):
        yield {"account": account_of(number), **attributes_of(number)}


def user_attrs(record: dict[str, str]) -> dict[str, object]:
    """A flat row in the API's form."""
    return {"To_Account": record["account"], "Attrs": {name: record[name] for name in NAMES}}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory_mb(field: str) -> float:
    """From /proc, because `ru_maxrss` of a child begins at its parent's; nan where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024
