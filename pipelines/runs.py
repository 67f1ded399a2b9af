"""Runs in Dagster's history whose process is gone: a run from a shell that was killed stays STARTED there for ever.

Dagster watches the runs that its daemon launched; these are watched here, by the tags that they carry.
"""

import os
import socket

import dagster as dg
import psutil

HOST, PROCESS, BEGAN = "attribute_sync/host", "attribute_sync/process", "attribute_sync/process_began"
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def process_tags() -> dict[str, str]:
    """Which process this is: its number alone could be another's after a while."""
    began = psutil.Process().create_time()
    return {HOST: socket.gethostname(), PROCESS: str(os.getpid()), BEGAN: f"{began:.2f}"}


def is_from_a_shell(run: dg.DagsterRun) -> bool:
    return PROCESS in run.tags


def end_dead_runs(instance: dg.DagsterInstance, job_name: str) -> list[str]:
    """Mark as failed what the history takes for running although its process on this host is gone; their ids."""
    dead = [record.dagster_run for record in _unfinished(instance, job_name) if _is_dead(record.dagster_run)]
    for run in dead:
        instance.report_run_failed(run, "The process of this run is gone: it was killed, or its terminal was closed.")
    return [run.run_id for run in dead]


def active_run(instance: dg.DagsterInstance, job_name: str) -> str | None:
    """The id of a run of the job that is still under way, if there is one; dead ones are ended first."""
    end_dead_runs(instance, job_name)
    return next((record.dagster_run.run_id for record in _unfinished(instance, job_name)), None)


def _unfinished(instance: dg.DagsterInstance, job_name: str) -> list[dg.RunRecord]:
    return list(instance.get_run_records(dg.RunsFilter(job_name=job_name, statuses=list(UNFINISHED))))


def _is_dead(run: dg.DagsterRun) -> bool:
    if not is_from_a_shell(run) or run.tags.get(HOST) != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(run.tags[PROCESS]))
        return f"{process.create_time():.2f}" != run.tags.get(BEGAN) or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
