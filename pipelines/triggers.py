"""What starts a sync beside the clock: a new complete drop of files, or an update of the assets it depends on.

A new version of a table is watched in version_trigger.py. All are plain sensors that ask for the sync's own job, always
whole. An automation condition would ask for assets (or, as a preview, for a job: again at every tick until the profiles
are materialized, so that a failing source would start runs without end). Each starts one run per event, none while a
run is active, and says why it starts none.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import orjson

from connectors.profiles.drops import Watched, look
from connectors.profiles.errors import SourceNotFoundError, SourcePartitionError
from connectors.profiles.files import found_files, success_file_ns
from connectors.profiles.partitions import choose
from pipelines.assets import Sync
from pipelines.errors import ConfigurationError
from pipelines.extraction import no_partitions, object_storage, require_variables, wanted_partition
from pipelines.mapping import SyncMapping
from pipelines.resources import push_pool
from pipelines.runs import PARTITION, UNFINISHED, active_run, failed_run
from pipelines.sharing import put_limit_in_force
from pipelines.source_options import OnNewFiles, SourceKind
from pipelines.version_trigger import INTERVAL_SECONDS, is_pinned, new_version_sensor
from pipelines.yaml_lines import locate

Answer = dg.SensorResult | dg.SkipReason


def misfits(mapping: SyncMapping, sync: str, *, yaml_file: Path) -> list[str]:
    """What does not fit together in the YAML, each with its line."""
    return [f"{locate(yaml_file, ('attributes', *path))}: {text}" for path, text in _misfits(mapping, sync)]


def _misfits(mapping: SyncMapping, sync: str) -> Iterator[tuple[tuple[str | int, ...], str]]:
    kind, schedule = mapping.source.kind, mapping.schedule
    if kind is not SourceKind.PARQUET:
        if schedule and schedule.on_new_files:
            yield ("schedule", "on_new_files"), _nothing_to_watch(kind)
        if mapping.source.partition:
            yield ("source", "partition"), no_partitions(kind)
    if schedule and schedule.on_new_version:
        if kind not in (SourceKind.DELTA, SourceKind.ICEBERG):
            yield ("schedule", "on_new_version"), f"{kind} has no versions; it is for Delta and Iceberg tables"
        elif is_pinned(mapping):
            yield ("schedule", "on_new_version"), f"{kind} names one version, which never is a new one"
    if mapping.source.max_age and not mapping.updated_at:
        yield (
            ("source", "max_age"),
            "`max_age` looks at the newest `updated_at`; name the column with `updated_at: <column>`",
        )
    for index, key in enumerate(mapping.depends_on):
        if key.split("/")[0] == sync:
            yield ("depends_on", index), f"{key} is an asset of this very sync; name what it is computed from"


def _nothing_to_watch(kind: SourceKind) -> str:
    if kind is SourceKind.WAREHOUSE:
        return "a warehouse has no files to watch; use cron, or `depends_on`"
    return "a table's files come and go with its versions; use `on_new_version: true`, cron, or `depends_on`"


def triggers(sync: Sync, *, clock: Callable[[], float] = time.time) -> list[dg.SensorDefinition]:
    """The sensors that the YAML asks for. `clock` gives seconds since 1970."""
    schedule = sync.mapping.schedule
    sensors = []
    if schedule and schedule.on_new_files and sync.mapping.source.parquet:
        sensors.append(_new_files(sync, schedule.on_new_files, clock))
    if schedule and schedule.on_new_version:
        sensors.append(new_version_sensor(sync))
    if sync.mapping.depends_on:
        sensors.append(_updates(sync))
    return sensors


def _new_files(sync: Sync, rule: OnNewFiles, clock: Callable[[], float]) -> dg.SensorDefinition:

    @dg.sensor(
        job_name=sync.name,
        name=f"{sync.name}_new_files",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Runs {sync.name} when a new complete drop of files is there; off until it is switched on here.",
    )
    def new_files(context: dg.SensorEvaluationContext) -> Answer:
        put_limit_in_force(context.instance, push_pool())
        try:
            require_variables(sync.mapping, sync.yaml_file)
            storage = object_storage(sync.mapping)  # a new one at every look: it remembers what it lists
            success_ns = partial(success_file_ns, storage=storage)
            found = found_files(sync.mapping.source.parquet or [], sync.base, storage=storage)
            choice = choose(found, wanted_partition(sync.mapping), success_ns=success_ns)
        except (SourceNotFoundError, SourcePartitionError, ConfigurationError) as error:
            return dg.SkipReason(str(error))
        watched = Watched.from_text(context.cursor)
        seen = look(choice.files, watched, rule.rule, now=clock(), success_ns=success_ns)
        passed_over = f" (passed over {'; '.join(choice.passed_over)})" if choice.passed_over else ""
        if seen.key is None:
            context.update_cursor(seen.watched.to_text())
            return dg.SkipReason(f"{seen.why}{passed_over}{_how_it_went(context.instance, sync, seen.watched)}")
        if active := active_run(context.instance, sync.name):
            # Not taken: the run may have read the files before this drop was whole.
            return dg.SkipReason(f"new files; run {active} of {sync.name} is still active")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=seen.key, tags=_pinned(choice.partition))],
            cursor=seen.watched.to_text(),
        )

    return new_files


def _pinned(partition: str | None) -> dict[str, str]:
    """The run reads the partition that was found complete, though a newer one may be begun before it starts."""
    return {PARTITION: partition} if partition else {}


def _how_it_went(instance: dg.DagsterInstance, sync: Sync, watched: Watched) -> str:
    """A drop whose run failed gets no other by itself: say so where people look for the reason."""
    if not watched.taken or watched.seen != watched.taken:
        return ""
    failed = failed_run(instance, sync.name, run_key=f"drop-{watched.number}-{watched.taken}")
    return (
        f"; run {failed} failed: mend what it says, then run the sync by hand, or write the files again"
        if failed
        else ""
    )


def _updates(sync: Sync) -> dg.SensorDefinition:
    keys = [dg.AssetKey.from_user_string(key) for key in sync.mapping.depends_on]

    @dg.sensor(
        job_name=sync.name,
        name=f"{sync.name}_updates",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Runs {sync.name} when what it depends on was updated; off until it is switched on here.",
    )
    def updates(context: dg.SensorEvaluationContext) -> Answer:
        put_limit_in_force(context.instance, push_pool())
        records = {key: context.instance.fetch_materializations(key, limit=1).records for key in keys}
        missing = [key.to_user_string() for key, found in records.items() if not found]
        if missing:
            return dg.SkipReason(_never(context.instance, missing))
        newest = {key.to_user_string(): found[0].storage_id for key, found in records.items()}
        taken = _taken(context, sync)
        if isinstance(taken, int):  # the first look: what the sync's last run could read needs no other
            updated = [name for name, storage_id in newest.items() if storage_id > taken]
        else:
            updated = [name for name, storage_id in newest.items() if storage_id > taken.get(name, 0)]
        cursor = orjson.dumps(newest).decode()
        if not updated:
            context.update_cursor(cursor)
            return dg.SkipReason(f"no update of {', '.join(newest)} since {sync.name} ran last")
        for key in keys:
            if waits := _in_progress(context.instance, key):
                return dg.SkipReason(f"{', '.join(updated)} updated; {waits}")
        failed = _failed_check(context.instance, {key: found[0].run_id for key, found in records.items()})
        if failed:
            return dg.SkipReason(f"{', '.join(updated)} updated; {failed}")
        if active := active_run(context.instance, sync.name):
            return dg.SkipReason(f"{', '.join(updated)} updated; run {active} of {sync.name} is still active")
        run_key = "updates-" + hashlib.sha256(cursor.encode()).hexdigest()[:16]
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=run_key)], cursor=cursor)

    return updates


def _never(instance: dg.DagsterInstance, missing: list[str]) -> str:
    known = ", ".join(sorted(key.to_user_string() for key in instance.get_asset_keys(limit=20)))
    return (
        f"waits for the first materialization of {', '.join(missing)}; if that is no asset, correct `depends_on`. "
        f"This Dagster history knows {known or 'no asset yet'}"
    )


def _taken(context: dg.SensorEvaluationContext, sync: Sync) -> dict[str, int] | int:
    """The updates that had their run; at the first look the sync's own last extraction, 0 where there is none."""
    try:
        known = orjson.loads(context.cursor or "null")
    except orjson.JSONDecodeError:
        known = None
    if isinstance(known, dict):
        return known
    own = context.instance.fetch_materializations(sync.key("user_profiles"), limit=1).records
    return own[0].storage_id if own else 0


def _in_progress(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """A run that materializes the asset, or is about to, and has not ended."""
    planned = instance.event_log_storage.get_latest_planned_materialization_info(key)
    made = instance.fetch_materializations(key, limit=1).records
    for run_id in dict.fromkeys([planned.run_id if planned else None, *(record.run_id for record in made)]):
        run = instance.get_run_by_id(run_id) if run_id else None
        if run is not None and run.status in UNFINISHED:
            return f"run {run.run_id} of {key.to_user_string()} is still active"
    return None


def _failed_check(instance: dg.DagsterInstance, runs: dict[dg.AssetKey, str]) -> str | None:
    """A blocking check of an update that failed in the run that made it: its data are not to be passed on."""
    for key, run_id in runs.items():
        records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
        for record in records:
            event = record.event_log_entry.dagster_event
            check = event.asset_check_evaluation_data if event else None
            if check and check.asset_key == key and _has_stopped(check):
                return f"its blocking check {check.check_name} failed in run {run_id}; waits for the next update"
    return None


def _has_stopped(check: dg.AssetCheckEvaluation) -> bool:
    return bool(check.blocking) and not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
