"""Syncs over Delta and Iceberg tables: whole runs, what they tell, what does not fit, and what starts them."""

import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import deltalake
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from pipelines.assets import Sync
from pipelines.attribute_sync import build_definitions
from pipelines.definitions import SHARED
from pipelines.runs import PARTITION, RUN_KEY, process_tags
from pipelines.triggers import misfits, triggers
from tests.lake_tables import catalog_properties, open_catalog, write_delta, write_iceberg
from tests.running import Ran, emulator_state, make_sync, run

USERS = {"user_id": {"column": "user", "attributes": {"city": "city"}}}
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {
        "ATTRIBUTE_SYNC_DATA": str(tmp_path / "data"),
        "TENCENT_PUSH_CALLS_PER_SECOND": "1000",
        "PYICEBERG_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def people(**cities: str) -> pa.Table:
    at = pa.array([NOW - timedelta(hours=2)] * len(cities), pa.timestamp("us", "UTC"))
    return pa.table({"user": list(cities), "city": list(cities.values()), "at": at})


class Lake:
    """One table of each format, as its users write to it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.catalog: Catalog | None = open_catalog(folder / "lake") if kind == "iceberg" else None

    @property
    def source(self) -> dict[str, Any]:
        if self.kind == "delta":
            return {"delta": "lake/people"}
        return {
            "iceberg": {
                "catalog": {"name": "test", **catalog_properties(self.folder / "lake")},
                "table": "marts.people",
            }
        }

    def append(self, rows: pa.Table) -> None:
        if self.catalog is None:
            write_delta(self.folder / "lake/people", rows)
        elif self.catalog.table_exists("marts.people"):
            self.catalog.load_table("marts.people").append(rows)
        else:
            write_iceberg(self.catalog, "marts.people", rows)

    def drop_column(self, name: str) -> None:
        if self.catalog is not None:
            with self.catalog.load_table("marts.people").update_schema() as update:
                update.delete_column(name)
            return
        table = deltalake.DeltaTable(self.folder / "lake/people")
        rows = pa.table(table.scan()).drop_columns([name])
        deltalake.write_deltalake(table, rows, mode="overwrite", schema_mode="overwrite")

    def sync(self, source: Mapping[str, Any] | None = None, **more: Any) -> Sync:
        described = {**self.source, **(source or {})}
        return make_sync(self.folder, {"source": described, "accounts": USERS, "updated_at": "at", **more})


@pytest.fixture(params=["delta", "iceberg"])
def lake(folder: Path, request: pytest.FixtureRequest) -> Lake:
    made = Lake(folder, request.param)
    made.append(people(u1="Bonn", 用户二="上海"))
    return made


def test_a_sync_reads_the_newest_version_each_night_and_says_which(lake: Lake, folder: Path) -> None:
    first = run(lake.sync())
    assert first.succeeded, first.failure
    told = first.metadata("user_profiles")
    assert told["source"] == lake.kind
    assert told["dagster/row_count"] == 2
    assert told["table"] == told["dagster/uri"]
    assert str(folder / "lake/people") == told["table"] or told["table"] == "marts.people of the catalog test"
    assert abs(told["table_committed_at"] - NOW.timestamp()) < 3600
    assert told["newest_updated_at"] == (NOW - timedelta(hours=2)).timestamp()

    lake.append(people(u1="Köln"))  # as new as the row before it: the later commit wins
    second = run(lake.sync())
    assert emulator_state(folder / "data") == {"u1": {"city": "Köln"}, "用户二": {"city": "上海"}}
    assert second.metadata("user_id_attributes")["changed"] == 1
    assert second.metadata("user_profiles")["table_version"] != told["table_version"]
    pinned = dict(lake.source)
    version = int(told["table_version"])
    pinned[lake.kind] = (
        {"table": "lake/people", "version": version}
        if lake.kind == "delta"
        else {**pinned["iceberg"], "snapshot": version}
    )
    third = run(lake.sync(pinned))
    assert third.metadata("user_profiles")["table_version"] == told["table_version"]
    assert emulator_state(folder / "data")["u1"] == {"city": "Bonn"}


def test_a_plan_and_an_adoption_read_a_table_too(lake: Lake) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        planned = run(lake.sync(), instance=instance, suffix="_plan")
        assert planned.succeeded, planned.failure
        config = {"ops": {"nightly__adopt": {"config": {"confirm": "nightly", "again": False}}}}
        adopted = run(lake.sync(), instance=instance, suffix="_adopt", config=config)
    assert adopted.succeeded, adopted.failure
    assert adopted.metadata("acknowledged_attributes")["user_id_adopted"] == 2


def test_a_table_that_is_too_old_is_told_by_max_age(lake: Lake) -> None:
    ran = run(lake.sync({"max_age": {"age": "1h", "blocking": True}}))
    assert not ran.succeeded
    assert ran.checks()["user_profiles:fresh"] is False
    assert run(lake.sync({"max_age": "3h"})).checks()["user_profiles:fresh"] is True


def test_a_column_that_was_dropped_is_told_with_the_yaml_s_line(lake: Lake) -> None:
    sync = lake.sync()
    lake.drop_column("city")
    ran = run(sync)
    assert not ran.succeeded
    assert "has no column 'city' (" in ran.failure
    assert f"Named in {sync.yaml_file}:" in ran.failure


def test_a_table_that_vanished_is_told_with_the_yaml_s_line(lake: Lake) -> None:
    sync = lake.sync()
    if lake.catalog is not None:
        lake.catalog.drop_table("marts.people")
    else:
        shutil.rmtree(lake.folder / "lake/people")
    ran = run(sync)
    assert not ran.succeeded
    assert re.search(r"defs.yaml:4: (No Delta table stands at|There is no Iceberg table)", ran.failure)


def test_a_partition_that_somebody_chooses_is_refused(lake: Lake) -> None:
    ran = run(lake.sync(), tags={PARTITION: "dt=2026-11-20"})
    assert not ran.succeeded
    assert "defs.yaml:4: a table has no partition 'dt=2026-11-20'" in ran.failure


def test_a_version_that_is_not_there_is_told_with_the_yaml_s_line(folder: Path) -> None:
    lake = Lake(folder, "delta")
    lake.append(people(u1="Bonn"))
    ran = run(lake.sync({"delta": {"table": "lake/people", "version": 7}}))
    assert "defs.yaml:4: The Delta table" in ran.failure
    assert "version 7 does not exist: the newest is 0" in ran.failure


def test_a_variable_that_is_not_set_is_told_with_its_line(folder: Path) -> None:
    lake = Lake(folder, "delta")
    ran = run(lake.sync({"delta": "{{ env.LAKE_OF_NOBODY }}"}))
    assert "defs.yaml:4: {{ env.LAKE_OF_NOBODY }} has no value" in ran.failure


@pytest.mark.parametrize(("change", "said"), [
    ({"source": {"delta": "t", "partition": "latest"}}, "defs.yaml:5: a table has no partitions of files"),
    ({"schedule": {"on_new_files": {"success_file": True}}}, "use `on_new_version: true`, cron, or `depends_on`"),
    ({"source": {"parquet": "p"}, "schedule": {"on_new_version": True}}, "parquet has no versions"),
    ({"source": {"delta": {"table": "t", "version": 1}}, "schedule": {"on_new_version": True}}, "delta names one"),
    ({"source": {"iceberg": {"table": "a.b", "snapshot": 1}}, "schedule": {"on_new_version": True}}, "iceberg names"),
])  # fmt: skip
def test_what_does_not_fit_together_is_told_with_its_line(folder: Path, change: Mapping[str, Any], said: str) -> None:
    sync = make_sync(folder, {"source": {"delta": "t"}, "accounts": USERS, **change})
    (found,) = misfits(sync.mapping, sync.name, yaml_file=sync.yaml_file)
    assert said in found
    assert "defs.yaml:" in found


# New versions -------------------------------------------------------------------------------------------------------


class Watcher:
    """The sensor, evaluated as the daemon does it."""

    def __init__(self, sync: Sync, instance: dg.DagsterInstance) -> None:
        self.sync, self.instance = sync, instance
        (self.sensor,) = triggers(sync)
        self.cursor: str | None = None
        self.skipped = ""

    def tick(self) -> list[str]:
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor, self.skipped = data.cursor or self.cursor, str(data.skip_message or "")
        return [str(request.run_key) for request in data.run_requests or []]


@pytest.fixture
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    quiet = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("history")), overrides=quiet) as made:
        yield made


def test_each_new_version_starts_one_run(lake: Lake, instance: dg.DagsterInstance) -> None:
    sync = lake.sync(schedule={"on_new_version": True})
    watcher = Watcher(sync, instance)
    assert watcher.sensor.name == "nightly_new_version"
    (first,) = watcher.tick()
    assert watcher.tick() == []
    assert watcher.skipped.endswith("has had its run")
    lake.append(people(u3="Köln"))
    job = dg.Definitions.merge(build_definitions(sync), SHARED).resolve_job_def(sync.name)
    active = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    instance.add_run_tags(active.run_id, process_tags(active.run_id))
    assert watcher.tick() == []
    assert f"is new; run {active.run_id} of nightly is still active" in watcher.skipped
    instance.delete_run(active.run_id)
    (second,) = watcher.tick()
    failed = instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE, tags={RUN_KEY: second})
    assert watcher.tick() == []
    assert watcher.skipped.endswith(
        f"has had its run; run {failed.run_id} failed: mend what it says, then run the sync by hand"
    )
    assert second != first
    if lake.kind == "delta":  # rolled back by a commit of its own
        deltalake.DeltaTable(lake.folder / "lake/people").restore(0)
        assert len(watcher.tick()) == 1


def test_versions_that_come_back_start_runs_of_their_own(lake: Lake, instance: dg.DagsterInstance) -> None:
    watcher = Watcher(lake.sync(schedule={"on_new_version": True}), instance)
    lake.append(people(u3="Köln"))
    versions: list[Any] = [1, 0]
    if lake.catalog is not None:
        versions = [each.snapshot_id for each in lake.catalog.load_table("marts.people").snapshots()][::-1]
    keys = watcher.tick()
    for version in [versions[1], versions[0]] * 2:
        if lake.catalog is not None:
            lake.catalog.load_table("marts.people").manage_snapshots().set_current_snapshot(version).commit()
        else:
            deltalake.DeltaTable(lake.folder / "lake/people").restore(version)
        keys += watcher.tick()
    assert len(set(keys)) == 5


def test_a_table_that_was_written_anew_has_new_versions_of_the_same_numbers(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    lake = Lake(folder, "delta")
    watcher = Watcher(lake.sync(schedule={"on_new_version": True}), instance)
    keys: list[str] = []
    for cities in ("Bonn", "Köln"):
        shutil.rmtree(folder / "lake/people", ignore_errors=True)
        for user in ("u1", "u2"):
            lake.append(people(**{user: cities}))
            keys += watcher.tick()
        assert watcher.tick() == []
    lake.append(people(u3="Bonn"))
    keys += watcher.tick()
    shutil.rmtree(folder / "lake/people")
    for user in ("u1", "u2", "u3"):  # between two looks, as many versions as it had
        lake.append(people(**{user: "Bonn"}))
    keys += watcher.tick()
    assert len(set(keys)) == 6
    deltalake.DeltaTable(folder / "lake/people").create_checkpoint()
    (folder / "lake/people/_delta_log/00000000000000000002.json").unlink()  # with the time of the version
    assert watcher.tick() == []


def test_a_table_that_is_not_there_yet_is_waited_for(folder: Path, instance: dg.DagsterInstance) -> None:
    lake = Lake(folder, "delta")
    watcher = Watcher(lake.sync(schedule={"on_new_version": True}), instance)
    assert watcher.tick() == []
    assert watcher.skipped.startswith("No Delta table stands at")
    lake.append(people(u1="Bonn"))
    assert len(watcher.tick()) == 1


def test_secrets_of_a_catalog_are_shown_nowhere(folder: Path) -> None:
    lake = Lake(folder, "iceberg")
    uri = "postgresql+psycopg2://reader:planted-password@127.0.0.1:9/catalog"
    sync = lake.sync({"iceberg": {"catalog": {"type": "sql", "uri": uri}, "table": "marts.people"}})
    ran: Ran = run(sync)
    assert not ran.succeeded
    assert "planted-password" not in str(ran.result.all_events)
    assert "planted-password" not in repr(sync.mapping)
