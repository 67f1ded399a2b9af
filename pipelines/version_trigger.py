"""A sensor over a Delta or Iceberg table: every commit is complete, so that a new version needs no other sign."""

import dagster as dg

from connectors.profiles.errors import SourceNotFoundError, SourceTableError
from pipelines.assets import Sync
from pipelines.errors import ConfigurationError
from pipelines.extraction import object_storage, open_table, require_variables
from pipelines.mapping import SyncMapping
from pipelines.resources import push_pool
from pipelines.runs import active_run
from pipelines.sharing import put_limit_in_force

INTERVAL_SECONDS = 60


def is_pinned(mapping: SyncMapping) -> bool:
    """Whether the YAML names one version, which stays as it is; a branch moves on."""
    delta, iceberg = mapping.source.delta, mapping.source.iceberg
    return (delta is not None and delta.version is not None) or (iceberg is not None and iceberg.snapshot is not None)


def new_version_sensor(sync: Sync) -> dg.SensorDefinition:
    """The cursor is the version that had its run. A sensor that is switched on takes the one that is there."""

    @dg.sensor(
        job_name=sync.name,
        name=f"{sync.name}_new_version",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Runs {sync.name} when its table has a new version; off until it is switched on here.",
    )
    def new_version(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        put_limit_in_force(context.instance, push_pool())
        try:
            require_variables(sync.mapping, sync.yaml_file)
            version = open_table(sync.mapping, sync.base, storage=object_storage(sync.mapping)).version
        except (SourceNotFoundError, SourceTableError, ConfigurationError) as error:
            return dg.SkipReason(str(error))
        if not version.id:
            return dg.SkipReason(f"{version} has no rows yet")
        if version.id == context.cursor:
            return dg.SkipReason(f"{version} has had its run")
        if active := active_run(context.instance, sync.name):
            return dg.SkipReason(f"{version} is new; run {active} of {sync.name} is still active")
        # A table that was rolled back has an earlier version again: the cursor before it makes the key a new one.
        run_key = f"version-{version.id}-after-{context.cursor or 'none'}"
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=run_key)], cursor=version.id)

    return new_version
