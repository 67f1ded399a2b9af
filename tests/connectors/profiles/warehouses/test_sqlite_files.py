import datetime
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.profiles.errors import (
    SourceColumnError,
    WarehouseError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseTimeoutError,
    WarehouseUnreachableError,
)
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.database_files import path_of
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.warehouse import extract

MakeSQLite = Callable[..., str]
RowsOf = Callable[[Manifest], pa.Table]
SERIES = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {rows}) SELECT i, {more} FROM s"


@pytest.mark.parametrize(
    ("declared", "literal", "data_type", "value"),
    [
        ("text", "'上海 👍🏽'", pa.string(), "上海 👍🏽"),
        ("varchar(10)", "''", pa.string(), ""),
        ("text", "5", pa.string(), "5"),
        ("json", "'{\"a\":1}'", pa.string(), '{"a":1}'),
        ("", "'x'", pa.string(), "x"),
        ("", "5", pa.int64(), 5),
        ("", "1.5", pa.float64(), 1.5),
        ("integer", "9223372036854775807", pa.int64(), 2**63 - 1),
        ("unsigned big int", "1", pa.int64(), 1),
        ("tinyint(1)", "2", pa.int64(), 2),
        ("boolean", "1", pa.bool_(), True),
        ("bool", "0", pa.bool_(), False),
        ("real", "0.1", pa.float64(), 0.1),
        ("double precision", "3", pa.float64(), 3.0),
        ("decimal(12, 2)", "962.91", pa.decimal128(12, 2), Decimal("962.91")),
        ("decimal(12,2)", "-5", pa.decimal128(12, 2), Decimal("-5.00")),
        ("decimal(12,2)", "0.1 + 0.2", pa.decimal128(12, 2), Decimal("0.30")),
        ("numeric(38)", "9007199254740993", pa.decimal128(38, 0), Decimal(9007199254740993)),
        ("numeric", "12.5", pa.string(), "12.5"),
        ("numeric", "1e20", pa.string(), "100000000000000000000"),
        ("decimal(50, 2)", "1.5", pa.string(), "1.5"),
        ("date", "'2024-02-29'", pa.date32(), datetime.date(2024, 2, 29)),
        ("datetime", "'2024-02-29 23:59:59.999999'", pa.timestamp("us"),
         datetime.datetime(2024, 2, 29, 23, 59, 59, 999999)),
        ("timestamp", "'2024-02-29T23:59:59'", pa.timestamp("us"), datetime.datetime(2024, 2, 29, 23, 59, 59)),
        ("datetime", "'2024-02-29 23:59:59+08:00'", pa.timestamp("us"), datetime.datetime(2024, 2, 29, 15, 59, 59)),
        ("timestamp with time zone", "'2024-02-29 23:59:59+08:00'", pa.timestamp("us", tz="UTC"),
         datetime.datetime(2024, 2, 29, 15, 59, 59, tzinfo=datetime.UTC)),
    ],
)  # fmt: skip
def test_a_type_of_sqlite_arrives_as(
    declared: str, literal: str, *, data_type: pa.DataType, value: object, sqlite_uri: MakeSQLite, tmp_path: Path,
    rows_of: RowsOf,
) -> None:  # fmt: skip
    uri = sqlite_uri(f"CREATE TABLE t (c {declared}, other)", f"INSERT INTO t VALUES ({literal}, 1), (NULL, 2)")
    manifest = extract(uri, TableName(("main", "t")), tmp_path / "out", columns=["c"])
    assert manifest.schema.field("c").type == data_type
    assert rows_of(manifest)["c"].to_pylist() == [value, None]


@pytest.mark.parametrize(
    ("declared", "literal"),
    [
        ("integer", "'planted'"), ("integer", "1.5"), ("boolean", "2"), ("boolean", "'true'"), ("real", "'planted'"),
        ("decimal(4, 2)", "1.234"), ("decimal(4, 2)", "'planted'"), ("decimal(4, 2)", "123456"), ("date", "'planted'"),
        ("date", "1709164800"), ("datetime", "'29.2.2024'"), ("text", "x'ff'"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_of_its_column_s_type_is_refused_by_column(
    declared: str, literal: str, sqlite_uri: MakeSQLite, tmp_path: Path
) -> None:
    uri = sqlite_uri(f"CREATE TABLE t (c {declared})", f"INSERT INTO t VALUES ({literal})")
    with pytest.raises(SourceColumnError, match=r"column 'c' (is declared as|holds)") as caught:
        extract(uri, TableName(("t",)), tmp_path / "out")
    assert "planted" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("declared", ["blob", "varbinary(4)", "time"])
def test_a_type_that_no_attribute_can_hold_is_refused(declared: str, sqlite_uri: MakeSQLite, tmp_path: Path) -> None:
    uri = sqlite_uri(f"CREATE TABLE t (c {declared}, id integer)")
    with pytest.raises(SourceColumnError, match=r"column 'c' \(.*\) is no single text"):
        extract(uri, TableName(("t",)), tmp_path / "out")
    assert extract(uri, TableName(("t",)), tmp_path / "out", columns=["id"]).rows == 0


def test_text_that_is_no_utf8_is_refused_by_column(sqlite_uri: MakeSQLite, tmp_path: Path) -> None:
    uri = sqlite_uri("CREATE TABLE t (c text)", "INSERT INTO t VALUES (cast(x'706c616e746564ff' AS text))")
    with pytest.raises(SourceColumnError, match="'c' holds bytes that are not UTF-8") as caught:
        extract(uri, TableName(("t",)), tmp_path / "out")
    assert "planted" not in str(caught.value)


def test_rows_keep_the_query_s_order_and_types_are_those_of_all_rows(
    sqlite_uri: MakeSQLite, tmp_path: Path, rows_of: RowsOf
) -> None:
    query = SERIES.format(rows=30_000, more="nullif(i % 3, 0) * 0.5 AS half, 'x' || i AS name")
    query += " ORDER BY (i * 7919) % 30011"
    heard: list[int] = []
    manifest = extract(
        sqlite_uri(), query, tmp_path / "out", columns=["half", "i"], rows_per_file=9_000, on_rows=heard.append
    )
    assert rows_of(manifest)["i"].to_pylist() == sorted(range(1, 30_001), key=lambda i: i * 7919 % 30_011)
    assert [field.type for field in manifest.schema] == [pa.float64(), pa.int64()]
    assert len(manifest.files) > 1
    assert heard[-1] == manifest.rows == 30_000


def test_a_computed_column_that_changes_its_type_later_is_an_error_and_no_wrong_value(
    sqlite_uri: MakeSQLite, tmp_path: Path
) -> None:
    query = SERIES.format(rows=5_000, more="CASE WHEN i < 5000 THEN i ELSE 'late' END AS c")
    with pytest.raises(SourceColumnError, match="column 'c'"):
        extract(sqlite_uri(), query, tmp_path / "out")


def test_an_extraction_sees_one_state_and_writes_nothing(
    sqlite_uri: MakeSQLite, tmp_path: Path, rows_of: RowsOf
) -> None:
    uri = sqlite_uri(
        "PRAGMA journal_mode = wal", "CREATE TABLE t (i integer, state integer, pad text)",
        f"INSERT INTO t SELECT i, 1, {'x' * 3!r} FROM ({SERIES.format(rows=30_000, more='1')})",
    )  # fmt: skip
    changed: list[int] = []

    def change(rows: int) -> None:
        if not changed:
            with closing(sqlite3.connect(path_of(uri, Path()))) as connection, connection:
                changed.append(connection.execute("UPDATE t SET state = 2").rowcount)

    manifest = extract(uri, TableName(("t",)), tmp_path / "out", rows_per_file=500, on_rows=change)
    assert changed == [30_000]
    assert set(rows_of(manifest)["state"].to_pylist()) == {1}
    for query in ("DELETE FROM t", "CREATE TABLE u (a)", "INSERT INTO t VALUES (1) RETURNING i"):
        with pytest.raises(WarehouseQueryError):
            extract(uri, query, tmp_path / "out")


def test_a_query_that_takes_too_long_is_cancelled(sqlite_uri: MakeSQLite, tmp_path: Path) -> None:
    query = SERIES.format(rows=10**12, more="1 AS one") + " ORDER BY i % 7"
    before = threading.active_count()
    with pytest.raises(WarehouseTimeoutError, match="did not end within"):
        extract(sqlite_uri(), query, tmp_path / "out", timeout_seconds=0.5)
    assert not (tmp_path / "out").exists()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("SELECT nope FROM (SELECT 1 AS a)", "no such column: nope"),
        ("SELECT * FROM no_such_table", "no such table: main.no_such_table|no such table: no_such_table"),
        ("SELECT 1 AS a; SELECT 2 AS a", "one statement at a time"),
        (" ;", "Write a SELECT"),
        ("SELECT ? AS a", "parameters"),
    ],
)
def test_what_sqlite_refuses_is_said_in_its_words(
    query: str, said: str, sqlite_uri: MakeSQLite, tmp_path: Path
) -> None:
    with pytest.raises(WarehouseQueryError, match=said):
        extract(sqlite_uri(), query, tmp_path / "out")


def test_a_missing_a_doubled_and_a_failing_column_are_errors_without_values(
    sqlite_uri: MakeSQLite, tmp_path: Path
) -> None:
    uri = sqlite_uri()
    with pytest.raises(SourceColumnError, match=r"no column 'ctiy' \(nearest: city\)"):
        extract(uri, "SELECT 'x' AS city", tmp_path / "out", columns=["ctiy"])
    with pytest.raises(SourceColumnError, match="'a' more than once"):
        extract(uri, "SELECT 1 AS a, 2 AS a, 3 AS b", tmp_path / "out", columns=["a", "b"])
    with pytest.raises(WarehouseError) as caught:
        extract(uri, "SELECT json('planted') AS a", tmp_path / "out")
    assert "planted" not in str(caught.value)


def test_a_file_that_is_missing_or_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(WarehouseUnreachableError, match=r"nothing\.db: no SQLite file stands there"):
        extract("sqlite:nothing.db", "SELECT 1 AS a", tmp_path / "out", base=tmp_path)
    (tmp_path / "notes.db").write_text("no database " * 100)
    with pytest.raises(WarehouseUnreachableError, match=r"notes\.db cannot be opened: file is not a database"):
        extract("sqlite:notes.db", "SELECT 1 AS a", tmp_path / "out", base=tmp_path)
    with pytest.raises(WarehouseSettingsError, match="sqlite:///absolute/path"):
        extract("sqlite://host/file", "SELECT 1 AS a", tmp_path / "out")


@pytest.mark.parametrize("address", ["sqlite:{}", "sqlite://{}", "sqlite:///{}"])
def test_a_file_is_found_by_one_slash_or_more(address: str, sqlite_uri: MakeSQLite, tmp_path: Path) -> None:
    path = path_of(sqlite_uri("CREATE TABLE t (a text)"), tmp_path)
    odd = path.rename(path.with_name("odd name%3F#?.db"))
    uri = address.format(str(odd).replace("%", "%25"))
    assert extract(uri, TableName(("t",)), tmp_path / "out").rows == 0


def test_a_damaged_page_is_an_error_and_no_result(sqlite_uri: MakeSQLite, tmp_path: Path) -> None:
    uri = sqlite_uri(
        "CREATE TABLE t (a text)", f"INSERT INTO t SELECT 'x' || i FROM ({SERIES.format(rows=20_000, more='1')})"
    )
    path = path_of(uri, tmp_path)
    content = bytearray(path.read_bytes())
    content[30 * 4096 : 31 * 4096] = b"\xee" * 4096
    path.write_bytes(content)
    with pytest.raises(WarehouseError, match="damaged"):
        extract(uri, TableName(("t",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
