"""How new the profiles are: told by footers or by a scan, as metadata, and as a check that warns or stops the run."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import SourceUnreadableError
from connectors.profiles.partitions import read_partitions
from pipelines.attribute_sync import build_definitions
from pipelines.definitions import SHARED
from pipelines.engine import Engine
from pipelines.freshness import Newest, newest_update, stale_text
from pipelines.mapping import mapping_from
from pipelines.runs import GUARDS
from pipelines.source_options import MaxAge
from tests.project import Project
from tests.running import Ran, emulator_state, make_sync, run, write_profiles

NOW = datetime(2026, 11, 22, 2, tzinfo=UTC)
USERS = {"user_id": {"column": "user", "attributes": {"city": "city"}}}
STAMP = pa.timestamp("us")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "1000")
    return tmp_path


def write(folder: Path, values: Sequence[Any], kind: pa.DataType | None = None) -> Path:
    users = [f"用户{number}" for number in range(len(values))]
    columns = {"user": pa.array(users, pa.string()), "city": ["上海"] * len(users), "at": pa.array(values, kind)}
    return write_profiles(folder / "lake" / "a.parquet", columns)


def newest(folder: Path, engine: Engine | None, *, updated_at: str | None = "at") -> Newest | None:
    mapping = mapping_from({"source": {"parquet": "lake"}, "updated_at": updated_at, "accounts": USERS})
    manifest = read_partitions("lake", columns=mapping.columns(), base=folder)

    def opened() -> AbstractContextManager[Engine]:
        assert engine is not None, "the footers tell it"
        return nullcontext(engine)

    return newest_update(manifest, mapping, now=NOW, engine=opened)


# The newest updated_at ----------------------------------------------------------------------------------------------


def test_the_footers_tell_it_without_a_scan(tmp_path: Path) -> None:
    write(tmp_path, [datetime(2026, 11, 21, 14), datetime(2026, 11, 20)], STAMP)
    found = newest(tmp_path, None)
    assert found == Newest(datetime(2026, 11, 21, 14, tzinfo=UTC), NOW)
    assert found.age == timedelta(hours=12)


@pytest.mark.parametrize(
    "values",
    [
        ["2026-11-21T22:00:00+08:00", "2026-11-20", None, "", "yesterday"],
        ["2026-11-21 14:00:00", "2026-11-21T13:59:59Z"],
    ],
)
def test_text_is_scanned_and_what_is_no_time_is_passed_over(
    tmp_path: Path, engine: Engine, values: list[str | None]
) -> None:
    write(tmp_path, values, pa.string())
    assert newest(tmp_path, engine) == Newest(datetime(2026, 11, 21, 14, tzinfo=UTC), NOW, is_scanned=True)


@pytest.mark.parametrize("kind", [STAMP, pa.timestamp("us", "UTC"), pa.date32()], ids=str)
def test_profiles_of_the_future_do_not_hide_the_age_of_the_others(
    tmp_path: Path, engine: Engine, kind: pa.DataType
) -> None:
    days = [date(9999, 12, 31), date(2026, 11, 25), date(2026, 11, 21), date(2026, 11, 20)]
    times = [
        datetime(day.year, day.month, day.day, tzinfo=UTC if kind.equals(pa.timestamp("us", "UTC")) else None)
        for day in days
    ]
    write(tmp_path, days if pa.types.is_date(kind) else times, kind)
    found = newest(tmp_path, engine)
    assert found == Newest(datetime(2026, 11, 21, tzinfo=UTC), NOW, future=2, is_scanned=True)


def test_a_local_time_ahead_of_utc_is_no_future(tmp_path: Path) -> None:
    write(tmp_path, [datetime(2026, 11, 22, 9, 59)], STAMP)
    found = newest(tmp_path, None)
    assert found is not None
    assert (found.age, found.future) == (timedelta(), 0)


def test_where_there_is_no_time_none_is_told(tmp_path: Path, engine: Engine) -> None:
    write(tmp_path, [None, None], STAMP)
    assert newest(tmp_path, engine) == Newest(None, NOW, is_scanned=True)
    assert newest(tmp_path, None, updated_at=None) is None
    write(tmp_path, [1, 2], pa.int64())
    assert newest(tmp_path, None) is None
    write(tmp_path, [], STAMP)
    assert newest(tmp_path, None) == Newest(None, NOW)


def test_a_damaged_column_is_the_sources_error_and_no_value_is_told(tmp_path: Path, engine: Engine) -> None:
    path = write(tmp_path, ["geheim"] * 50, pa.string())
    content = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(2)
    start = chunk.dictionary_page_offset
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    with pytest.raises(SourceUnreadableError, match="column 'at' cannot be read") as caught:
        newest(tmp_path, engine)
    assert "geheim" not in str(caught.value)


# max_age ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "limit"), [("90m", 1.5), ("36h", 36), ("7d", 168)])
def test_a_source_at_its_limit_is_fresh_and_beyond_it_stale(age: str, limit: float) -> None:
    at_limit = Newest(NOW - timedelta(hours=limit), NOW)
    assert stale_text(at_limit, MaxAge(age=age)) is None
    beyond = stale_text(Newest(NOW - timedelta(hours=limit, seconds=1), NOW), MaxAge(age=age))
    assert beyond is not None
    assert f"{limit:,.1f} hours ago; max_age allows {age}. See whether the job that writes the source" in beyond


def test_a_source_without_any_time_is_stale() -> None:
    text = stale_text(Newest(None, NOW, future=3), MaxAge(age="36h"))
    assert text is not None
    assert text.startswith(
        "No `updated_at` of the source could be read as a time (3 profiles claim to be of the future"
    )


def ran(folder: Path, max_age: Any, **more: Any) -> Ran:
    attributes = {"source": {"parquet": "lake", "max_age": max_age}, "updated_at": "at", "accounts": USERS}
    return run(make_sync(folder, attributes), **more)


def days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def test_the_metadata_tell_rows_bytes_seconds_and_the_newest(folder: Path) -> None:
    moment = days_ago(1)
    path = write(folder, [days_ago(2), moment], pa.timestamp("us", "UTC"))
    facts = ran(folder, "36h").metadata("user_profiles")
    assert (facts["dagster/row_count"], facts["bytes"]) == (2, path.stat().st_size)
    assert 0 < facts["seconds"] < 60
    assert facts["newest_updated_at"] == pytest.approx(moment.timestamp())
    assert facts["age_hours"] == pytest.approx(24, abs=0.1)
    assert facts["updated_at_told_by"] == "footers"


def test_a_stale_source_warns_and_the_run_goes_on(folder: Path) -> None:
    write(folder, [days_ago(2)], pa.timestamp("us", "UTC"))
    found = ran(folder, "36h")
    assert found.succeeded
    assert found.checks()["user_profiles:fresh"] is False
    assert len(emulator_state(folder / "data")) == 1
    write(folder, [days_ago(1)], pa.timestamp("us", "UTC"))
    assert ran(folder, "36h").checks()["user_profiles:fresh"] is True


def test_a_stale_source_stops_the_run_where_the_yaml_says_so(folder: Path) -> None:
    write(folder, [days_ago(2)], pa.timestamp("us", "UTC"))
    found = ran(folder, {"age": "36h", "blocking": True})
    assert not found.succeeded
    assert found.checks() == {"user_profiles:fresh": False}, "nothing came after it"
    (check,) = found.result.get_asset_check_evaluations()
    assert "48.0 hours ago; max_age allows 36h." in str(check.description)
    assert "Nothing was sent; `--without-guards` lets one run pass." in str(check.description)
    passed = ran(folder, {"age": "36h", "blocking": True}, tags={GUARDS: "off"})
    assert passed.succeeded
    assert passed.checks()["user_profiles:fresh"] is False


def test_what_a_warehouse_answers_has_an_age_too(folder: Path) -> None:
    with duckdb.connect(folder / "marts.duckdb") as connection:
        connection.execute("create table users as select 'u1' as user, '上海' as city, now() - interval 48 hours as at")
    warehouse = {"uri": f"duckdb:///{folder}/marts.duckdb", "query": "from users"}
    attributes = {"source": {"warehouse": warehouse, "max_age": "36h"}, "updated_at": "at", "accounts": USERS}
    found = run(make_sync(folder, attributes))
    assert found.checks()["user_profiles:fresh"] is False
    facts = found.metadata("user_profiles")
    assert facts["age_hours"] == pytest.approx(48, abs=0.1)
    assert facts["updated_at_told_by"] == "footers"


def test_an_updated_at_that_is_no_time_is_told_with_the_line_of_max_age(folder: Path) -> None:
    write(folder, [1, 2], pa.int64())
    found = ran(folder, "36h")
    assert "defs.yaml:5: column 'at' is int64; an age is told by a timestamp, a date or text" in found.failure


def test_dagsters_freshness_policy_watches_that_a_run_reads_the_source_at_all(tmp_path: Path) -> None:
    attributes = {"source": {"parquet": "lake", "max_age": "36h"}, "updated_at": "at", "accounts": USERS}
    sync = make_sync(tmp_path, attributes)
    graph = dg.Definitions.merge(build_definitions(sync), SHARED).resolve_asset_graph()
    policy = graph.get(sync.key("user_profiles")).freshness_policy
    assert policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36))


@pytest.fixture
def stale_project(tmp_path: Path) -> Iterator[Project]:
    project = Project.copy_to(tmp_path / "project")
    project.make_profiles(50)
    project.edit_yaml("*.parquet\n", "*.parquet\n    max_age: 1m\n")
    yield project


def test_the_command_line_tells_a_stale_source(stale_project: Project) -> None:
    warned = stale_project.run("-m", "pipelines", "run", "example")
    assert warned.returncode == 0, warned.stderr
    assert "stale           The source's newest `updated_at` is 20" in warned.stderr
    stale_project.edit_yaml("max_age: 1m", "max_age: {age: 1m, blocking: true}")
    stopped = stale_project.run("-m", "pipelines", "run", "example")
    assert stopped.returncode == 1
    assert "`--without-guards` lets one run pass" in stopped.stderr
    planned = stale_project.run("-m", "pipelines", "plan", "example")
    assert planned.returncode == 0
    assert "max_age allows 1m" in planned.stderr
