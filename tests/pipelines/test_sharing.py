"""One pusher per app: the pool is in force by itself, runs take turns, and what a dead run leaves is taken over."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines import sharing
from pipelines.errors import AppBusyError
from pipelines.resources import EnvironmentResource
from pipelines.runs import ALIVE_AT, FROM_A_SHELL, HOST, PROCESS, RUN, end_dead_runs, process_tags
from pipelines.sharing import busy_text, put_limit_in_force, take_turn

QUIET: dict[str, Any] = {"telemetry": {"enabled": False}}
POOL = "tencent_push/emulator-1400000000"


@dg.op
def frames(context: dg.OpExecutionContext, environment: EnvironmentResource) -> int:
    take_turn(context.instance, context.run, step="push", tell=context.log.info)
    return 1


@dg.op(pool=POOL)
def push(context: dg.OpExecutionContext, environment: EnvironmentResource, number: int) -> None:
    (slot,) = context.instance.event_log_storage.get_concurrency_info(POOL).claimed_slots
    assert (slot.run_id, slot.step_key) == (context.run_id, "push")


@dg.op
def breaks(number: int) -> int:
    raise dg.Failure("no frames today")


@dg.job(resource_defs={"environment": EnvironmentResource()})
def nightly() -> None:
    push(frames())


@dg.job(resource_defs={"environment": EnvironmentResource()})
def never_pushes() -> None:
    push(breaks(frames()))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("history")), overrides=QUIET) as instance:
        yield instance


@pytest.fixture
def instance(history: dg.DagsterInstance) -> dg.DagsterInstance:
    """A history that nobody configured, and in which nothing has happened yet."""
    history.wipe()
    end_dead_runs(history)
    for pool in history.event_log_storage.get_concurrency_keys():
        history.event_log_storage.delete_concurrency_limit(pool)
    return history


def limits(instance: dg.DagsterInstance) -> dict[str, int]:
    return {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()}


def hold(instance: dg.DagsterInstance, *, pool: str = POOL) -> dg.DagsterRun:
    """A living run of this process that holds the pool's slot."""
    put_limit_in_force(instance, pool)
    run = instance.create_run_for_job(nightly, status=dg.DagsterRunStatus.STARTED)
    instance.add_run_tags(run.run_id, process_tags(run.run_id))
    assert instance.event_log_storage.claim_concurrency_slot(pool, run.run_id, "push").is_claimed
    return run


def let_go(
    instance: dg.DagsterInstance, run: dg.DagsterRun, pauses: list[float] | None = None
) -> Callable[[float], None]:
    """What stands in for a pause: the holder ends in it. Each is noted in `pauses`."""

    def pause(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)

    return pause


def test_every_run_puts_the_limit_in_force_names_its_process_and_keeps_no_slot(instance: dg.DagsterInstance) -> None:
    assert limits(instance) == {}
    ran = nightly.execute_in_process(instance=instance)
    assert ran.success
    assert limits(instance) == {POOL: 1}
    run = instance.get_run_by_id(ran.run_id)
    assert run is not None
    assert (run.tags[RUN], run.tags[PROCESS]) == (ran.run_id, str(os.getpid()))
    assert busy_text(instance, POOL) is None


def test_a_run_that_never_comes_to_its_push_gives_its_turn_back(instance: dg.DagsterInstance) -> None:
    assert not never_pushes.execute_in_process(instance=instance, raise_on_error=False).success
    info = instance.event_log_storage.get_concurrency_info(POOL)
    assert (info.claimed_slots, info.pending_steps) == ([], [])


@pytest.mark.parametrize(
    ("default", "in_force"),
    [(None, 1), (1, 1), (5, 1), (0, 0)],
    ids=["no default", "the seed's default", "a default for other pools", "everything paused"],
)
@pytest.mark.parametrize("known_before", [False, True])
def test_the_limit_is_one_whatever_the_history_says_of_pools_in_general(
    tmp_path: Path, default: int | None, in_force: int, known_before: bool
) -> None:
    pools = {} if default is None else {"concurrency": {"pools": {"default_limit": default}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={**QUIET, **pools}) as instance:
        if known_before and default is not None:
            instance.event_log_storage.initialize_concurrency_limit_to_default(POOL)
        put_limit_in_force(instance, POOL)
        assert limits(instance) == {POOL: in_force}
        assert instance.event_log_storage.get_concurrency_info(POOL).slot_count == in_force


@pytest.mark.parametrize("chosen", [0, 3])
def test_a_limit_that_a_person_gave_this_pool_stays(instance: dg.DagsterInstance, chosen: int) -> None:
    instance.event_log_storage.set_concurrency_slots(POOL, chosen)
    put_limit_in_force(instance, POOL)
    assert limits(instance) == {POOL: chosen}


def test_a_pool_is_busy_when_all_its_slots_are_taken(instance: dg.DagsterInstance) -> None:
    holder = hold(instance)
    assert f"run {holder.run_id} of nightly pushes to the same app right now" in str(busy_text(instance, POOL))
    instance.event_log_storage.set_concurrency_slots(POOL, 2)
    assert busy_text(instance, POOL) is None
    instance.event_log_storage.free_concurrency_slots_for_run(holder.run_id)
    instance.event_log_storage.set_concurrency_slots(POOL, 0)
    assert "has a limit of 0; raise it" in str(busy_text(instance, POOL))


def test_a_run_waits_for_its_turn_where_it_sleeps_and_then_goes_on(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = hold(instance)
    monkeypatch.setattr(sharing, "sleep", let_go(instance, holder))
    ran = nightly.execute_in_process(instance=instance)
    assert ran.success, "Dagster found its slot claimed"
    told = [entry.user_message for entry in instance.all_logs(ran.run_id)]
    assert sum(f"Waiting: run {holder.run_id} of nightly" in text for text in told) == 1


def test_two_runs_at_once_push_one_after_the_other(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushing, waiting = threading.Event(), threading.Event()
    steps: list[str] = []

    @dg.op(name="push", pool=POOL)
    def push_slowly(context: dg.OpExecutionContext, environment: EnvironmentResource, number: int) -> None:
        steps.append("begins")
        pushing.set()
        assert waiting.wait(60), "the other run did not wait"
        steps.append("ends")

    @dg.job(resource_defs={"environment": EnvironmentResource()})
    def slowly() -> None:
        push_slowly(frames())

    def pause(_: float) -> None:
        waiting.set()
        threading.Event().wait(0.01)

    monkeypatch.setattr(sharing, "sleep", pause)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(slowly.execute_in_process, instance=instance)
        assert pushing.wait(60)
        second = slowly.execute_in_process(instance=instance)
        assert first.result().success
    assert second.success
    assert steps == ["begins", "ends"] * 2


@pytest.mark.parametrize("granularity", ["op", "run"])
def test_turns_are_taken_whatever_dagster_counts_by(
    tmp_path: Path, granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = {"concurrency": {"pools": {"granularity": granularity}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={**QUIET, **pools}) as instance:
        holder = hold(instance)
        pauses: list[float] = []
        monkeypatch.setattr(sharing, "sleep", let_go(instance, holder, pauses))
        assert nightly.execute_in_process(instance=instance).success
        assert pauses == [sharing.POLL_SECONDS]
        assert busy_text(instance, POOL) is None


def test_a_limit_that_is_deleted_while_a_run_waits_is_put_in_force_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = hold(instance)

    def delete(_: float) -> None:
        let_go(instance, holder)(0)
        instance.event_log_storage.delete_concurrency_limit(POOL)

    monkeypatch.setattr(sharing, "sleep", delete)
    assert nightly.execute_in_process(instance=instance).success
    assert limits(instance) == {POOL: 1}


def test_a_run_from_a_shell_does_not_wait_and_leaves_the_line(instance: dg.DagsterInstance) -> None:
    holder = hold(instance)
    run_id = "00000000-0000-0000-0000-000000000001"
    with pytest.raises(AppBusyError, match=f"run {holder.run_id} of nightly pushes .* start again when it has ended"):
        nightly.execute_in_process(instance=instance, run_id=run_id, tags={FROM_A_SHELL: run_id})
    info = instance.event_log_storage.get_concurrency_info(POOL)
    assert [slot.run_id for slot in info.claimed_slots] == [holder.run_id]
    assert [step.run_id for step in info.pending_steps] == [holder.run_id]


def test_a_run_that_begins_with_its_push_waits_before_dagster_would(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it goes on from a failure."""

    @dg.op(pool=POOL)
    def push_alone(environment: EnvironmentResource) -> None: ...

    @dg.job(resource_defs={"environment": EnvironmentResource()})
    def again() -> None:
        push_alone()

    holder = hold(instance)
    pauses: list[float] = []
    monkeypatch.setattr(sharing, "sleep", let_go(instance, holder, pauses))
    assert again.execute_in_process(instance=instance).success
    assert pauses == [sharing.POLL_SECONDS]


def test_a_run_that_pushes_nothing_waits_for_nobody(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: float) -> None:
        raise AssertionError("it waited")

    hold(instance)
    monkeypatch.setattr(sharing, "sleep", never)
    ran = nightly.execute_in_process(instance=instance, op_selection=["frames"])
    assert ran.success


def two_syncs(*, first_is_skipped: bool = False) -> dg.JobDefinition:
    """Both get their frames, and then both push: in one run, as when two syncs are materialized together."""

    def sync(name: str, breaks: bool) -> tuple[dg.OpDefinition, dg.OpDefinition]:
        @dg.op(name=f"{name}_frames")
        def frames_of(context: dg.OpExecutionContext, environment: EnvironmentResource) -> int:
            take_turn(context.instance, context.run, step=f"{name}_push", tell=context.log.info)
            if breaks:
                raise dg.Failure("a check failed")
            return 1

        @dg.op(name=f"{name}_push", pool=POOL)
        def push_of(context: dg.OpExecutionContext, environment: EnvironmentResource, number: int) -> None:
            (slot,) = context.instance.event_log_storage.get_concurrency_info(POOL).claimed_slots
            assert (slot.run_id, slot.step_key) == (context.run_id, f"{name}_push")

        return frames_of, push_of

    (one_frames, one_push), (two_frames, two_push) = sync("one", first_is_skipped), sync("two", False)

    @dg.job(resource_defs={"environment": EnvironmentResource()})
    def both() -> None:
        one_push(one_frames())
        two_push(two_frames())

    return both


def no_pause(_: float) -> None:
    raise AssertionError("it waited")


def test_a_run_of_two_syncs_does_not_wait_for_itself(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "sleep", no_pause)
    ran = two_syncs().execute_in_process(instance=instance)
    assert ran.success, "Dagster claimed the slot for the second push when the first had ended"
    started = [event.step_key for event in ran.all_events if event.is_step_start]
    assert started[:2] == ["one_frames", "two_frames"], "the second takes its turn while the first has the slot"
    assert busy_text(instance, POOL) is None


def test_a_push_that_was_ruled_out_keeps_no_slot_from_the_runs_other_push(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "sleep", no_pause)
    ran = two_syncs(first_is_skipped=True).execute_in_process(instance=instance, raise_on_error=False)
    started = {event.step_key for event in ran.all_events if event.is_step_start}
    assert started == {"one_frames", "two_frames", "two_push"}
    assert "two_push" in {event.step_key for event in ran.all_events if event.is_step_success}


def test_a_busy_pool_whose_holder_gives_no_sign_of_life_says_what_to_do(instance: dg.DagsterInstance) -> None:
    holder = hold(instance)
    assert "if its host" not in str(busy_text(instance, POOL))
    instance.add_run_tags(holder.run_id, {HOST: "another-host"})
    assert "if its host" not in str(busy_text(instance, POOL)), "it has a heartbeat"
    instance.add_run_tags(holder.run_id, {ALIVE_AT: ""})
    told = str(busy_text(instance, POOL))
    assert "if its host another-host is gone, end it in the UI: the next start frees its slot" in told
    instance.report_run_canceled(holder)
    end_dead_runs(instance)
    assert busy_text(instance, POOL) is None


def test_a_beat_frees_what_a_push_that_was_ruled_out_holds(instance: dg.DagsterInstance) -> None:
    ran = two_syncs(first_is_skipped=True).execute_in_process(instance=instance, raise_on_error=False)
    run = instance.get_run_by_id(ran.run_id)
    assert run is not None
    for step, held in (("two_push", ["two_push"]), ("one_push", [])):
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        assert instance.event_log_storage.claim_concurrency_slot(POOL, run.run_id, step).is_claimed
        sharing._beat(instance, run)
        claimed = instance.event_log_storage.get_concurrency_info(POOL).claimed_slots
        assert [slot.step_key for slot in claimed] == held
