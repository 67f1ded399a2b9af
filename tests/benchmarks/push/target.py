"""The emulator in a process of its own: started, asked what has arrived so far, ended, and its rows counted."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.emulator.calls import Totals
from connectors.tencent_push.protocol import Command
from connectors.tencent_push.usersig import make_usersig
from tests.benchmarks.push.task import NAMES

PROJECT = Path(__file__).resolve().parents[3]
CERTIFICATE = PROJECT / "tests/connectors/tencent_push/loopback_tls.pem"
NO_CALLS = Totals(0, 0, 0, {}, 0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Network:
    """What lies between a pusher and the emulator. `quota` 0: all that comes is served, however fast."""

    round_trip_ms: int
    jitter: float = 0.2
    tls: bool = False
    quota: int = 100

    @property
    def scheme(self) -> str:
        return "HTTPS" if self.tls else "HTTP"

    def arguments(self) -> list[str]:
        tls = ["--tls-certificate", str(CERTIFICATE)] if self.tls else []
        trip = ["--round-trip-ms", str(self.round_trip_ms), "--jitter", str(self.jitter)]
        return [*trip, "--calls-per-second", str(self.quota), *tls]


class Target:
    """One running emulator. `stop` ends it; after that, `totals` are final and `stored_rows` counts what it holds."""

    def __init__(self, process: subprocess.Popen[str], data_file: Path) -> None:
        self._process = process
        self._data_file = data_file
        self.base_url = self._read_line()

    @property
    def call_url(self) -> str:
        """The whole, signed address of set_attr, for tools that know nothing of signatures."""
        app = EMULATOR_CREDENTIALS
        usersig = make_usersig(
            sdkappid=app.sdkappid, identifier=app.identifier, secret_key=app.secret_key, now=int(time.time())
        )
        query = {"sdkappid": app.sdkappid, "identifier": app.identifier, "usersig": usersig}
        return f"{self.base_url}/v4/timpush/set_attr?{urlencode({**query, 'random': 1, 'contenttype': 'json'})}"

    def totals(self) -> Totals:
        """Of set_attr, so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read_totals()

    def stop(self) -> Totals:
        self._process.terminate()
        totals = self._read_totals()
        self._process.wait(30)
        return totals

    def stored_rows(self) -> int:
        emulator = Emulator(self._data_file)
        try:
            return sum(1 for _ in emulator.attributes())
        finally:
            emulator.close()

    def _read_totals(self) -> Totals:
        found = json.loads(self._read_line()).get(Command.SET_ATTR.value)
        return Totals(**found) if found else NO_CALLS

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the emulator has ended; see its messages above")
        return line


@contextmanager
def running_target(folder: Path, network: Network, arguments: Sequence[str] = ()) -> Iterator[Target]:
    """`arguments` are further ones of the emulator's command line: its faults."""
    data_file = folder / "emulator.sqlite"
    command = [sys.executable, "-m", "connectors.tencent_push.emulator", "--data", str(data_file), "--report"]
    command += [argument for name in NAMES for argument in ("--declare", name)]
    command += [*network.arguments(), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        try:
            yield Target(process, data_file)
        finally:
            process.kill()
