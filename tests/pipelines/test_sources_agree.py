"""The same profiles from Parquet on disk and in S3, databases, Delta and Iceberg tables give the same frames."""

import sqlite3
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.sample_profiles import write_sample_profiles
from tests.lake_tables import catalog_properties, open_catalog, write_delta, write_iceberg
from tests.mariadb_server import MariaDBServer
from tests.object_storage import ACCESS_KEY, S3, SECRET_KEY, parquet_bytes
from tests.running import Ran, example_attributes, make_sync, run

FEW_ROWS, ROWS, MANY_ROWS = 2_000, 20_000, 200_000
COLUMNS = (
    "place bigint, user_id {text}, device_id {text}, gender {text}, city {text}, level int, vip_until date, "
    "balance decimal(12, 2), score double, nickname {text}, push_enabled boolean, updated_at {moment}"
)
NAMES = [column.split()[0] for column in COLUMNS.replace("(12, 2)", "").split(", ")]


def frames_of(ran: Ran) -> dict[str, list[dict[str, Any]]]:
    """Every frame's rows by account, without where they came from."""
    return {
        frame.account_type.value: sorted(
            (
                {name: value for name, value in row.items() if not name.startswith(("source_", "__"))}
                for row in pq.read_table(frame.path, partitioning=None).to_pylist()
            ),
            key=lambda row: str(row["account"]),
        )
        for frame in ran.pushed.frames.frames
    }


def into_postgresql(uri: str, table: pa.Table) -> None:
    with adbc_driver_postgresql.dbapi.connect(uri) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("profiles_as_loaded", table, mode="replace")
        # Numbers, dates and times in the types that a warehouse has them in; the row's place keeps the order.
        cursor.execute("drop table if exists agreeing_profiles")
        cursor.execute(
            "create table agreeing_profiles as select place, user_id, device_id, gender, city, level, vip_until, "
            "balance::text::numeric(12, 2) as balance, score, nickname, push_enabled, updated_at "
            "from profiles_as_loaded"
        )
        connection.commit()


def into_duckdb(file: Path, table: pa.Table) -> None:
    with duckdb.connect(str(file)) as connection:
        connection.register("loaded", table)
        connection.execute("create table agreeing_profiles as from loaded")


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in NAMES), strict=True))


def into_mariadb(server: MariaDBServer, table: pa.Table) -> None:
    columns = COLUMNS.format(text="text", moment="timestamp(6) null")
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("set time_zone = '+00:00', sql_mode = ''")
        cursor.execute(f"create or replace table agreeing_profiles ({columns}) character set utf8mb4")
        places = ", ".join(["%s"] * len(NAMES))
        cursor.executemany(f"insert into agreeing_profiles values ({places})", rows_of(table))


def into_sqlite(file: Path, table: pa.Table) -> None:
    def kept(value: Any) -> Any:
        return float(value) if isinstance(value, Decimal) else str(value) if isinstance(value, datetime) else value

    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"create table agreeing_profiles ({COLUMNS.format(text='text', moment='timestamptz')})")
        places = ", ".join(["?"] * len(NAMES))
        connection.executemany(
            f"insert into agreeing_profiles values ({places})",
            [
                [value.isoformat() if type(value).__name__ == "date" else kept(value) for value in row]
                for row in rows_of(table)
            ],
        )


def in_object_storage(s3: S3, table: pa.Table) -> dict[str, Any]:
    """The sources of a Parquet file and a Delta table in a bucket."""
    bucket, halves = s3.bucket("agreeing-everywhere"), [table[: len(table) // 2], table[len(table) // 2 :]]
    s3.put(bucket, "profiles.parquet", parquet_bytes(dict(zip(table.column_names, table.columns, strict=True))))
    write_delta(
        f"s3://{bucket}/delta",
        *halves,
        storage_options={
            "AWS_ENDPOINT_URL": s3.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_S3_ALLOW_UNSAFE_RENAME": "true",
        },
    )
    sources = {"parquet": f"s3://{bucket}/profiles.parquet", "delta": f"s3://{bucket}/delta"}
    return {name: {name: source, "storage": {"endpoint": s3.endpoint}} for name, source in sources.items()}


def in_a_lake(folder: Path, table: pa.Table) -> dict[str, Any]:
    """The sources of a Delta and an Iceberg table on disk, each of two commits."""
    halves = [table[: len(table) // 2], table[len(table) // 2 :]]
    catalog = {"name": "test", **catalog_properties(folder)}
    write_iceberg(open_catalog(folder), "marts.profiles", *halves)
    return {
        "delta": {"delta": write_delta(folder / "delta", *halves)},
        "iceberg": {"iceberg": {"catalog": catalog, "table": "marts.profiles"}},
    }


@pytest.fixture
def in_one_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the example over a source with a data folder of its own, so that every run is a first one."""
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "2000")

    def run_over(name: str, source: Any) -> Ran:
        monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / name))
        ran = run(make_sync(tmp_path, example_attributes(source), name=name))
        assert ran.succeeded, ran.failure
        return ran

    return run_over


def test_every_source_gives_the_same_frames(
    tmp_path: Path, postgres_uri: str, mariadb: MariaDBServer, s3: S3, *, in_one_folder_each: Any, long_proofs: bool
) -> None:
    rows = MANY_ROWS if long_proofs else ROWS
    files = write_sample_profiles(tmp_path / "profiles", rows=rows, seed=5)
    table = pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])
    # MySQL and SQLite have no NaN and no infinity; PostgreSQL and DuckDB are asked for them in a test of their own.
    score = pc.if_else(pc.is_finite(table["score"]), table["score"], None)
    table = table.set_column(table.schema.get_field_index("score"), "score", score)
    pq.write_table(table, tmp_path / "profiles.parquet")
    table = table.append_column("place", pa.array(range(len(table)), pa.int64()))
    balance = table["balance"].cast(pa.string())  # ADBC writes no decimals
    into_postgresql(postgres_uri, table.set_column(table.schema.get_field_index("balance"), "balance", balance))
    into_duckdb(tmp_path / "profiles.duckdb", table)
    into_mariadb(mariadb, table)
    into_sqlite(tmp_path / "profiles.sqlite", table)
    query = "select * from agreeing_profiles order by place"

    warehouses = {
        "postgresql": postgres_uri,
        "duckdb": f"duckdb:///{tmp_path / 'profiles.duckdb'}",
        "mariadb": mariadb.uri,
        "sqlite": f"sqlite:///{tmp_path / 'profiles.sqlite'}",
    }
    sources = {name: {"warehouse": {"uri": uri, "query": query}} for name, uri in warehouses.items()}
    sources |= in_a_lake(tmp_path / "lake", table)
    sources |= {f"{name}_in_s3": source for name, source in in_object_storage(s3, table).items()}

    expected = frames_of(in_one_folder_each("from_parquet", str(tmp_path / "profiles.parquet")))
    assert len(expected["user_id"]) > 0.8 * rows
    for name, source in sources.items():
        assert frames_of(in_one_folder_each(f"from_{name}", source)) == expected, name


def test_numbers_that_are_none_agree_too(tmp_path: Path, postgres_uri: str, in_one_folder_each: Any) -> None:
    files = write_sample_profiles(tmp_path / "profiles", rows=ROWS, seed=5)
    table = pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])
    assert not pc.all(pc.is_finite(table["score"])).as_py()
    table = table.append_column("place", pa.array(range(len(table)), pa.int64()))
    balance = table["balance"].cast(pa.string())
    into_postgresql(postgres_uri, table.set_column(table.schema.get_field_index("balance"), "balance", balance))
    into_duckdb(tmp_path / "profiles.duckdb", table)
    query = "select * from agreeing_profiles order by place"
    expected = frames_of(in_one_folder_each("from_parquet", [str(file) for file in files]))
    for name, uri in (("postgresql", postgres_uri), ("duckdb", f"duckdb:///{tmp_path / 'profiles.duckdb'}")):
        assert frames_of(in_one_folder_each(f"from_{name}", {"warehouse": {"uri": uri, "query": query}})) == expected


def test_a_warehouse_is_shown_without_its_password(tmp_path: Path, postgres_uri: str, in_one_folder_each: Any) -> None:
    files = write_sample_profiles(tmp_path / "profiles", rows=200, seed=6)
    table = pq.read_table(files[0], partitioning=None)
    balance = table["balance"].cast(pa.string())
    table = table.set_column(table.schema.get_field_index("balance"), "balance", balance)
    into_postgresql(postgres_uri, table.append_column("place", pa.array(range(len(table)), pa.int64())))
    uri = postgres_uri.replace("postgres:@", "postgres:planted-password@")
    assert "planted-password" in uri
    ran = in_one_folder_each("shown", {"warehouse": {"uri": uri, "query": "select * from agreeing_profiles"}})
    assert ran.metadata("user_profiles")["source"].startswith("postgresql://")
    assert "planted-password" not in str(ran.result.all_events)


def places_of(ran: Ran) -> set[tuple[str, int]]:
    """(file, row) of every frame's row and every failed row that has one."""
    tables = [pq.read_table(frame.path, partitioning=None) for frame in ran.pushed.frames.frames]
    rows = [*(row for table in tables for row in table.select(["source_file", "source_row"]).to_pylist())]
    rows += [row for row in ran.failed_rows if row["source_file"] is not None]
    return {(row["source_file"], row["source_row"]) for row in rows}


def test_parquet_in_s3_names_the_files_there(tmp_path: Path, s3: S3, in_one_folder_each: Any) -> None:
    write_sample_profiles(tmp_path / "profiles/a", rows=FEW_ROWS // 2, seed=7)
    write_sample_profiles(tmp_path / "profiles/b", rows=FEW_ROWS // 2, seed=8)
    local = list((tmp_path / "profiles").rglob("*.parquet"))
    bucket = s3.bucket("agreeing")
    s3.upload(bucket, tmp_path / "profiles", prefix="lake/")
    source = {"parquet": f"s3://{bucket}/lake/**/*.parquet", "storage": {"endpoint": s3.endpoint}}

    from_disk = in_one_folder_each("from_disk", [str(file) for file in sorted(local)])
    from_s3 = in_one_folder_each("from_s3", source)

    assert frames_of(from_s3) == frames_of(from_disk)
    assert len(from_s3.failed_rows) == len(from_disk.failed_rows) > 0
    there = {str(file): f"s3://{bucket}/lake/{file.relative_to(tmp_path / 'profiles')}" for file in local}
    assert places_of(from_s3) == {(there[file], row) for file, row in places_of(from_disk)}
    assert len(places_of(from_s3)) > 0.8 * FEW_ROWS

    shown = from_s3.metadata("user_profiles")
    assert shown["dagster/uri"].startswith(f"s3://{bucket}/lake")
    assert shown["bytes"] == sum(file.stat().st_size for file in local)
    for secret in (ACCESS_KEY, SECRET_KEY):
        assert secret not in str(from_s3.result.all_events)


def test_a_source_in_s3_that_cannot_be_read_stops_the_run_before_any_call(
    tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    source = {"parquet": "s3://not-there/lake/*.parquet", "storage": {"endpoint": s3.endpoint}}
    ran = run(make_sync(tmp_path, example_attributes(source)))
    assert not ran.succeeded
    assert ran.failure.startswith("s3://not-there/lake/*.parquet: there is no such bucket")
    assert not (tmp_path / "data" / "profiles" / "sync=nightly").exists() or not list(
        (tmp_path / "data" / "profiles" / "sync=nightly").iterdir()
    )


def test_a_plan_and_a_second_night_read_s3_too(tmp_path: Path, s3: S3, in_one_folder_each: Any) -> None:
    write_sample_profiles(tmp_path / "profiles", rows=500, seed=8)
    bucket = s3.bucket("planned")
    s3.upload(bucket, tmp_path / "profiles")
    source = {"parquet": f"s3://{bucket}", "storage": {"endpoint": s3.endpoint}}
    sync = make_sync(tmp_path, example_attributes(source), name="planned")
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(sync, instance=instance, suffix="_plan").succeeded
    first = in_one_folder_each("planned", source)
    assert sum(tally.acknowledged for tally in first.pushed.tallies.values()) > 300
    second = in_one_folder_each("planned", source)
    assert second.metadata("user_id_attributes")["unchanged"] > 300
    assert second.metadata("user_id_attributes")["changed"] < 20
