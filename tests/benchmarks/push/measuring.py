"""Runs one pusher in a fresh process against an emulator in another, and works out what came of it.

Rates are those that the emulator saw, for every tool alike: how a tool prepares its rows does not count.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from connectors.tencent_push.emulator.calls import Totals
from tests.benchmarks.push.target import CERTIFICATE, PROJECT, Network, Target, running_target
from tests.benchmarks.push.task import Task, Told

_PUSHERS = "tests.benchmarks.push.pushers"
_POLL_SECONDS = 0.02


class PusherError(Exception):
    """A pusher ended in a way that is no result; the message says how."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A way to push, as a module of `pushers` and the Python that runs it."""

    name: str
    module: str
    parallel: int = 1
    python: Path = Path(sys.executable)


@dataclass(frozen=True, slots=True)
class Measured:
    """One push, or one that was killed and started again. `told` is of the last process."""

    told: Told
    totals: Totals
    stored_rows: int

    @property
    def calls_per_second(self) -> float:
        """While there was work: between the first arrival and the last."""
        return (self.totals.calls - 1) / self.totals.arriving_seconds if self.totals.arriving_seconds else 0.0

    @property
    def rows_per_second(self) -> float:
        return self.stored_rows / self.totals.answering_seconds if self.totals.answering_seconds else 0.0

    @property
    def worst_second(self) -> int:
        return self.totals.worst_second

    @property
    def cpu_seconds_per_1000_calls(self) -> float:
        return 1000 * self.told.cpu_seconds / self.totals.calls if self.totals.calls else 0.0

    @property
    def sent_again_rows(self) -> int:
        """Rows that were carried out once more although the emulator had them. Only where no row is refused."""
        return self.totals.served_accounts - self.stored_rows


def measure(
    tool: Tool, network: Network, *, rows: int, faults: Sequence[str] = (), kill_halfway: bool = False
) -> Measured:
    """`faults` are arguments of the emulator. With `kill_halfway` a first process is killed, and another one started.

    Raises PusherError when the pusher ends without a word.
    """
    with tempfile.TemporaryDirectory(prefix="push-benchmark-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with running_target(folder, network, faults) as target:
            (folder / "pusher").mkdir()
            task = Task(target.base_url, target.call_url, rows, folder / "pusher", tool.parallel)
            if kill_halfway:
                _kill_halfway(tool, task, target)
            with _started(tool, task) as process:
                told = _told(process)
            totals = target.stop()
        return Measured(told, totals, target.stored_rows())


def _kill_halfway(tool: Tool, task: Task, target: Target) -> None:
    with _started(tool, task) as process:
        while target.totals().served_accounts < task.rows // 2:
            if process.poll() is not None:
                raise PusherError("it ended before it could be killed")
            time.sleep(_POLL_SECONDS)
        process.kill()


def _told(process: subprocess.Popen[str]) -> Told:
    output, messages = process.communicate()
    lines = output.splitlines()
    if process.returncode or not lines:
        sys.stderr.write(messages[-5000:])
        raise PusherError(f"it ended with {process.returncode}")
    return Told.from_json(lines[-1])


@contextmanager
def _started(tool: Tool, task: Task) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment["REQUESTS_CA_BUNDLE"] = str(CERTIFICATE)
    command = [str(tool.python), "-m", f"{_PUSHERS}.{tool.module}", task.to_json()]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()
