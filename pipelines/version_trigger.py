"""A sensor over a Delta or Iceberg table: every commit is complete, so that a new version needs no other sign."""

from dataclasses import asdict, dataclass

import dagster as dg
import orjson

from connectors.profiles.errors import SourceNotFoundError, SourceTableError
from connectors.profiles.lake.lake_table import TableVersion
from pipelines.assets import Sync
from pipelines.errors import ConfigurationError
from pipelines.extraction import object_storage, open_table, require_variables
from pipelines.mapping import SyncMapping
from pipelines.resources import push_pool
from pipelines.runs import active_run, failed_run
from pipelines.sharing import put_limit_in_force

INTERVAL_SECONDS = 60


@dataclass(frozen=True, slots=True)
class _Taken:
    """The version that had its run. `number` counts them: one that comes back after another is a new one.

    A table that was written anew has version numbers that another one had before it; the time tells them apart.
    """

    id: str = ""
    committed_at: str = ""
    number: int = 0

    @property
    def key(self) -> str:
        return f"version-{self.number}-{self.id}-{self.committed_at}"

    def is_of(self, version: TableVersion) -> bool:
        """By its number alone where a checkpoint has taken the place of the commit that told the time."""
        then, now = self.committed_at, _time(version)
        return self.id == version.id and (then == now or not (then and now))

    def then(self, version: TableVersion) -> "_Taken":
        return _Taken(version.id, _time(version), self.number + 1)

    @classmethod
    def from_text(cls, text: str | None) -> "_Taken":
        """Nothing was taken where the text is not this class's own."""
        try:
            return cls(**orjson.loads(text or "{}"))
        except (orjson.JSONDecodeError, TypeError):
            return cls()


def _time(version: TableVersion) -> str:
    return version.committed_at.isoformat() if version.committed_at else ""


def _how_it_went(instance: dg.DagsterInstance, sync: Sync, taken: _Taken) -> str:
    """A version whose run failed gets no other by itself."""
    failed = failed_run(instance, sync.name, run_key=taken.key)
    return f"; run {failed} failed: mend what it says, then run the sync by hand" if failed else ""


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
        taken = _Taken.from_text(context.cursor)
        if not version.id:
            return dg.SkipReason(f"{version} has no rows yet")
        if taken.is_of(version):
            return dg.SkipReason(f"{version} has had its run{_how_it_went(context.instance, sync, taken)}")
        if active := active_run(context.instance, sync.name):
            return dg.SkipReason(f"{version} is new; run {active} of {sync.name} is still active")
        now = taken.then(version)
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=now.key)], cursor=orjson.dumps(asdict(now)).decode())

    return new_version
