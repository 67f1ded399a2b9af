"""Every type of MySQL's against a real MariaDB: what it arrives as, and which are refused by their column's name."""

import datetime
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.profiles.errors import SourceColumnError
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.warehouse import extract
from tests.mariadb_server import MariaDBServer

RowsOf = Callable[[Manifest], pa.Table]
UTC = datetime.UTC


@pytest.mark.parametrize(
    ("declared", "literal", "data_type", "value"),
    [
        ("varchar(20) character set utf8mb4", "'上海 👍🏽'", pa.string(), "上海 👍🏽"),
        ("varchar(20) character set latin1", "'é'", pa.string(), "é"),
        ("varchar(20) character set gbk", "'上海'", pa.string(), "上海"),
        ("char(3)", "'x'", pa.string(), "x"),
        ("text", "''", pa.string(), ""),
        ("longtext", "repeat('語', 30000)", pa.string(), "語" * 30000),
        ("enum('calm', '開心')", "'開心'", pa.string(), "開心"),
        ("set('x', 'y')", "'x,y'", pa.string(), "x,y"),
        ("json", """'{"a": "👍"}'""", pa.string(), '{"a": "👍"}'),
        ("uuid", "'5A7B0C1D-0000-4000-8000-00000000ABCD'", pa.string(), "5a7b0c1d-0000-4000-8000-00000000abcd"),
        ("varchar(9)", "NULL", pa.string(), None),
        ("boolean", "true", pa.bool_(), True),
        ("tinyint(1)", "0", pa.bool_(), False),
        ("tinyint(1) unsigned", "1", pa.uint8(), 1),
        ("tinyint", "-128", pa.int8(), -128),
        ("tinyint(4)", "1", pa.int8(), 1),
        ("tinyint unsigned", "255", pa.uint8(), 255),
        ("smallint", "-1", pa.int16(), -1),
        ("mediumint unsigned", "16777215", pa.uint32(), 16777215),
        ("int", "-2147483648", pa.int32(), -(2**31)),
        ("int(5) unsigned zerofill", "42", pa.uint32(), 42),
        ("bigint", "-9223372036854775808", pa.int64(), -(2**63)),
        ("bigint unsigned", "18446744073709551615", pa.uint64(), 2**64 - 1),
        ("year", "2024", pa.int16(), 2024),
        ("bit(1)", "b'1'", pa.bool_(), True),
        ("bit(9)", "b'100000001'", pa.uint64(), 257),
        ("bit(64)", "0xFFFFFFFFFFFFFFFF", pa.uint64(), 2**64 - 1),
        ("decimal(12, 2)", "-12.5", pa.decimal128(12, 2), Decimal("-12.50")),
        ("decimal(12, 2) unsigned", "9999999999.99", pa.decimal128(12, 2), Decimal("9999999999.99")),
        ("decimal(4, 4)", "-0.1234", pa.decimal128(4, 4), Decimal("-0.1234")),
        ("decimal(38, 10)", "1000000000000000000000000000.0000000001", pa.decimal128(38, 10),
         Decimal("1" + "0" * 27 + ".0000000001")),
        ("decimal(38, 0)", "-1e37", pa.decimal128(38, 0), -Decimal(10**37)),
        ("decimal(65, 10)", "1234567890123456789012345678901234567890.5", pa.string(),
         "1234567890123456789012345678901234567890.5000000000"),
        ("float", "1.1234567", pa.float32(), 1.1234567165374756),
        ("double", "0.1", pa.float64(), 0.1),
        ("double", "1.7976931348623157e308", pa.float64(), 1.7976931348623157e308),
        ("date", "'0001-01-01'", pa.date32(), datetime.date(1, 1, 1)),
        ("date", "'9999-12-31'", pa.date32(), datetime.date(9999, 12, 31)),
        ("date", "'0000-00-00'", pa.date32(), None),
        ("datetime(6)", "'2024-02-29 23:59:59.999999'", pa.timestamp("us"),
         datetime.datetime(2024, 2, 29, 23, 59, 59, 999999)),
        ("datetime", "'0000-00-00 00:00:00'", pa.timestamp("us"), None),
        ("timestamp(3) null", "'2024-02-29 23:59:59.5'", pa.timestamp("us", tz="UTC"),
         datetime.datetime(2024, 2, 29, 15, 59, 59, 500000, tzinfo=UTC)),
        ("timestamp null", "'0000-00-00 00:00:00'", pa.timestamp("us", tz="UTC"), None),
    ],
)  # fmt: skip
def test_a_type_of_mysql_arrives_as(
    declared: str, literal: str, *, data_type: pa.DataType, value: object, mariadb: MariaDBServer, tmp_path: Path,
    rows_of: RowsOf,
) -> None:  # fmt: skip
    mariadb.run(
        "SET sql_mode = '', time_zone = '+08:00'",
        f"CREATE OR REPLACE TABLE typed (c {declared}, second_row int)",
        f"INSERT INTO typed VALUES ({literal}, 1), (NULL, 2)",
    )
    manifest = extract(mariadb.uri, TableName(("typed",)), tmp_path / "out", columns=["c"])
    assert manifest.schema.field("c").type == data_type
    assert rows_of(manifest)["c"].to_pylist() == [value, None]


@pytest.mark.parametrize(
    ("expression", "data_type", "value"),
    [
        ("NULL", pa.string(), None),
        ("1.50", pa.decimal128(3, 2), Decimal("1.50")),
        ("cast('x' as char)", pa.string(), "x"),
        ("concat(1, 'é')", pa.string(), "1é"),
        ("json_object('a', 1)", pa.string(), '{"a": 1}'),
        ("date_format('2024-02-29', '%Y')", pa.string(), "2024"),
        ("count(*)", pa.int64(), 2),
        ("avg(v)", pa.decimal128(14, 4), Decimal("1.5000")),
    ],
)
def test_what_a_query_computes_has_a_type_too(
    expression: str, *, data_type: pa.DataType, value: object, mariadb: MariaDBServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    query = f"SELECT {expression} AS c FROM (SELECT 1 AS v UNION SELECT 2) AS t LIMIT 1"
    manifest = extract(mariadb.uri, query, tmp_path / "out")
    assert manifest.schema.field("c").type == data_type
    assert rows_of(manifest)["c"].to_pylist() == [value]


@pytest.mark.parametrize("declared", ["blob", "varbinary(5)", "binary(2)", "time", "point", "inet6"])
def test_a_type_that_no_attribute_can_hold_is_refused_before_a_row_is_read(
    declared: str, mariadb: MariaDBServer, tmp_path: Path
) -> None:
    mariadb.run(f"CREATE OR REPLACE TABLE unfit (id int, c {declared})", "INSERT INTO unfit (id) VALUES (1)")
    if declared == "inet6":  # the server itself makes text of it
        assert extract(mariadb.uri, "SELECT * FROM unfit", tmp_path / "out").schema.field("c").type == pa.string()
        return
    with pytest.raises(SourceColumnError, match=r"column 'c' \(.*\) is no single text"):
        extract(mariadb.uri, "SELECT *, sleep(60) AS never FROM unfit", tmp_path / "out", columns=["id", "c"])
    assert extract(mariadb.uri, "SELECT * FROM unfit", tmp_path / "out", columns=["id"]).rows == 1


@pytest.mark.parametrize(
    ("declared", "literal", "said"),
    [
        ("tinyint(1)", "2", r"a tinyint\(1\) and holds other numbers than 0 and 1.*cast\(c as signed\)"),
        ("date", "'2024-00-10'", "a date without day, month or year"),
        ("datetime", "'2024-02-00 10:00:00'", "a date without day, month or year"),
        ("date", "'0000-02-10'", "infinite date, or one outside the years"),
    ],
)
def test_a_value_that_parquet_cannot_hold_is_refused_by_column(
    declared: str, literal: str, said: str, *, mariadb: MariaDBServer, tmp_path: Path
) -> None:
    mariadb.run(
        "SET sql_mode = ''", f"CREATE OR REPLACE TABLE held (c {declared})", f"INSERT INTO held VALUES ({literal})"
    )
    with pytest.raises(SourceColumnError, match=f"column 'c' (holds|is) .*{said}"):
        extract(mariadb.uri, TableName(("held",)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_utf8_cannot_be_smuggled_in_as_text(mariadb: MariaDBServer, tmp_path: Path) -> None:
    with pytest.raises(SourceColumnError, match=r"'c' \(binary\)"):
        extract(mariadb.uri, "SELECT convert(x'FF' using binary) AS c", tmp_path / "out")
