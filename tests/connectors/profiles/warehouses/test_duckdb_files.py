import datetime
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from connectors.profiles.errors import (
    SourceColumnError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseUnreachableError,
)
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.database_files import path_of
from connectors.profiles.warehouses.warehouse import extract

MakeDuckDB = Callable[..., str]
RowsOf = Callable[[Manifest], pa.Table]


@pytest.mark.parametrize(
    ("expression", "data_type", "value"),
    [
        ("'上海'", pa.string(), "上海"),
        ("'calm'::ENUM('calm', 'glad')", pa.string(), "calm"),
        ("""'{"a":1}'::JSON""", pa.string(), '{"a":1}'),
        (
            "'5A7B0C1D-0000-4000-8000-00000000ABCD'::UUID",
            pa.string(),
            "5a7b0c1d-0000-4000-8000-00000000abcd",
        ),
        ("NULL", pa.string(), None),
        ("true", pa.bool_(), True),
        ("(-1)::TINYINT", pa.int8(), -1),
        ("1::SMALLINT", pa.int16(), 1),
        ("1", pa.int32(), 1),
        ("1::BIGINT", pa.int64(), 1),
        ("255::UTINYINT", pa.uint8(), 255),
        ("18446744073709551615::UBIGINT", pa.uint64(), 18446744073709551615),
        ("1e20::HUGEINT", pa.decimal128(38, 0), Decimal(10**20)),
        ("sum(1)", pa.decimal128(38, 0), Decimal(1)),
        ("12.5::DECIMAL(12, 2)", pa.decimal128(12, 2), Decimal("12.50")),
        ("12.5::DECIMAL(4, 1)", pa.decimal128(4, 1), Decimal("12.5")),
        ("1.5::FLOAT", pa.float32(), 1.5),
        ("0.1::DOUBLE", pa.float64(), 0.1),
        ("DATE '2024-02-29'", pa.date32(), datetime.date(2024, 2, 29)),
        (
            "TIMESTAMP '2024-02-29 23:59:59.999999'",
            pa.timestamp("us"),
            datetime.datetime(2024, 2, 29, 23, 59, 59, 999999),
        ),
        ("TIMESTAMP_S '2024-02-29 23:59:59'", pa.timestamp("ms"), datetime.datetime(2024, 2, 29, 23, 59, 59)),
        (
            "TIMESTAMP_MS '2024-02-29 23:59:59.5'",
            pa.timestamp("ms"),
            datetime.datetime(2024, 2, 29, 23, 59, 59, 500000),
        ),
        ("TIMESTAMP_NS '2024-02-29 23:59:59'", pa.timestamp("ns"), datetime.datetime(2024, 2, 29, 23, 59, 59)),
        (
            "TIMESTAMPTZ '2024-02-29 23:59:59.5+08'",
            pa.timestamp("us", tz="UTC"),
            datetime.datetime(2024, 2, 29, 15, 59, 59, 500000, tzinfo=datetime.UTC),
        ),
    ],
)
def test_a_type_of_duckdb_arrives_as(
    expression: str, *, data_type: pa.DataType, value: object, duckdb_uri: MakeDuckDB, tmp_path: Path, rows_of: RowsOf
) -> None:
    manifest = extract(duckdb_uri(), f"SELECT {expression} AS c", tmp_path / "out")
    assert manifest.schema.field("c").type == data_type
    assert rows_of(manifest)["c"].to_pylist() == [value]


@pytest.mark.parametrize(
    "expression",
    [
        "[1, 2]", "{'a': 1}", "MAP {'a': 1}", "'x'::BLOB", "'101'::BIT", "TIME '12:00'", "INTERVAL 1 DAY", "1::BIGNUM",
        "1::VARIANT", "[1, 2]::INT[2]",
    ],
)  # fmt: skip
def test_a_type_that_no_attribute_can_hold_is_refused_by_name(
    expression: str, duckdb_uri: MakeDuckDB, tmp_path: Path
) -> None:
    uri = duckdb_uri()
    with pytest.raises(SourceColumnError, match=r"column 'c' \(.*\) is no single text"):
        extract(uri, f"SELECT 1 AS id, {expression} AS c", tmp_path / "out")
    assert extract(uri, f"SELECT 1 AS id, {expression} AS c", tmp_path / "out", columns=["id"]).rows == 1


@pytest.mark.parametrize("expression", ["DATE 'infinity'", "TIMESTAMP '-infinity'", "DATE '20000-01-01'"])
def test_an_infinite_date_is_refused_by_column(expression: str, duckdb_uri: MakeDuckDB, tmp_path: Path) -> None:
    with pytest.raises(SourceColumnError, match="column 'c' holds an infinite date"):
        extract(duckdb_uri(), f"SELECT {expression} AS c", tmp_path / "out")


def test_tables_of_the_file_are_read_and_the_file_is_not_changed(
    duckdb_uri: MakeDuckDB, tmp_path: Path, rows_of: RowsOf
) -> None:
    uri = duckdb_uri("CREATE SCHEMA marts", "CREATE TABLE marts.profiles AS SELECT 'u1' AS user_id")
    path = Path(uri.removeprefix("duckdb://"))
    before = path.read_bytes()
    assert rows_of(extract(uri, "FROM marts.profiles", tmp_path / "out"))["user_id"].to_pylist() == ["u1"]
    with pytest.raises(WarehouseQueryError, match="one SELECT"):
        extract(uri, "DELETE FROM marts.profiles", tmp_path / "out")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("duckdb:///data/p.duckdb", "/data/p.duckdb"),
        ("duckdb:/data/p.duckdb", "/data/p.duckdb"),
        ("duckdb:data/p.duckdb", "/base/data/p.duckdb"),
        ("duckdb:my%20data/p.duckdb", "/base/my data/p.duckdb"),
    ],
)
def test_an_address_means_a_file(uri: str, path: str) -> None:
    assert path_of(uri, Path("/base")) == Path(path)


@pytest.mark.parametrize("uri", ["duckdb:", "duckdb://", "duckdb::memory:", "duckdb://host/p.duckdb"])
def test_an_address_that_names_no_file_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(WarehouseSettingsError, match=r"duckdb:///absolute/path or duckdb:path"):
        extract(uri, "SELECT 1 AS a", tmp_path / "out")


def test_a_file_that_is_missing_foreign_or_open_elsewhere_is_named(duckdb_uri: MakeDuckDB, tmp_path: Path) -> None:
    uri = duckdb_uri()
    path = Path(uri.removeprefix("duckdb://"))
    with pytest.raises(WarehouseUnreachableError, match=r"nope\.duckdb: no DuckDB file stands there"):
        extract("duckdb:nope.duckdb", "SELECT 1 AS a", tmp_path / "out", base=tmp_path)
    with (
        duckdb.connect(str(path)),
        pytest.raises(WarehouseUnreachableError, match=r"profiles\.duckdb cannot be opened"),
    ):
        extract(uri, "SELECT 1 AS a", tmp_path / "out")
    path.write_text("no database")
    with pytest.raises(WarehouseUnreachableError, match=r"profiles\.duckdb cannot be opened: .*not a valid DuckDB"):
        extract(uri, "SELECT 1 AS a", tmp_path / "out")


def test_a_query_that_outgrows_the_memory_limit_spills_into_the_folder_in_the_making(
    duckdb_uri: MakeDuckDB, tmp_path: Path
) -> None:
    query = "SELECT md5(i::VARCHAR) AS a FROM range(2000000) AS s(i) ORDER BY a"
    manifest = extract(duckdb_uri(), query, tmp_path / "out", memory_limit="80MB")
    assert manifest.rows == 2_000_000
    assert all(entry.suffix == ".parquet" for entry in (tmp_path / "out").iterdir())
