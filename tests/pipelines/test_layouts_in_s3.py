"""Partitions, freshness and the sensor of new files over object storage: whole runs and looks at a real S3 server."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import SourceUnreadableError
from pipelines import triggers
from pipelines.assets import Sync
from pipelines.runs import PARTITION
from tests.object_storage import S3, Answer, Request, Wire, parquet_bytes
from tests.running import Ran, emulator_state, make_sync, run

NIGHT = datetime(2026, 11, 21, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "1000")
    return tmp_path


@pytest.fixture
def lake(s3: S3, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    return s3.bucket(f"lake-{abs(hash(request.node.name)) % 10**9}")


def profiles(users: Sequence[str], **columns: Any) -> bytes:
    return parquet_bytes({"user": list(users), "city": [f"上海 {user}" for user in users], **columns})


def put(s3: S3, lake: str, place: str, users: Sequence[str], *, success: bool = True, **columns: Any) -> None:
    s3.put(lake, f"{place}/part-0.parquet", profiles(users, **columns))
    if success:
        s3.put(lake, f"{place}/_SUCCESS", b"")


def sync_of(folder: Path, endpoint: str, lake: str, **more: Any) -> Sync:
    user = {"column": "user", "attributes": {"city": "city"}}
    source = {"parquet": f"s3://{lake}/p", "storage": {"endpoint": endpoint}, **more.pop("source", {})}
    return make_sync(folder, {"source": source, "accounts": {"user_id": more.pop("user", user)}, **more})


def ran(folder: Path, endpoint: str, lake: str, *, tags: dict[str, str] | None = None, **more: Any) -> Ran:
    return run(sync_of(folder, endpoint, lake, **more), tags=tags)


# Partitions ---------------------------------------------------------------------------------------------------------


def test_only_the_newest_complete_partition_is_read_and_named_as_it_stands_there(
    folder: Path, s3: S3, lake: str
) -> None:
    put(s3, lake, "p/dt=2026-11-19", ["u0"])
    put(s3, lake, "p/dt=2026-11-20", ["u1", "用户二"])
    put(s3, lake, "p/dt=2026-11-21", ["u3"], success=False)
    user = {"column": "user", "where": {"dt": date(2026, 11, 20)}, "attributes": {"city": "city", "day": "dt"}}
    found = ran(folder, s3.endpoint, lake, source={"partition": "latest"}, user=user)
    assert found.succeeded, found.failure
    facts = found.metadata("user_profiles")
    assert facts["partition"] == "dt=2026-11-20"
    assert facts["partitions_passed_over"] == "dt=2026-11-21: no _SUCCESS, which older ones have"
    assert emulator_state(folder / "data") == {
        name: {"city": f"上海 {name}", "day": "2026-11-20"} for name in ("u1", "用户二")
    }
    (frame,) = found.pushed.frames.frames
    rows = pq.read_table(frame.path, partitioning=None).select(["source_file", "source_row"]).to_pylist()
    place = f"s3://{lake}/p/dt=2026-11-20/part-0.parquet"
    assert sorted((row["source_file"], row["source_row"]) for row in rows) == [(place, 0), (place, 1)]


def test_a_run_can_read_a_partition_that_its_tag_names(folder: Path, s3: S3, lake: str) -> None:
    for day in (1, 2, 3):
        put(s3, lake, f"p/dt={day}", [f"u{day}"])
    found = ran(folder, s3.endpoint, lake, source={"partition": "latest"}, tags={PARTITION: "dt=2"})
    assert found.metadata("user_profiles")["partition"] == "dt=2"
    assert set(emulator_state(folder / "data")) == {"u2"}


def test_a_partition_that_is_not_there_is_told_with_the_line(folder: Path, s3: S3, lake: str) -> None:
    put(s3, lake, "p/dt=1", ["u1"])
    found = ran(folder, s3.endpoint, lake, tags={PARTITION: "dt=7"})
    assert "defs.yaml:4: No file of the source lies in dt=7. The last of those that are there: dt=1." in found.failure


@pytest.mark.parametrize(
    ("place", "succeeds"),
    [
        ("p/dt=1/late.parquet", True),
        ("p/dt=3/part-0.parquet", True),
        ("p/dt=2/late.parquet", False),
    ],
)
def test_a_file_that_appears_while_a_partition_is_copied_matters_only_in_that_partition(  # noqa: PLR0917  by name
    place: str, succeeds: bool, folder: Path, s3: S3, wire: Wire, lake: str
) -> None:
    for day in (1, 2):
        put(s3, lake, f"p/dt={day}", [f"u{day}"])
    reads: list[Request] = []

    def appear(request: Request) -> Answer | None:
        if request.reads_rows:
            reads.append(request)
            s3.put(lake, place, profiles(["u9"]))
        return None

    wire.spoil = appear
    found = ran(folder, wire.endpoint, lake, source={"partition": "latest"})
    assert reads
    assert not any("dt=1" in request.path or "dt%3D1" in request.path for request in reads), "only one is read"
    assert found.succeeded is succeeds, found.failure
    if not succeeds:
        assert f"s3://{lake}/{place} appeared while the run was reading it" in found.failure
    assert set(emulator_state(folder / "data")) == ({"u2"} if succeeds else set())


def test_other_partitions_cost_two_listings_and_no_look(folder: Path, s3: S3, wire: Wire, lake: str) -> None:
    """Listed before the copy and again after it; what the listing says of `_SUCCESS` is not asked for again."""
    for day in (1, 2, 3):
        put(s3, lake, f"p/dt={day}", [f"u{day}"])
    assert ran(folder, wire.endpoint, lake, source={"partition": "latest"}).succeeded
    assert sum("list-type=2" in request.path and "max-keys=1000" in request.path for request in wire.requests) == 2
    assert any(request.reads_rows for request in wire.requests)
    looked_at = {unquote(request.path).partition("?")[0] for request in wire.requests if request.path.count("/") > 2}
    assert looked_at == {f"/{lake}/p/dt=3/part-0.parquet"}


# Freshness ----------------------------------------------------------------------------------------------------------


def moments(*values: datetime) -> pa.Array:
    return pa.array(values, pa.timestamp("us", "UTC"))


def test_the_newest_updated_at_is_told_by_the_copys_footers(folder: Path, s3: S3, lake: str) -> None:
    now = datetime.now(UTC)
    at = [now - timedelta(hours=30), now - timedelta(hours=48)]
    put(s3, lake, "p/dt=1", ["u1"], at=moments(now))
    put(s3, lake, "p/dt=2", ["u2", "u3"], at=moments(*at))
    for limit, fresh in (("36h", True), ("24h", False)):
        source = {"partition": "latest", "max_age": limit}
        found = ran(folder, s3.endpoint, lake, source=source, updated_at="at")
        assert found.succeeded, found.failure
        assert found.checks()["user_profiles:fresh"] is fresh
        facts = found.metadata("user_profiles")
        assert facts["newest_updated_at"] == pytest.approx(at[0].timestamp())
        assert facts["updated_at_told_by"] == "footers"


def test_the_newest_updated_at_is_scanned_in_the_copy_where_it_is_text(folder: Path, s3: S3, lake: str) -> None:
    put(s3, lake, "p", ["u1", "u2"], at=["2026-11-20T10:00:00+08:00", "yesterday"])
    found = ran(folder, s3.endpoint, lake, source={"max_age": "36h"}, updated_at="at")
    assert found.succeeded, found.failure
    facts = found.metadata("user_profiles")
    assert facts["newest_updated_at"] == datetime(2026, 11, 20, 2, tzinfo=UTC).timestamp()
    assert facts["updated_at_told_by"] == "scan"


def test_a_stale_source_stops_the_run_where_the_yaml_says_so(folder: Path, s3: S3, lake: str) -> None:
    put(s3, lake, "p", ["u1"], at=moments(datetime(2026, 1, 1, tzinfo=UTC)))
    source = {"max_age": {"age": "36h", "blocking": True}}
    found = ran(folder, s3.endpoint, lake, source=source, updated_at="at")
    assert not found.succeeded
    assert found.checks() == {"user_profiles:fresh": False}


# New files ----------------------------------------------------------------------------------------------------------


class Watcher:
    """The sensor of new files, evaluated as the daemon does it: the cursor of one tick is that of the next."""

    def __init__(self, sync: Sync, instance: dg.DagsterInstance) -> None:
        self.now = 1_000_000.0
        self.instance = instance
        (self.sensor,) = triggers.triggers(sync, clock=lambda: self.now)
        self.cursor: str | None = None
        self.skipped = ""
        self.tags: list[str | None] = []

    def tick(self, *, minutes: float = 1) -> int:
        """How many runs were asked for."""
        self.now += minutes * 60
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor, self.skipped = data.cursor, str(data.skip_message or "")
        self.tags = [request.tags.get(PARTITION) for request in data.run_requests or []]
        return len(self.tags)


@pytest.fixture
def instance() -> Any:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def watched(folder: Path, endpoint: str, lake: str, rule: dict[str, Any], **source: Any) -> Sync:
    return sync_of(folder, endpoint, lake, source=source, schedule={"on_new_files": rule})


def test_each_drop_with_its_success_file_starts_one_run(
    folder: Path, s3: S3, lake: str, instance: dg.DagsterInstance
) -> None:
    watcher = Watcher(watched(folder, s3.endpoint, lake, {"success_file": True}), instance)
    assert watcher.tick() == 0
    assert f"s3://{lake}/p: nothing stands there" in watcher.skipped
    put(s3, lake, "p/a", ["u1"], success=False)
    assert watcher.tick() == 0
    assert f"waits for s3://{lake}/p/a/_SUCCESS, or one in a folder above it" in watcher.skipped
    s3.put(lake, "p/_SUCCESS", b"")
    assert watcher.tick() == 1
    assert watcher.tick() == 0
    assert "drop 1 (1 file" in watcher.skipped
    put(s3, lake, "p/b", ["u2"])
    assert watcher.tick() == 1


def test_files_that_are_newer_than_their_success_file_are_waited_for(
    folder: Path, s3: S3, lake: str, instance: dg.DagsterInstance
) -> None:
    """An old `_SUCCESS` stays where a drop is written over the one before."""
    watcher = Watcher(watched(folder, s3.endpoint, lake, {"success_file": True}), instance)
    put(s3, lake, "p", ["u1"])
    s3.written_at(lake, "p/part-0.parquet", NIGHT)
    s3.written_at(lake, "p/_SUCCESS", NIGHT - timedelta(hours=24))
    assert watcher.tick() == 0
    assert f"s3://{lake}/p/part-0.parquet is newer than its _SUCCESS" in watcher.skipped
    s3.written_at(lake, "p/_SUCCESS", NIGHT)
    assert watcher.tick() == 1


def test_only_the_newest_partition_is_watched_and_the_run_is_bound_to_it(
    folder: Path, s3: S3, lake: str, instance: dg.DagsterInstance
) -> None:
    sync = watched(folder, s3.endpoint, lake, {"success_file": True}, partition="latest")
    watcher = Watcher(sync, instance)
    put(s3, lake, "p/dt=2026-11-20", ["u1"])
    assert watcher.tick() == 1
    put(s3, lake, "p/dt=2026-11-19", ["late"])
    assert watcher.tick() == 0
    put(s3, lake, "p/dt=2026-11-21", ["u2"], success=False)
    assert watcher.tick() == 0
    assert "passed over dt=2026-11-21: no _SUCCESS" in watcher.skipped
    s3.put(lake, "p/dt=2026-11-21/_SUCCESS", b"")
    assert watcher.tick() == 1
    assert watcher.tags == ["dt=2026-11-21"]
    assert run(sync, tags={PARTITION: str(watcher.tags[0])}).succeeded
    assert set(emulator_state(folder / "data")) == {"u2"}


def test_a_file_that_is_written_anew_counts_as_new_after_the_quiet_time(
    folder: Path, s3: S3, lake: str, instance: dg.DagsterInstance
) -> None:
    watcher = Watcher(watched(folder, s3.endpoint, lake, {"quiet_minutes": 10}), instance)
    put(s3, lake, "p", ["u1"], success=False)
    assert [watcher.tick(), watcher.tick(minutes=9), watcher.tick()] == [0, 0, 1]
    s3.written_at(lake, "p/part-0.parquet", NIGHT)
    assert [watcher.tick(), watcher.tick(minutes=9), watcher.tick()] == [0, 0, 1]


def test_a_look_costs_listings_alone(folder: Path, s3: S3, wire: Wire, lake: str, instance: dg.DagsterInstance) -> None:
    watcher = Watcher(watched(folder, wire.endpoint, lake, {"success_file": True}, partition="latest"), instance)
    for day in range(10, 30):
        put(s3, lake, f"p/dt=2026-11-{day}", ["u1"])
    assert watcher.tick() == 1
    assert len(wire.requests) <= 3
    assert not any(request.reads_rows for request in wire.requests)


def test_a_storage_that_refuses_fails_the_look_and_forgets_no_drop(
    folder: Path, s3: S3, wire: Wire, lake: str, instance: dg.DagsterInstance
) -> None:
    watcher = Watcher(watched(folder, wire.endpoint, lake, {"success_file": True}), instance)
    put(s3, lake, "p", ["u1"])
    wire.spoil = lambda _request: Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(SourceUnreadableError, match="access is denied"):
        watcher.tick()
    wire.spoil = lambda _request: None
    assert watcher.tick() == 1
