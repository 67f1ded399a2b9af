"""Runs in Dagster's history, told apart by the tags they carry: whose process is gone, which came from a shell.

A run that was killed stays STARTED in the history, and keeps its slot of the push pool, for ever. Dagster frees what
its own daemon launched, and only where somebody configured that; here every run names its process, so that any later
start on the same host can tell, and says every minute that it lives, so that other hosts can. Containers that share a
host name and a history, but no process numbers, would take each other's runs for dead: give each a name of its own.
"""

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import psutil

HOST, PROCESS, BEGAN = "attribute_sync/host", "attribute_sync/process", "attribute_sync/process_began"
# Dagster copies a run's tags to the runs that retry it: what is true of one run alone names that run.
RUN = "attribute_sync/process_of_run"
ALIVE_AT = "attribute_sync/alive_at"  # renewed while the run lives
FROM_A_SHELL = "attribute_sync/from_a_shell"
REPLAY = "attribute_sync/replay"  # copied on purpose: the retry of a replay is one
GUARDS = "attribute_sync/guards"  # "off" lets the run pass its guards; copied on purpose, as above
PARTITION = "attribute_sync/partition"  # the partition to read in this run; copied on purpose, as above
RUN_KEY = "dagster/run_key"  # the tag by which Dagster knows the runs of a sensor
POOL_PREFIX = "tencent_push/"
PATIENCE_SECONDS = 4 * 3600.0  # two million accounts take three minutes; a first night of fifty million, 90
CLOCK_SECONDS = 5.0  # the system reckons a process's begin from its clock, which may be set meanwhile
SILENT_SECONDS = 600.0  # ten heartbeats: clocks differ, and a history may be out of reach for a while
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def process_tags(run_id: str) -> dict[str, str]:
    """Which process executes the run: its number alone could be another's after a while."""
    began = psutil.Process().create_time()
    named = {RUN: run_id, HOST: socket.gethostname(), PROCESS: str(os.getpid()), BEGAN: f"{began:.2f}"}
    return {**named, **heartbeat_tags()}


def heartbeat_tags() -> dict[str, str]:
    """That the run lives now."""
    return {ALIVE_AT: datetime.now(UTC).isoformat(timespec="seconds")}


def shell_tags(
    run_id: str, *, is_replay: bool = False, without_guards: bool = False, partition: str | None = None
) -> dict[str, str]:
    """The tags of a run that somebody starts at a shell; its process is named before its first step."""
    asked = {REPLAY: "true"} if is_replay else {}
    asked |= {GUARDS: "off"} if without_guards else {}
    asked |= {PARTITION: partition} if partition else {}
    return {**process_tags(run_id), FROM_A_SHELL: run_id, **asked}


def is_from_a_shell(run: dg.DagsterRun) -> bool:
    return run.tags.get(FROM_A_SHELL) == run.run_id


def is_replay(run: dg.DagsterRun) -> bool:
    """Whether rows that were refused for good are to be sent once more."""
    return run.tags.get(REPLAY, "").strip().lower() == "true"


def is_without_guards(run: dg.DagsterRun) -> bool:
    """Whether somebody lets this one run pass, whatever its guards find."""
    return run.tags.get(GUARDS, "").strip().lower() == "off"


def partition_of(run: dg.DagsterRun) -> str | None:
    """The partition that somebody chose for this run."""
    return run.tags.get(PARTITION, "").strip() or None


def patience_seconds(run: dg.DagsterRun) -> float:
    """How long the run waits for another that holds the app: somebody at a shell is told at once."""
    return 0.0 if is_from_a_shell(run) else PATIENCE_SECONDS


def report_cancelling(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tell the history that the run ends because somebody wants it to; the UI may have said so already."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status is not dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceling(run)


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed what the history takes for running although it is dead; their ids.

    On this host that is a run whose process is gone, on another one a run that has been silent for ten minutes.

    Slots of the push pools that ended runs still hold are freed with it.
    """
    dead = [run.run_id for run in _unfinished(instance) if _is_gone(run)]
    # Read again, now that they are known to be gone: one may have ended in good order since, or found its voice.
    marked = [run for run in map(instance.get_run_by_id, dead) if run and not run.is_finished and _is_gone(run)]
    for run in marked:
        instance.report_run_failed(run, _cause_of_death(run))
    _free_slots_of_ended_runs(instance)
    return [run.run_id for run in marked]


def active_run(instance: dg.DagsterInstance, job_name: str) -> str | None:
    """The id of a run of the job that is still under way, if there is one; dead ones are ended first."""
    end_dead_runs(instance)
    return next((run.run_id for run in _unfinished(instance, job_name=job_name)), None)


def failed_run(instance: dg.DagsterInstance, job_name: str, *, run_key: str) -> str | None:
    """The id of the run that a sensor asked for by this key, if it failed."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job_name, tags={RUN_KEY: run_key}), limit=1)
    return runs[0].run_id if runs and runs[0].status is dg.DagsterRunStatus.FAILURE else None


def unheard_host(run: dg.DagsterRun) -> str | None:
    """The other host that the run names, if the run gives no sign of life that can be seen from here."""
    if not _names_its_process(run) or _is_of_this_host(run) or _silent_seconds(run) is not None:
        return None
    return run.tags[HOST]


def _unfinished(instance: dg.DagsterInstance, *, job_name: str | None = None) -> list[dg.DagsterRun]:
    wanted = dg.RunsFilter(job_name=job_name, statuses=list(UNFINISHED))
    return [record.dagster_run for record in instance.get_run_records(wanted)]


def _free_slots_of_ended_runs(instance: dg.DagsterInstance) -> None:
    for run_id in set(_runs_in_pools(instance)):
        run = instance.get_run_by_id(run_id)
        if run is None or (run.is_finished and not _is_alive_elsewhere(run)):
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def _runs_in_pools(instance: dg.DagsterInstance) -> Iterator[str]:
    """The ids of the runs that hold a slot of a push pool, or stand in line for one."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    for pool in storage.get_concurrency_keys():
        if pool.startswith(POOL_PREFIX):
            info = storage.get_concurrency_info(pool)
            yield from (slot.run_id for slot in info.claimed_slots)
            yield from (step.run_id for step in info.pending_steps)


def _is_alive_elsewhere(run: dg.DagsterRun) -> bool:
    """Whether another process of this host still works on it, whatever the history says (it was ended by force)."""
    is_here = _names_its_process(run) and _is_of_this_host(run)
    return is_here and int(run.tags[PROCESS]) != os.getpid() and not _is_gone(run)


def _is_gone(run: dg.DagsterRun) -> bool:
    """Whether the run's process is known to be gone; false where nobody here can know."""
    if not _names_its_process(run):
        return False
    if not _is_of_this_host(run):
        return (_silent_seconds(run) or 0.0) > SILENT_SECONDS
    try:
        process = psutil.Process(int(run.tags[PROCESS]))
        is_another = abs(process.create_time() - float(run.tags[BEGAN])) > CLOCK_SECONDS
        return is_another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _cause_of_death(run: dg.DagsterRun) -> str:
    if _is_of_this_host(run):
        return "The process of this run is gone: it was killed, or its terminal was closed."
    return f"Nothing was heard of this run since {run.tags[ALIVE_AT]}: its host {run.tags[HOST]} is taken for gone."


def _silent_seconds(run: dg.DagsterRun) -> float | None:
    """Since the last heartbeat; None for a run without one."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(run.tags[ALIVE_AT])).total_seconds()
    except (KeyError, ValueError, TypeError):  # the last: a time without a zone
        return None


def _is_of_this_host(run: dg.DagsterRun) -> bool:
    return run.tags.get(HOST) == socket.gethostname()


def _names_its_process(run: dg.DagsterRun) -> bool:
    return run.tags.get(RUN) == run.run_id and HOST in run.tags
