"""What starts a sync beside the clock: a new complete drop of files, or an update of what it depends on."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from pipelines import triggers as module
from pipelines.assets import Sync
from pipelines.attribute_sync import build_definitions
from pipelines.definitions import SHARED
from pipelines.mapping import mapping_from
from pipelines.runs import BEGAN, PARTITION, RUN_KEY, process_tags
from pipelines.triggers import misfits
from tests.project import Project
from tests.running import example_attributes, make_sync, write_profiles

PROFILES = {"user_id": ["u1", "用户二"], "city": ["Bonn", "上海"]}
USERS = {"user_id": {"column": "user_id", "attributes": {"city": "city"}}}
UPSTREAM = dg.AssetKey(["marts", "user_profiles"])
OTHER = dg.AssetKey("segments")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    quiet = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("history")), overrides=quiet) as made:
        yield made


@pytest.fixture
def instance(history: dg.DagsterInstance) -> dg.DagsterInstance:
    """A history on disk in which nothing has happened yet."""
    history.wipe()
    return history


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Watcher:
    """One sensor of a sync, evaluated as the daemon does it: the cursor of one tick is that of the next."""

    def __init__(self, sync: Sync, name: str, instance: dg.DagsterInstance, clock: Clock | None = None) -> None:
        self.sync, self.instance, self.clock = sync, instance, clock or Clock()
        (self.sensor,) = [each for each in module.triggers(sync, clock=self.clock) if each.name == name]
        self.job = dg.Definitions.merge(build_definitions(sync), SHARED).resolve_job_def(sync.name)
        self.cursor: str | None = None
        self.skipped = ""
        self.tags: Mapping[str, str] = {}

    def tick(self, *, minutes: float = 1) -> list[str]:
        """The run keys that were asked for; runs are recorded as the daemon would, but none is executed."""
        self.clock.now += minutes * 60
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor, self.skipped = data.cursor, str(data.skip_message or "")
        keys = [str(request.run_key) for request in data.run_requests or []]
        for request in data.run_requests or []:
            assert request.asset_selection is None, "the whole job"
            self.tags = request.tags
        return keys

    def start(self, key: str = "", *, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> dg.DagsterRun:
        run = self.instance.create_run_for_job(self.job, status=status, tags={RUN_KEY: key} if key else None)
        if status is dg.DagsterRunStatus.STARTED:
            self.instance.add_run_tags(run.run_id, process_tags(run.run_id))
        return run


def files_sync(folder: Path, on_new_files: Mapping[str, Any], **source: Any) -> Sync:
    attributes = {
        "source": {"parquet": "lake", **source},
        "accounts": USERS,
        "schedule": {"on_new_files": dict(on_new_files)},
    }
    return make_sync(folder, attributes)


def drop(folder: Path, name: str = "a.parquet", *, success: bool = True) -> Path:
    path = write_profiles(folder / "lake" / name, PROFILES)
    if success:
        (path.parent / "_SUCCESS").touch()
    return path


# New files ----------------------------------------------------------------------------------------------------------


def test_each_complete_drop_starts_one_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    watcher = Watcher(files_sync(tmp_path, {"success_file": True}), "nightly_new_files", instance)
    drop(tmp_path, success=False)
    assert watcher.tick() == []
    assert "waits for" in watcher.skipped
    drop(tmp_path)
    (first,) = watcher.tick()
    assert watcher.tick() == []
    assert "drop 1" in watcher.skipped
    drop(tmp_path, "b.parquet")
    (second,) = watcher.tick()
    assert first != second


def test_files_that_still_change_are_waited_for(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    watcher = Watcher(files_sync(tmp_path, {"quiet_minutes": 10}), "nightly_new_files", instance)
    path = drop(tmp_path, success=False)
    assert watcher.tick() == []
    assert watcher.tick(minutes=9) == []
    os.utime(path, ns=(1, 1))
    assert watcher.tick() == []
    assert watcher.tick(minutes=9) == []
    assert "taken when nothing changes for 1.0 minutes" in watcher.skipped
    assert len(watcher.tick()) == 1


def test_an_empty_a_vanished_and_a_refilled_folder(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    watcher = Watcher(files_sync(tmp_path, {"success_file": True}), "nightly_new_files", instance)
    assert watcher.tick() == []
    assert "nothing stands at" in watcher.skipped
    path = drop(tmp_path)
    assert len(watcher.tick()) == 1
    path.unlink()
    assert watcher.tick() == []
    assert "no *.parquet file stands in the folder" in watcher.skipped
    drop(tmp_path)
    os.utime(path, ns=(5, 5))
    assert len(watcher.tick()) == 1


def test_an_active_run_is_not_overlapped_and_the_drop_is_not_forgotten(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    watcher = Watcher(files_sync(tmp_path, {"success_file": True}), "nightly_new_files", instance)
    drop(tmp_path)
    active = watcher.start(status=dg.DagsterRunStatus.STARTED)
    assert watcher.tick() == []
    assert active.run_id in watcher.skipped
    instance.report_run_canceled(active)
    assert len(watcher.tick()) == 1


def test_a_dead_run_holds_no_drop_up(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    watcher = Watcher(files_sync(tmp_path, {"success_file": True}), "nightly_new_files", instance)
    drop(tmp_path)
    dead = watcher.start(status=dg.DagsterRunStatus.STARTED)
    instance.add_run_tags(dead.run_id, {BEGAN: "1.00"})
    assert len(watcher.tick()) == 1


def test_a_drop_that_failed_is_not_tried_again_by_itself(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    watcher = Watcher(files_sync(tmp_path, {"success_file": True}), "nightly_new_files", instance)
    drop(tmp_path)
    (key,) = watcher.tick()
    failed = watcher.start(key, status=dg.DagsterRunStatus.FAILURE)
    for _ in range(3):
        assert watcher.tick() == []
        assert f"run {failed.run_id} failed" in watcher.skipped


def test_only_the_newest_partition_is_watched(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    watcher = Watcher(files_sync(tmp_path, {"success_file": True}, partition="latest"), "nightly_new_files", instance)
    drop(tmp_path, "dt=2026-11-20/a.parquet")
    assert len(watcher.tick()) == 1
    drop(tmp_path, "dt=2026-11-19/late.parquet")
    assert watcher.tick() == []
    drop(tmp_path, "dt=2026-11-21/a.parquet", success=False)
    assert watcher.tick() == []
    assert "passed over dt=2026-11-21: no _SUCCESS" in watcher.skipped
    (tmp_path / "lake/dt=2026-11-21/_SUCCESS").touch()
    assert len(watcher.tick()) == 1
    assert watcher.tags[PARTITION] == "dt=2026-11-21", "though a newer one may be begun before the run starts"


def test_a_variable_that_is_not_set_is_told_with_its_line(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    sync = files_sync(tmp_path, {"success_file": True}, parquet="{{ env.NO_SUCH_LAKE }}/x")
    watcher = Watcher(sync, "nightly_new_files", instance)
    assert watcher.tick() == []
    assert "defs.yaml:4: {{ env.NO_SUCH_LAKE }} has no value" in watcher.skipped


# Updates of what the sync depends on --------------------------------------------------------------------------------


@pytest.fixture
def dependent(tmp_path: Path, instance: dg.DagsterInstance) -> Watcher:
    attributes = {
        "source": {"parquet": "lake"},
        "accounts": USERS,
        "depends_on": ["marts/user_profiles", "segments"],
    }
    return Watcher(make_sync(tmp_path, attributes), "nightly_updates", instance)


def update(instance: dg.DagsterInstance, *keys: dg.AssetKey) -> None:
    for key in keys:
        instance.report_runless_asset_event(dg.AssetMaterialization(key))


def test_updates_start_one_run_of_the_whole_job(dependent: Watcher, instance: dg.DagsterInstance) -> None:
    assert dependent.tick() == []
    assert "waits for the first materialization of marts/user_profiles, segments" in dependent.skipped
    update(instance, UPSTREAM)
    assert dependent.tick() == []
    assert "waits for the first materialization of segments" in dependent.skipped
    assert "knows marts/user_profiles" in dependent.skipped
    update(instance, OTHER)
    (first,) = dependent.tick()
    assert dependent.tick() == []
    assert "no update of marts/user_profiles, segments" in dependent.skipped
    update(instance, UPSTREAM)
    update(instance, UPSTREAM)
    (second,) = dependent.tick()
    assert first != second


def test_what_the_last_run_has_read_starts_none_when_the_sensor_is_switched_on(
    dependent: Watcher, instance: dg.DagsterInstance
) -> None:
    update(instance, UPSTREAM, OTHER, dependent.sync.key("user_profiles"))
    assert dependent.tick() == []
    update(instance, OTHER)
    assert len(dependent.tick()) == 1


def test_an_update_during_a_run_is_kept_for_after_it(dependent: Watcher, instance: dg.DagsterInstance) -> None:
    update(instance, UPSTREAM, OTHER)
    active = dependent.start(status=dg.DagsterRunStatus.STARTED)
    assert dependent.tick() == []
    assert active.run_id in dependent.skipped
    instance.report_run_canceled(active)
    assert len(dependent.tick()) == 1


class Outcome(dg.Config):
    passes: bool


@dg.asset(key=UPSTREAM, check_specs=[dg.AssetCheckSpec("not_empty", asset=UPSTREAM, blocking=True)])
def marts(config: Outcome) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes no argument with checks
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=config.passes)])


def outcome(*, passes: bool) -> dict[str, Any]:
    return {"ops": {"marts__user_profiles": {"config": {"passes": passes}}}}


def materialize(instance: dg.DagsterInstance, *, passes: bool) -> dg.ExecuteInProcessResult:
    silent = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return dg.materialize(
        [marts], instance=instance, run_config={**outcome(passes=passes), **silent}, raise_on_error=False
    )


def test_an_update_whose_blocking_check_failed_is_not_passed_on(
    dependent: Watcher, instance: dg.DagsterInstance
) -> None:
    update(instance, OTHER)
    bad = materialize(instance, passes=False)
    assert dependent.tick() == []
    assert f"blocking check not_empty failed in run {bad.run_id}" in dependent.skipped
    materialize(instance, passes=True)
    assert len(dependent.tick()) == 1


def test_a_run_that_makes_an_update_is_waited_for(dependent: Watcher, instance: dg.DagsterInstance) -> None:
    update(instance, OTHER)
    materialize(instance, passes=True)
    job = dg.define_asset_job("build", selection=[marts], config=outcome(passes=True))
    job_definition = dg.Definitions(assets=[marts], jobs=[job]).resolve_job_def("build")
    building = instance.create_run_for_job(job_definition, status=dg.DagsterRunStatus.STARTED)
    assert dependent.tick() == []
    assert f"run {building.run_id} of marts/user_profiles is still active" in dependent.skipped
    instance.report_run_canceled(building)
    assert len(dependent.tick()) == 1


def test_the_profiles_stand_behind_what_they_depend_on(dependent: Watcher) -> None:
    graph = dg.Definitions.merge(build_definitions(dependent.sync), SHARED).resolve_asset_graph()
    assert graph.get(dependent.sync.key("user_profiles")).parent_keys == {UPSTREAM, OTHER}


def test_the_sensors_are_off_until_they_are_switched_on_and_stand_beside_the_schedule(tmp_path: Path) -> None:
    attributes = example_attributes("lake/*.parquet")
    attributes["schedule"] = {"cron": "0 2 * * *", "on_new_files": {"success_file": True}}
    attributes["depends_on"] = ["segments"]
    definitions = build_definitions(make_sync(tmp_path, attributes))
    sensors = {sensor.name: sensor for sensor in definitions.sensors or []}
    assert set(sensors) == {"nightly_new_files", "nightly_updates"}
    assert {sensor.default_status for sensor in sensors.values()} == {dg.DefaultSensorStatus.STOPPED}
    assert len(list(definitions.schedules or [])) == 1


# The YAML -----------------------------------------------------------------------------------------------------------

NO_SIGN = "say how a drop shows that it is complete"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schedule": {"on_new_files": {}}}, NO_SIGN),
        ({"schedule": {"on_new_files": {"success_file": False}}}, NO_SIGN),
        ({"schedule": {"on_new_files": {"quiet_minutes": 0}}}, "greater than 0"),
        ({"schedule": {}}, "say when: `cron:"),
        ({"schedule": {"on_new_files": {"success_file": True}, "timezone": "Nowhere"}}, "timezone is an IANA name"),
        ({"depends_on": ["marts//x"]}, "an asset key has its parts joined by slashes"),
        ({"source": {"parquet": "x", "partition": "newest"}}, "write `latest`, or the keys that tell the newest"),
        ({"source": {"parquet": "x", "partition": {"newest": ["dt"]}}}, "write `latest`, or the keys"),
        ({"updated_at": "at", "source": {"parquet": "x", "max_age": "1 day"}}, "for example 90m, 36h or 7d"),
    ],
)
def test_a_mistake_says_what_to_write(change: Mapping[str, Any], said: str) -> None:
    attributes = {"source": {"parquet": "x"}, "accounts": USERS, **change}
    with pytest.raises(ValidationError, match=re.escape(said)):
        mapping_from(attributes)


WAREHOUSE = {"uri": "duckdb:///x.duckdb", "query": "select 1"}


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        ({"source": {"warehouse": WAREHOUSE}, "schedule": {"on_new_files": {"success_file": True}}}, 13, "no files"),
        ({"source": {"warehouse": WAREHOUSE, "partition": "latest"}}, 7, "no partitions of files"),
        ({"source": {"parquet": "x", "max_age": "36h"}}, 5, "name the column with `updated_at: <column>`"),
        ({"depends_on": ["segments", "nightly/plan"]}, 12, "an asset of this very sync"),
    ],
)
def test_what_does_not_fit_together_is_told_with_its_line(
    tmp_path: Path, change: Mapping[str, Any], line: int, said: str
) -> None:
    attributes = {"source": {"parquet": "x"}, "accounts": USERS, **change}
    sync = make_sync(tmp_path, attributes)
    (found,) = misfits(sync.mapping, sync.name, yaml_file=sync.yaml_file)
    assert found.startswith(f"{sync.yaml_file}:{line}: ")
    assert said in found


SOURCE = "    parquet: data/sample_profiles/*.parquet\n"
OPTIONS = """\
    partition: latest
    max_age: {age: 36h, blocking: true}
  depends_on: [segments]
"""
SCHEDULE = 'schedule: {cron: "0 2 * * *", timezone: Asia/Shanghai}'


def test_dagster_loads_the_yaml_as_it_is_written_and_names_the_line_of_what_does_not_fit(tmp_path: Path) -> None:
    """The YAML is checked against the schema, written out again, and read a second time."""
    project = Project.copy_to(tmp_path)
    project.edit_yaml(SOURCE, SOURCE + OPTIONS)
    project.edit_yaml(SCHEDULE, "schedule: {on_new_files: {success_file: true, quiet_minutes: 2.5}}")
    listed = project.run("-m", "pipelines", "list")
    assert (listed.returncode, listed.stdout) == (0, "example\n"), listed.stderr
    project.edit_yaml("[segments]", "[example/plan]")
    listed = project.run("-m", "pipelines", "list")
    assert listed.returncode == 1
    assert f"{project.yaml}:8: example/plan is an asset of this very sync" in listed.stderr
