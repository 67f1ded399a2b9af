"""Which runs of the history are dead: told by the process that they name, and by nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from pipelines.runs import BEGAN, HOST, PROCESS, active_run, end_dead_runs, process_tags


@dg.op
def nothing() -> None: ...


@dg.job
def nightly() -> None:
    nothing()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def started(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    return instance.create_run_for_job(nightly, status=dg.DagsterRunStatus.STARTED, tags=tags).run_id


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_whose_process_is_gone_is_marked_as_failed(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, {**process_tags(), PROCESS: str(ended_process())})
    assert active_run(instance, "nightly") is None
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE


def test_a_later_process_of_the_same_number_does_not_keep_it_alive(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, {**process_tags(), BEGAN: "1.00"})
    assert end_dead_runs(instance, "nightly") == [run_id]


@pytest.mark.parametrize(
    "tags",
    [
        process_tags(),
        {**process_tags(), HOST: "another-host", PROCESS: "1"},
        {},  # launched by the daemon, which watches it itself
    ],
    ids=["alive", "on another host", "of the daemon"],
)
def test_a_run_that_may_be_alive_stays(instance: dg.DagsterInstance, tags: dict[str, str]) -> None:
    run_id = started(instance, tags)
    assert end_dead_runs(instance, "nightly") == []
    assert active_run(instance, "nightly") == run_id
    assert active_run(instance, "another") is None


def test_this_process_is_named_by_its_number_and_its_beginning() -> None:
    assert process_tags()[PROCESS] == str(os.getpid())
    assert float(process_tags()[BEGAN]) > 0
