"""A process that pushes while its ledger may not grow any more: the system refuses the write, as a full disk does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from connectors.tencent_push.emulator import Emulator, SeenCall, Slow
from connectors.tencent_push.ledger import read_ledger
from connectors.tencent_push.outcomes import OutcomeKind
from tests.connectors.tencent_push.fault_cases import (
    SET,
    WatchedClient,
    account,
    changes_of,
    declare,
    push,
    stored_numbers,
)

ROWS = 10_000
_PUSHER = f"""
import resource, sys
from pathlib import Path
from connectors.tencent_push.errors import LedgerError
from tests.connectors.tencent_push.fault_cases import SinkSettings, WatchedClient, changes_of, push

base_url, ledger_file, limit_bytes = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_bytes), int(limit_bytes)))
try:
    push(WatchedClient(base_url), Path(ledger_file), changes_of(range({ROWS})), calls_per_second=200,
         settings=SinkSettings(batch_size=20), on_outcomes=lambda outcomes: print(
             *(outcome.change.number for outcome in outcomes), flush=True))
except LedgerError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "emulator.sqlite", calls_per_second=None) as emulator:
        declare(emulator)
        yield emulator


# Not even the header fits; the header alone; in the middle of a line; and a few hundred calls later.
@pytest.mark.parametrize("limit_bytes", [10, 60, 333, 1_000, 4_001])
def test_no_more_is_sent_than_can_be_recorded_and_nothing_acknowledged_is_forgotten(
    limit_bytes: int, emulator: Emulator, tmp_path: Path
) -> None:
    got: set[str] = set()

    def seen(call: SeenCall) -> bool:
        got.update(call.accounts)
        return True

    emulator.faults.add(Slow(0.05), when=seen, times=None)
    ledger_file = tmp_path / "ledger"
    pusher = [sys.executable, "-c", _PUSHER, emulator.base_url, str(ledger_file), str(limit_bytes)]
    ended = subprocess.run(
        pusher, check=False, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[3]
    )
    assert ended.returncode == 1
    assert f"The ledger {ledger_file} cannot be written: File too large" in ended.stderr
    assert "run again: it goes on from here" in ended.stderr
    assert ledger_file.stat().st_size <= limit_bytes

    acknowledged: set[int] = set()
    if b"\n" in ledger_file.read_bytes():
        contents = read_ledger(ledger_file)
        acknowledged = set(contents.acknowledged[SET].tolist())
        on_record = {account(number) for number in acknowledged | set(contents.uncertain[SET].tolist())}
        assert got <= on_record, "everything that left is on record"
    else:
        assert not got, "nothing leaves before the ledger has its header"
    assert {int(number) for number in ended.stdout.split()} <= acknowledged <= set(stored_numbers(emulator))
    assert len(got) < ROWS

    rest = [change for change in changes_of(range(ROWS)) if change.number not in acknowledged]
    emulator.faults.clear()
    with closing(WatchedClient(emulator.base_url)) as client:
        pushed = push(client, ledger_file, rest)
    assert pushed.numbers(OutcomeKind.ACKNOWLEDGED) == [change.number for change in rest]
    assert pushed.acknowledged_on_record == stored_numbers(emulator) == list(range(ROWS))
    assert pushed.uncertain_on_record == []
