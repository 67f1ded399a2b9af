"""Which runs of the history are dead: told by the process that they name, and by nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import psutil
import pytest

from pipelines import runs
from pipelines.runs import (
    ALIVE_AT,
    BEGAN,
    FROM_A_SHELL,
    HOST,
    POOL_PREFIX,
    PROCESS,
    REPLAY,
    SILENT_SECONDS,
    active_run,
    end_dead_runs,
    is_from_a_shell,
    is_replay,
    patience_seconds,
    process_tags,
    report_cancelling,
    shell_tags,
    unheard_host,
)

POOL = f"{POOL_PREFIX}one-app"


@dg.op
def nothing() -> None: ...


@dg.job
def nightly() -> None:
    nothing()


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("history"))) as instance:
        yield instance


@pytest.fixture
def instance(history: dg.DagsterInstance) -> dg.DagsterInstance:
    """A history in which nothing has happened yet."""
    history.wipe()
    end_dead_runs(history)
    return history


def started(instance: dg.DagsterInstance, changed: dict[str, str]) -> str:
    """A run of this process, but for what is `changed` in its tags."""
    run_id = instance.create_run_for_job(nightly, status=dg.DagsterRunStatus.STARTED).run_id
    instance.add_run_tags(run_id, {**process_tags(run_id), **changed})
    return run_id


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def holders(instance: dg.DagsterInstance) -> list[str]:
    return [slot.run_id for slot in instance.event_log_storage.get_concurrency_info(POOL).claimed_slots]


def claim(instance: dg.DagsterInstance, run_id: str, *, pool: str = POOL) -> bool:
    instance.event_log_storage.set_concurrency_slots(pool, 1)
    return bool(instance.event_log_storage.claim_concurrency_slot(pool, run_id, "push").is_claimed)


def ended_process() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return str(process.pid)


@pytest.fixture
def other_process() -> Iterator[dict[str, str]]:
    """The tags of a process that lives and is not this one."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield {PROCESS: str(process.pid), BEGAN: str(psutil.Process(process.pid).create_time())}


def test_a_run_whose_process_is_gone_is_marked_as_failed_and_its_slot_is_free(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, {PROCESS: ended_process()})
    assert claim(instance, run_id)
    assert active_run(instance, "nightly") is None
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert holders(instance) == []


def test_a_later_process_of_the_same_number_does_not_keep_it_alive(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, {BEGAN: "1.00"})
    assert end_dead_runs(instance) == [run_id]


def test_a_clock_that_was_set_by_a_second_kills_nobody(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, {BEGAN: str(psutil.Process().create_time() - 1)})
    assert end_dead_runs(instance) == []
    assert status(instance, run_id) is dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("changed", [{}, {HOST: "another-host", PROCESS: "1"}], ids=["alive", "on another host"])
def test_a_run_that_may_be_alive_stays_with_its_slot(instance: dg.DagsterInstance, changed: dict[str, str]) -> None:
    run_id = started(instance, changed)
    assert claim(instance, run_id)
    assert end_dead_runs(instance) == []
    assert active_run(instance, "nightly") == run_id
    assert active_run(instance, "another") is None
    assert holders(instance) == [run_id]


def silent(seconds: float) -> dict[str, str]:
    """The tags of a run on another host that was last heard of that long ago."""
    return {
        HOST: "another-host",
        PROCESS: "1",
        ALIVE_AT: (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
    }


def test_a_run_of_another_host_that_was_silent_for_ten_minutes_is_dead(instance: dg.DagsterInstance) -> None:
    alive, dead = started(instance, silent(SILENT_SECONDS - 60)), started(instance, silent(SILENT_SECONDS + 5))
    assert claim(instance, dead)
    assert end_dead_runs(instance) == [dead]
    assert holders(instance) == []
    assert status(instance, alive) is dg.DagsterRunStatus.STARTED
    told = [entry.get_dagster_event().message or "" for entry in instance.all_logs(dead)]
    assert any("its host another-host is taken for gone" in text for text in told)


def test_on_this_host_its_process_tells_whether_a_silent_run_lives(instance: dg.DagsterInstance) -> None:
    started(instance, {ALIVE_AT: silent(SILENT_SECONDS + 5)[ALIVE_AT]})
    assert end_dead_runs(instance) == []


def test_a_silent_run_that_speaks_again_before_it_is_marked_lives(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = started(instance, silent(SILENT_SECONDS + 5))
    is_gone = runs._is_gone

    def speaks_again(run: dg.DagsterRun) -> bool:
        instance.add_run_tags(run_id, runs.heartbeat_tags())
        return is_gone(run)

    monkeypatch.setattr(runs, "_is_gone", speaks_again)
    assert end_dead_runs(instance) == []
    assert status(instance, run_id) is dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("beat", ["", "yesterday", "2026-01-01T00:00:00"], ids=["none", "no time", "no zone"])
def test_a_run_of_another_host_without_a_heartbeat_that_can_be_read_is_left_alone(
    instance: dg.DagsterInstance, beat: str
) -> None:
    run_id = started(instance, {**silent(0), ALIVE_AT: beat})
    assert end_dead_runs(instance) == []
    unheard, heard = instance.get_run_by_id(run_id), instance.get_run_by_id(started(instance, silent(0)))
    here = instance.get_run_by_id(started(instance, {}))
    assert unheard is not None
    assert heard is not None
    assert here is not None
    assert [unheard_host(run) for run in (unheard, heard, here)] == ["another-host", None, None]


def test_a_run_is_reported_as_cancelling_once(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, {})
    for _ in range(2):
        report_cancelling(instance, run_id)
        assert status(instance, run_id) is dg.DagsterRunStatus.CANCELING
    told = [entry.get_dagster_event().event_type for entry in instance.all_logs(run_id) if entry.is_dagster_event]
    assert told.count(dg.DagsterEventType.RUN_CANCELING) == 1


def test_a_run_that_was_launched_but_has_not_named_its_process_stays(instance: dg.DagsterInstance) -> None:
    """The retry of a dead run begins with a copy of its tags."""
    dead = started(instance, {PROCESS: ended_process()})
    dead_run = instance.get_run_by_id(dead)
    assert dead_run is not None
    retry = instance.create_run_for_job(nightly, status=dg.DagsterRunStatus.STARTING, tags=dead_run.tags).run_id
    untagged = instance.create_run_for_job(nightly, status=dg.DagsterRunStatus.STARTING).run_id
    assert end_dead_runs(instance) == [dead]
    assert {status(instance, run_id) for run_id in (retry, untagged)} == {dg.DagsterRunStatus.STARTING}


def test_a_run_that_ended_in_good_order_meanwhile_keeps_its_status(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = started(instance, {})

    def ends_now(run: dg.DagsterRun) -> bool:
        instance.report_run_canceled(run)
        return True

    monkeypatch.setattr(runs, "_is_gone", ends_now)
    assert end_dead_runs(instance) == []
    assert status(instance, run_id) is dg.DagsterRunStatus.CANCELED


def test_slots_of_ended_and_of_deleted_runs_are_freed_and_those_of_other_pools_are_not(
    instance: dg.DagsterInstance,
) -> None:
    run_id = started(instance, {})
    assert claim(instance, run_id)
    assert claim(instance, "somebody else's", pool="another")
    instance.event_log_storage.claim_concurrency_slot(POOL, "deleted", "push")
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_failed(run, "the daemon saw it die")
    end_dead_runs(instance)
    info = instance.event_log_storage.get_concurrency_info(POOL)
    assert (info.claimed_slots, info.pending_steps) == ([], [])
    assert claim(instance, "next")
    assert not claim(instance, "next", pool="another"), "not ours to free"


def test_a_run_ended_by_force_keeps_its_slot_while_its_process_lives(
    instance: dg.DagsterInstance, other_process: dict[str, str]
) -> None:
    run_id = started(instance, other_process)
    assert claim(instance, run_id)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_canceled(run)
    end_dead_runs(instance)
    assert holders(instance) == [run_id]
    psutil.Process(int(other_process[PROCESS])).kill()
    psutil.Process(int(other_process[PROCESS])).wait()
    end_dead_runs(instance)
    assert holders(instance) == []


def test_a_history_without_pools_has_nothing_to_free() -> None:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        assert not ephemeral.event_log_storage.supports_global_concurrency_limits
        assert end_dead_runs(ephemeral) == []


def test_this_process_is_named_by_its_number_and_its_beginning() -> None:
    assert process_tags("id")[PROCESS] == str(os.getpid())
    assert float(process_tags("id")[BEGAN]) > 0


def test_a_retry_of_a_shells_run_is_no_run_of_a_shell_but_that_of_a_replay_is_a_replay(
    instance: dg.DagsterInstance,
) -> None:
    first = instance.create_run_for_job(nightly)
    instance.add_run_tags(first.run_id, shell_tags(first.run_id, is_replay=True))
    shell = instance.get_run_by_id(first.run_id)
    assert shell is not None
    retry = instance.create_run_for_job(nightly, tags=shell.tags)
    assert (is_from_a_shell(shell), is_from_a_shell(retry)) == (True, False)
    assert (is_replay(shell), is_replay(retry), is_replay(first)) == (True, True, False)
    assert patience_seconds(shell) == 0 < patience_seconds(retry)
    assert FROM_A_SHELL in shell.tags
    assert REPLAY not in shell_tags("id")
