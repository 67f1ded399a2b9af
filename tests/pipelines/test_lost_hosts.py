"""Hosts that are lost in mid-push, disk and all: the next one has nothing but what stands in object storage.

Every host is a copy of the project with a work folder, a Dagster history and a process of its own. The app is an
emulator in the test's process, which answers late and counts what it is sent.
"""

import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator, SeenCall, Slow
from connectors.tencent_push.protocol import MAX_ACCOUNTS_PER_CALL, AccountType, Command
from tests.object_storage import S3
from tests.project import Project
from tests.reference import expect
from tests.running import example_attributes

LOSSES, LONG_LOSSES = 3, 12
PROFILES_PER_LOSS = 3_000
CALLS_PER_SECOND = 25
ANSWER_SECONDS = 0.2
WRITING = (Command.SET_ATTR, Command.REMOVE_ATTR)


@dataclass(slots=True)
class Lost:
    """The process to kill at its nth writing call, and how often each account has come in a call so far."""

    rows: Counter[tuple[Command, str]] = field(default_factory=Counter)
    process: subprocess.Popen[str] | None = None
    calls: int = 0

    def __call__(self, call: SeenCall) -> bool:
        if call.command not in WRITING:
            return False
        self.rows.update((call.command, account) for account in call.accounts)
        self.calls -= 1
        if self.calls == 0 and self.process is not None:
            self.process.kill()
        return True


@pytest.fixture
def losses(long_proofs: bool) -> int:
    return LONG_LOSSES if long_proofs else LOSSES


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "app.sqlite", calls_per_second=None) as emulator:
        accounts = example_attributes("")["accounts"]
        emulator.declare({name: AccountType(kind) for kind, each in accounts.items() for name in each["attributes"]})
        yield emulator


@pytest.fixture
def first_host(tmp_path: Path, app: Emulator, s3: S3, losses: int) -> Project:
    environ = {
        "TENCENT_PUSH_BASE_URL": app.base_url,
        "TENCENT_PUSH_SDKAPPID": str(EMULATOR_CREDENTIALS.sdkappid),
        "TENCENT_PUSH_IDENTIFIER": EMULATOR_CREDENTIALS.identifier,
        "TENCENT_PUSH_SECRET_KEY": EMULATOR_CREDENTIALS.secret_key,
        "TENCENT_PUSH_CALLS_PER_SECOND": str(CALLS_PER_SECOND),
        "ATTRIBUTE_SYNC_DATA": f"s3://{s3.bucket('lost-hosts')}",
        "ATTRIBUTE_SYNC_WORK": "work",
        "AWS_ENDPOINT_URL": s3.endpoint,
    }
    project = Project(Project.copy_to(tmp_path / "host-0").folder, environ)
    project.make_profiles(losses * PROFILES_PER_LOSS)
    return project


def next_host(project: Project, number: int) -> Project:
    """Another machine: nothing of the one before is there but the profiles."""
    folder = Project.copy_to(project.folder.with_name(f"host-{number}")).folder
    shutil.copytree(project.folder / "data/sample_profiles", folder / "data/sample_profiles")
    environ = {**project.environ, "ATTRIBUTE_SYNC_WORK": str(folder / "work")}
    return Project(folder, environ)


def test_a_host_that_is_lost_costs_at_most_a_second_of_calls(first_host: Project, app: Emulator, losses: int) -> None:
    chance, lost = random.Random(losses), Lost()
    app.faults.add(Slow(ANSWER_SECONDS), when=lost, times=None)
    host = first_host
    for number in range(1, losses + 1):
        lost.calls = chance.randint(15, 45)
        lost.process = host.start("-m", "pipelines", "run", "example")
        lost.process.communicate(timeout=120)
        assert lost.process.returncode == -signal.SIGKILL
        shutil.rmtree(host.folder / "work", ignore_errors=True)
        host = next_host(host, number)

    lost.process = None
    fast = replace(host, environ={**host.environ, "TENCENT_PUSH_CALLS_PER_SECOND": "1000"})
    ended = fast.run("-m", "pipelines", "run", "example")
    assert ended.returncode == 0, ended.stderr

    files = sorted((host.folder / "data/sample_profiles").glob("*.parquet"))
    expected = expect(files, example_attributes([str(file) for file in files]))
    assert dict(app.attributes()) == expected.attributes
    unknown = {row["account"] for row in expected.failed_rows if row["reason"] == "account_unknown"}
    again = sum(count - 1 for (_, account), count in lost.rows.items() if account not in unknown)
    assert 0 < again <= losses * CALLS_PER_SECOND * MAX_ACCOUNTS_PER_CALL

    lost.rows.clear()
    assert fast.run("-m", "pipelines", "run", "example").returncode == 0
    assert {account for _, account in lost.rows} <= unknown, "nothing is left to send"
