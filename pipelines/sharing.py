"""One pusher per app among all runs of one Dagster history: the app's pool, its limit of one, and whose turn it is.

Runs of different histories know nothing of each other; on one machine they still meet at the app's lock (push.py).
While another run holds the pool's slot, Dagster's own executor waits without sleeping: it keeps a core busy and takes
no notice of a termination. So a run waits here, where it sleeps and can be terminated, and claims the slot in Dagster's
own table under the push's name; Dagster then finds it claimed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread
from time import monotonic, sleep

import dagster as dg

from pipelines.errors import AppBusyError
from pipelines.runs import (
    POOL_PREFIX,
    end_dead_runs,
    heartbeat_tags,
    patience_seconds,
    process_tags,
    unheard_host,
)

POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 60.0
LAST_BEAT_SECONDS = 5.0  # how long the end of a run waits for a beat that is under way


def put_limit_in_force(instance: dg.DagsterInstance, pool: str) -> None:
    """Give the pool its limit of one where nobody gave it another.

    A limit that a person gave this pool stays, and so does a default of none at all; a default above one was meant for
    other pools.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    known = {limit.name: limit for limit in storage.get_pool_limits()}.get(pool)
    if known is not None and (not known.from_default or known.limit <= 1):
        return
    default = instance.global_op_concurrency_default_limit
    if known is None and default is not None and default <= 1:
        storage.initialize_concurrency_limit_to_default(pool)
    else:
        storage.set_concurrency_slots(pool, 1)


def busy_text(instance: dg.DagsterInstance, pool: str, *, own_run_id: str = "") -> str | None:
    """Why another run cannot push now, for people; None when the pool has a slot to give."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return None
    info = storage.get_concurrency_info(pool)
    holders = [slot.run_id for slot in info.claimed_slots if slot.run_id != own_run_id]
    if info.limit is None or len(holders) < info.limit:
        return None
    if not holders:
        return f"Dagster's pool {pool} has a limit of {info.limit}; raise it to let runs push"
    run = instance.get_run_by_id(holders[0])
    named = f"run {holders[0]}" if run is None else f"run {run.run_id} of {run.job_name}"
    host = run and unheard_host(run)
    remedy = f"; if its host {host} is gone, end it in the UI: the next start frees its slot" if host else ""
    return f"{named} pushes to the same app right now (Dagster's pool {pool}){remedy}"


@contextmanager
def shared(instance: dg.DagsterInstance, run: dg.DagsterRun, *, tell: Callable[[str], None]) -> Iterator[None]:
    """Around all steps of a run: it names its process, frees what dead runs hold, and keeps no slot beyond its end."""
    instance.add_run_tags(run.run_id, process_tags(run.run_id))
    end_dead_runs(instance)
    for pool in _pools(run):
        put_limit_in_force(instance, pool)
    try:
        with _heart(partial(_beat, instance, run)):
            for pool in _pools(run, at_once=True):
                _wait(instance, pool, run=run, is_there=partial(_is_free, instance, pool), tell=tell)
            yield
    finally:
        if instance.event_log_storage.supports_global_concurrency_limits and _pools(run):
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


@contextmanager
def _heart(beat: Callable[[], None]) -> Iterator[None]:
    """Calls `beat` every minute, beside what runs; what it raises is not the run's trouble, nor is its death."""
    is_over = Event()

    def keep_beating() -> None:
        while not is_over.wait(HEARTBEAT_SECONDS):
            with suppress(Exception):  # the history is locked or out of reach; the next beat may come through
                beat()

    thread = Thread(target=keep_beating, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(LAST_BEAT_SECONDS)


def _beat(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.add_run_tags(run.run_id, heartbeat_tags())
    for pool in _pools(run):
        _free_ruled_out(instance, pool, run)


def take_turn(instance: dg.DagsterInstance, run: dg.DagsterRun, *, step: str, tell: Callable[[str], None]) -> None:
    """Claim the slot that the step `step` of this run is going to need; nothing when the run has no such step.

    A run of several syncs keeps the slot that it has for the push that comes first; Dagster claims it again for the
    next one, when that is due. Raises AppBusyError when another run still holds it after this run's patience.
    """
    for pool in _pools(run):
        if instance.event_log_storage.supports_global_concurrency_limits:
            _free_ruled_out(instance, pool, run)
            if _claimed_steps(instance, pool, run.run_id):
                continue
            _wait(
                instance,
                pool,
                run=run,
                is_there=partial(_claim, instance, pool, run.run_id, step),
                tell=tell,
            )


def _pools(run: dg.DagsterRun, *, at_once: bool = False) -> list[str]:
    """The push pools that the run's steps need; `at_once` only those that its first steps need."""
    needed = run.run_op_concurrency
    if needed is None:
        return []
    return sorted(
        pool for pool in (needed.root_key_counts if at_once else needed.all_pools or ()) if pool.startswith(POOL_PREFIX)
    )


def _is_free(instance: dg.DagsterInstance, pool: str) -> bool:
    return busy_text(instance, pool) is None


def _claim(instance: dg.DagsterInstance, pool: str, run_id: str, step: str) -> bool:
    return bool(instance.event_log_storage.claim_concurrency_slot(pool, run_id, step).is_claimed)


def _claimed_steps(instance: dg.DagsterInstance, pool: str, run_id: str) -> list[str]:
    info = instance.event_log_storage.get_concurrency_info(pool)
    return [slot.step_key for slot in info.claimed_slots if slot.run_id == run_id]


def _free_ruled_out(instance: dg.DagsterInstance, pool: str, run: dg.DagsterRun) -> None:
    """Free what the run holds for a push whose frames failed: its other pushes would wait for it, for ever."""
    storage = instance.event_log_storage
    claimed = _claimed_steps(instance, pool, run.run_id) if storage.supports_global_concurrency_limits else []
    if not claimed or run.execution_plan_snapshot_id is None:
        return
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.STEP_SKIPPED}
    ended = {
        record.event_log_entry.step_key for record in instance.get_records_for_run(run.run_id, of_type=kinds).records
    }
    for step in instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).steps:
        needed = {handle.step_key for each in step.inputs for handle in each.upstream_output_handles}
        if step.key in claimed and ended & {step.key, *needed}:
            storage.free_concurrency_slot_for_step(run.run_id, step.key)


def _wait(
    instance: dg.DagsterInstance,
    pool: str,
    *,
    run: dg.DagsterRun,
    is_there: Callable[[], bool],
    tell: Callable[[str], None],
) -> None:
    """Until `is_there`. What it leaves in Dagster's table when it raises, `shared` takes away."""
    deadline = monotonic() + patience_seconds(run)
    told = None
    while True:
        end_dead_runs(instance)
        put_limit_in_force(instance, pool)
        if is_there():
            return
        why = busy_text(instance, pool, own_run_id=run.run_id) or "another run stands before this one in line"
        if monotonic() >= deadline:
            raise AppBusyError(f"{why}; start again when it has ended")
        if why != told:
            tell(f"Waiting: {why}")
            told = why
        sleep(POLL_SECONDS)
