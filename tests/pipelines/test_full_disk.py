"""The job in a data folder that gets full in the middle of its push: a small disk of its own, filled to the last byte.

The disk is a tmpfs that only the job's processes see, so that nothing has to be mounted by an administrator. Where the
system does not allow that either, tests/connectors/tencent_push/test_sink_full_disk.py still holds the sink to it.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator, SeenCall, Slow
from connectors.tencent_push.ledger import LedgerContents, read_ledger
from connectors.tencent_push.protocol import AccountType, Command
from tests.project import Project
from tests.reference import expect
from tests.running import example_attributes

DISK = "24m"
PROFILES = 10_000  # some 90 calls for user ids alone; a page of the ledger holds the record of 30 at most
CALLS_PER_SECOND = 30
CALLS_BEFORE_FULL = 10
ATTRIBUTES = example_attributes("")["accounts"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[tuple[str, ...], Path]]:
    """What to start a command with so that it sees the disk at <tmp_path>/project/data, and the disk as seen here."""
    folder = tmp_path / "project/data"
    folder.mkdir(parents=True)
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("no unshare and nsenter here: they come with Linux")
    mount = f"mount -t tmpfs -o size={DISK} none '{folder}' && echo mounted && exec cat"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip("this system allows nobody but its administrator to mount anything")
        enter = ("nsenter", "--target", str(holder.pid), "--user", "--mount", "--preserve-credentials")
        # The working folder is left and entered again, or it would still be the one without the disk.
        yield (*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(folder.parent)), Path(f"/proc/{holder.pid}/root{folder}")
        holder.kill()  # the disk goes with its last process


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "app.sqlite", calls_per_second=None) as emulator:
        emulator.declare({name: AccountType(kind) for kind, each in ATTRIBUTES.items() for name in each["attributes"]})
        yield emulator


def live(emulator: Emulator) -> dict[str, str]:
    return {
        "TENCENT_PUSH_BASE_URL": emulator.base_url,
        "TENCENT_PUSH_SDKAPPID": str(EMULATOR_CREDENTIALS.sdkappid),
        "TENCENT_PUSH_IDENTIFIER": EMULATOR_CREDENTIALS.identifier,
        "TENCENT_PUSH_SECRET_KEY": EMULATOR_CREDENTIALS.secret_key,
    }


@dataclass(slots=True)
class FillingDisk:
    """Asked by the emulator about each call: notes whose attributes were set, and fills the disk at the tenth call.

    Every byte that is left is taken, so that the ledger has no more than the rest of its last page.
    """

    disk: Path
    set_calls: int = 0
    got: set[str] = field(default_factory=set)

    @property
    def filler(self) -> Path:
        return self.disk / "filler"

    def __call__(self, call: SeenCall) -> bool:
        if call.command is not Command.SET_ATTR:
            return False
        self.got.update(call.accounts)
        self.set_calls += 1
        if self.set_calls == CALLS_BEFORE_FULL:
            with suppress(OSError), self.filler.open("wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
        return True


def test_a_full_data_folder_stops_the_push_and_the_next_run_with_room_goes_on(
    small_disk: tuple[tuple[str, ...], Path], emulator: Emulator, tmp_path: Path
) -> None:
    prefix, disk = small_disk
    slow = {**live(emulator), "TENCENT_PUSH_CALLS_PER_SECOND": str(CALLS_PER_SECOND)}
    project = replace(Project.copy_to(tmp_path / "project"), environ=slow, prefix=prefix)
    project.make_profiles(PROFILES)
    filling = FillingDisk(disk)
    emulator.faults.add(Slow(0.3), when=filling, times=None)  # so that calls are in flight when the record ends
    ended = project.run("-m", "pipelines", "run", "example")
    assert ended.returncode == 1
    assert "No space left on device" in ended.stderr
    assert "run again" in ended.stderr
    assert "Traceback" not in ended.stderr

    files = sorted((disk / "sample_profiles").glob("*.parquet"))
    expected = expect(files, example_attributes([str(file) for file in files]))
    (ledger,) = disk.glob("acknowledged/*/*/*/*.ledger")
    acknowledged, uncertain = _accounts(read_ledger(ledger), disk)
    assert filling.got & set(expected.attributes) <= acknowledged | uncertain, "everything that left is on record"
    assert filling.set_calls < expected.counts["user_id"].changed / 100 / 2, "the push was stopped early"
    assert acknowledged
    assert acknowledged <= {account for account, _ in emulator.attributes()}

    filling.filler.unlink()
    filling.got.clear()
    quick = replace(project, environ={**slow, "TENCENT_PUSH_CALLS_PER_SECOND": "1000"})
    after = quick.run("-m", "pipelines", "run", "example")
    assert after.returncode == 0, after.stderr
    assert not filling.got & acknowledged, "nothing acknowledged is sent again"
    assert dict(emulator.attributes()) == expected.attributes
    assert list(disk.glob("acknowledged/*/*/*/*.ledger")) == []
    assert list((disk / "temporary").iterdir()) == []


def _accounts(contents: LedgerContents, disk: Path) -> tuple[set[str], set[str]]:
    """The accounts that the record has as acknowledged, and as uncertain."""
    frame = pq.read_table(disk / str(contents.header["frame_file"]), columns=["account"]).column("account").to_pylist()
    acknowledged = {frame[number] for number in contents.acknowledged[Command.SET_ATTR]}
    return acknowledged, {frame[number] for number in contents.uncertain[Command.SET_ATTR]}
