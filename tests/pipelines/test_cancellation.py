"""A cancelled run ends in good order: its calls are settled, the rest is written down, the next run goes on."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.emulator import Emulator
from pipelines.cancellation import deferred_signals
from tests.project import Project
from tests.reference import expect
from tests.running import example_attributes


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_the_first_signal_is_told_and_the_second_interrupts_as_before(how: signal.Signals) -> None:
    told: list[str] = []
    before = signal.getsignal(how)
    signal.signal(how, lambda *_: told.append("as before"))
    try:
        with deferred_signals(lambda: told.append("told")) as cancellation:
            requested = [cancellation.requested]
            os.kill(os.getpid(), how)
            requested.append(cancellation.requested)
            assert requested == [False, True]
            assert told == ["told"]
            assert cancellation.by is how
            assert cancellation.is_by_hand is (how is signal.SIGINT)
            os.kill(os.getpid(), how)
        os.kill(os.getpid(), how)
        assert told == ["told", "as before", "as before"]
    finally:
        signal.signal(how, before)


def test_without_a_signal_nothing_is_told_and_the_handlers_are_as_before() -> None:
    before = [signal.getsignal(how) for how in (signal.SIGINT, signal.SIGTERM)]
    with deferred_signals(lambda: None) as cancellation:
        pass
    assert not cancellation.requested
    assert [signal.getsignal(how) for how in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_cancelled_run_writes_down_what_it_did_not_send_and_the_next_one_goes_on(
    how: signal.Signals, tmp_path: Path
) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.make_profiles(30_000)
    process = project.start("-m", "pipelines", "run", "example")
    assert process.stderr is not None
    for line in process.stderr:
        if "changes, 0 unchanged" in line:
            break
    wait_for_calls(project)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "The run was cancelled" in err
    assert "Traceback" not in err
    assert re.search(r"acknowledged\s+[1-9]", out), "the summary of what was done stands there"
    assert list((project.folder / "data").glob("acknowledged/*/*/*/*.ledger")) == [], "nothing is left to take over"
    assert statuses(project) == [dg.DagsterRunStatus.CANCELED]

    (failed_rows,) = (project.folder / "data/failed_rows/sync=example").rglob("*.parquet")
    failed = pq.read_table(failed_rows, partitioning=None)
    unsent = failed.filter(pc.equal(failed["outcome"], "not_attempted"))
    assert set(unsent["reason"].to_pylist()) == {"run_stopped"}
    (calls,) = (project.folder / "data/push_calls/sync=example").rglob("*.parquet")
    assert pq.read_table(calls, partitioning=None)["rows"].to_pylist()
    told = {kind: int(rows.replace(",", "")) for kind, rows in re.findall(r"  (changed|acknowledged) +([\d,]+)", out)}
    assert unsent.num_rows > told["changed"] / 10

    fast = Project(project.folder, {"TENCENT_PUSH_CALLS_PER_SECOND": "2000"})
    ran = fast.run("-m", "pipelines", "run", "example")
    assert ran.returncode == 0, ran.stderr
    assert "had been cut off" not in ran.stderr, "the history knows that it was cancelled"
    files = sorted((project.folder / "data/sample_profiles").glob("*.parquet"))
    with Emulator(project.folder / "data/emulator/example.sqlite") as emulator:
        state = dict(emulator.attributes())
    assert state == expect(files, example_attributes([str(file) for file in files])).attributes


@pytest.mark.parametrize(
    ("how", "ends_as"),
    [(signal.SIGINT, dg.DagsterRunStatus.CANCELED), (signal.SIGTERM, dg.DagsterRunStatus.FAILURE)],
    ids=["Ctrl-C is a wish", "a drained node is a fault, to be retried"],
)
def test_a_run_of_dagsters_own_command_ends_by_what_interrupted_it(
    how: signal.Signals, ends_as: dg.DagsterRunStatus, tmp_path: Path
) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.make_profiles(6_000)
    home = project.run("-m", "pipelines", "home").stdout.strip()
    slow = Project(project.folder, {"DAGSTER_HOME": home, "TENCENT_PUSH_CALLS_PER_SECOND": "5"})
    process = slow.start("-m", "dagster", "job", "execute", "-m", "pipelines.definitions", "-j", "example")
    with ThreadPoolExecutor(1) as threads:
        told = threads.submit(process.communicate, timeout=120)
        wait_for_calls(project)
        process.send_signal(how)
        _, err = told.result()
    assert statuses(project) == [ends_as], err
    assert list((project.folder / "data").glob("acknowledged/*/*/*/*.ledger")) == [], "it ended in good order"


def wait_for_calls(project: Project) -> None:
    """Until the push has written its ledger's first lines."""
    while not any(ledger.stat().st_size > 2_000 for ledger in (project.folder / "data").rglob("*.ledger")):
        time.sleep(0.01)


def statuses(project: Project) -> list[dg.DagsterRunStatus]:
    (home,) = (project.folder / "state").rglob("dagster_home")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return [run.status for run in instance.get_runs()]
