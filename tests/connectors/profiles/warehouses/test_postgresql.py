import datetime
import logging
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest

from connectors.profiles.errors import (
    ProfilesError,
    SourceColumnError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseUnreachableError,
)
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.postgresql import address_with_parameters
from connectors.profiles.warehouses.warehouse import extract

RunSql = Callable[..., list[tuple[object, ...]]]
RowsOf = Callable[[Manifest], pa.Table]
UTC = datetime.UTC
PASSWORD = "planted p@ss/word?&=%"


@pytest.fixture(scope="module")
def types_made(postgres_uri: str) -> None:
    import adbc_driver_postgresql.dbapi as postgresql

    with postgresql.connect(postgres_uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TYPE mood AS ENUM ('calm', '開心')")
        cursor.execute("CREATE DOMAIN city_name AS text CHECK (value <> '')")
        cursor.execute("CREATE DOMAIN price AS numeric(10, 3)")
        cursor.execute("CREATE TYPE pair AS (a int, b text)")


@pytest.mark.parametrize(
    ("expression", "data_type", "value"),
    [
        ("'上海'::text", pa.string(), "上海"),
        ("'x'::varchar(10)", pa.string(), "x"),
        ("'x'::char(3)", pa.string(), "x  "),
        ("'x'::name", pa.string(), "x"),
        ("'x'::city_name", pa.string(), "x"),
        ("'開心'::mood", pa.string(), "開心"),
        ("NULL", pa.string(), None),
        ("'5A7B0C1D-0000-4000-8000-00000000ABCD'::uuid", pa.string(), "5a7b0c1d-0000-4000-8000-00000000abcd"),
        ("""'{"a": 1}'::json""", pa.string(), '{"a": 1}'),
        ("""'{"a":1}'::jsonb""", pa.string(), '{"a": 1}'),
        ("true", pa.bool_(), True),
        ("(-1)::smallint", pa.int16(), -1),
        ("2147483647", pa.int32(), 2147483647),
        ("9223372036854775807", pa.int64(), 9223372036854775807),
        ("4000000000::oid", pa.int64(), 4000000000),
        ("12.5::numeric(12, 2)", pa.decimal128(12, 2), Decimal("12.50")),
        ("0::numeric(12, 2)", pa.decimal128(12, 2), Decimal("0.00")),
        ("1.5::price", pa.decimal128(10, 3), Decimal("1.500")),
        ("NULL::numeric(38, 10)", pa.decimal128(38, 10), None),
        ("12.50::numeric", pa.string(), "12.50"),
        ("1e-10::numeric", pa.string(), "0.0000000001"),
        ("0.00::numeric", pa.string(), "0.00"),
        ("1e45::numeric(50, 2)", pa.string(), "1" + "0" * 45 + ".00"),
        ("sum(v)", pa.int64(), 3),
        ("sum(v::bigint)", pa.string(), "3"),
        ("avg(v)", pa.string(), "1.5000000000000000"),
        ("1234.5::money", pa.string(), "1234.50"),
        ("1.5::real", pa.float32(), 1.5),
        ("0.1::double precision", pa.float64(), 0.1),
        ("'infinity'::double precision", pa.float64(), float("inf")),
        ("DATE '0001-01-01'", pa.date32(), datetime.date(1, 1, 1)),
        ("DATE '9999-12-31'", pa.date32(), datetime.date(9999, 12, 31)),
        (
            "TIMESTAMP '2024-02-29 23:59:59.999999'",
            pa.timestamp("us"),
            datetime.datetime(2024, 2, 29, 23, 59, 59, 999999),
        ),
        (
            "TIMESTAMPTZ '2024-02-29 23:59:59.5+08'",
            pa.timestamp("us", tz="UTC"),
            datetime.datetime(2024, 2, 29, 15, 59, 59, 500000, tzinfo=UTC),
        ),
    ],
)
@pytest.mark.usefixtures("types_made")
def test_a_type_of_postgresql_arrives_as(
    expression: str, *, data_type: pa.DataType, value: object, postgres_uri: str, tmp_path: Path, rows_of: RowsOf
) -> None:
    query = f"SELECT {expression} AS c FROM (VALUES (1), (2)) AS t(v)" + ("" if "(v" in expression else " LIMIT 1")
    manifest = extract(postgres_uri, query, tmp_path / "out")
    assert manifest.schema.field("c").type == data_type
    assert rows_of(manifest)["c"].to_pylist() == [value]


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("ARRAY[1, 2]", "_int4"), ("ARRAY['x']", "_text"), ("ARRAY[1.5::numeric]", "_numeric"), ("'x'::bytea", "bytea"),
        ("ROW(1, 'x')::pair", "pair"), ("ROW(1, 'x')", "record"), ("TIME '12:00'", "time"),
        ("TIME WITH TIME ZONE '12:00+02'", "timetz"), ("INTERVAL '1 day'", "interval"), ("'1.2.3.4'::inet", "inet"),
        ("'(1,2)'::point", "point"), ("'[1,2)'::int4range", "oid:3904"), ("B'101'", "bit"),
        ("'a'::tsvector", "tsvector"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("types_made")
def test_a_type_that_no_attribute_can_hold_is_refused_before_a_row_is_read(
    expression: str, named: str, postgres_uri: str, tmp_path: Path
) -> None:
    query = f"SELECT 1 AS id, {expression} AS c, 1 / (1 - v) AS fails FROM (VALUES (1)) AS t(v)"
    with pytest.raises(SourceColumnError, match=rf"column 'c' \(.*{named}.*\) is no single text"):
        extract(postgres_uri, query, tmp_path / "out")
    assert extract(postgres_uri, query, tmp_path / "out", columns=["id"]).rows == 1


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("'NaN'::numeric(12, 2)", "NaN"),
        ("'NaN'::numeric", "NaN"),
        ("'-infinity'::numeric", "NaN"),
        ("DATE 'infinity'", "infinite date"),
        ("DATE '-infinity'", "infinite date"),
        ("TIMESTAMP 'infinity'", "infinite date"),
        ("TIMESTAMPTZ '-infinity'", "infinite date"),
        ("DATE '0044-03-15 BC'", "outside the years"),
        ("TIMESTAMP '20000-01-01'", "outside the years"),
    ],
)
def test_a_value_that_parquet_cannot_hold_is_refused_by_column(
    expression: str, said: str, postgres_uri: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceColumnError, match=f"column 'c' holds .*{said}"):
        extract(postgres_uri, f"SELECT {expression} AS c", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --- addresses and passwords ----------------------------------------------------------------------


def test_time_outs_and_the_encoding_are_added_to_the_address() -> None:
    address = address_with_parameters("postgresql://u:p@db/marts")
    assert address.startswith("postgresql://u:p@db/marts?connect_timeout=15&keepalives_idle=30&")
    assert address.endswith("&client_encoding=UTF8")


def test_what_the_address_sets_itself_stays_but_for_the_encoding() -> None:
    address = address_with_parameters("postgresql://db/marts?connect_timeout=3&password=a+b&client_encoding=LATIN1")
    assert address.startswith(
        "postgresql://db/marts?connect_timeout=3&password=a+b&client_encoding=LATIN1&keepalives_idle"
    )
    assert address.count("connect_timeout") == 1
    assert address.endswith("client_encoding=UTF8")  # the last one counts


@pytest.fixture(scope="module")
def password_uri(postgres_uri: str, postgres_folder: Path) -> str:
    """An address whose user must give the planted password."""
    import adbc_driver_postgresql.dbapi as postgresql

    access = postgres_folder / "pg_hba.conf"
    access.write_text("local all guarded scram-sha-256\n" + access.read_text())
    with postgresql.connect(postgres_uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
        cursor.execute("SELECT pg_reload_conf()")
        cursor.fetchall()
    without_password = postgres_uri.replace("postgres:@", "guarded:@")
    for _ in range(500):  # the server reads its rules again in its own time
        try:
            postgresql.connect(without_password).close()
        except postgresql.OperationalError:
            break
        time.sleep(0.01)
    return postgres_uri.replace("postgres:@", f"guarded:{quote(PASSWORD, safe='')}@")


def test_a_password_with_special_characters_is_accepted(password_uri: str, tmp_path: Path) -> None:
    assert extract(password_uri, "SELECT 1 AS a", tmp_path / "out").rows == 1


def test_the_password_stands_in_no_text(
    password_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(rows: int) -> None:
        raise WarehouseQueryError("stop")

    wrong = quote("planted wrong", safe="")
    right = quote(PASSWORD, safe="")
    cases = [
        (password_uri.replace(right, wrong), "SELECT 1 AS a", WarehouseUnreachableError),
        (password_uri.replace("/postgres?", "/no_database?"), "SELECT 1 AS a", WarehouseUnreachableError),
        (f"postgresql://u:{right}@127.0.0.1:1/db", "SELECT 1 AS a", WarehouseUnreachableError),
        (f"postgresql://u:{right}@no-such-host.invalid/db", "SELECT 1 AS a", WarehouseUnreachableError),
        (f"postgresql://u:{right}@127.0.0.1:1/db?sslmode=nonsense", "SELECT 1 AS a", WarehouseUnreachableError),
        (f"postgresql://127.0.0.1:1/db?user=u&password={right}&nonsense=1", "SELECT 1 AS a", WarehouseUnreachableError),
        (f"postgresql://u:{PASSWORD}@127.0.0.1:1/db", "SELECT 1 AS a", WarehouseSettingsError),
        (password_uri, "SELEC", WarehouseQueryError),
        (password_uri, f"SELECT '{right}'::int AS a", WarehouseQueryError),
        (password_uri, "SELECT 1 / (v - v) AS a FROM (VALUES (1)) AS t(v)", WarehouseQueryError),
        (password_uri, "SELECT ARRAY[1] AS a", SourceColumnError),
    ]
    caplog.set_level(logging.DEBUG)
    for uri, query, kind in cases:
        with pytest.raises(kind) as caught:
            extract(uri, query, tmp_path / "out", on_rows=fail)
        assert_unseen("".join(traceback.format_exception(caught.value)))
        assert_unseen(repr(caught.value))
        assert isinstance(caught.value, ProfilesError)
    assert_unseen(caplog.text + "".join(capfd.readouterr()))


def assert_unseen(text: str) -> None:
    for piece in ("planted", "p@ss", "p%40ss"):
        assert piece not in text


def test_a_wrong_password_and_an_unknown_host_are_said_in_the_server_s_words(password_uri: str, tmp_path: Path) -> None:
    with pytest.raises(WarehouseUnreachableError, match='password authentication failed for user "guarded"'):
        extract(password_uri.replace(quote(PASSWORD, safe=""), "wrong"), "SELECT 1 AS a", tmp_path / "out")
    with pytest.raises(
        WarehouseUnreachableError, match=r"postgresql://no-such-host\.invalid/db cannot be reached: .*host"
    ):
        extract("postgresql://u:p@no-such-host.invalid/db", "SELECT 1 AS a", tmp_path / "out")


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql.dbapi", None)
    with pytest.raises(WarehouseSettingsError, match=r"pip install '\.\[postgresql\]'"):
        extract("postgresql://db/marts", "SELECT 1 AS a", tmp_path / "out")


def test_a_value_that_a_statement_time_out_cuts_off_is_a_query_error(postgres_uri: str, tmp_path: Path) -> None:
    uri = f"{postgres_uri}&options=-c%20statement_timeout%3D50"
    with pytest.raises(WarehouseQueryError, match="statement timeout"):
        extract(uri, "SELECT 1 AS a FROM (SELECT pg_sleep(30)) AS s", tmp_path / "out")


def test_uuids_come_as_text_that_python_reads_back(postgres_uri: str, tmp_path: Path, rows_of: RowsOf) -> None:
    manifest = extract(postgres_uri, "SELECT gen_random_uuid() AS id FROM generate_series(1, 100)", tmp_path / "out")
    texts = rows_of(manifest)["id"].to_pylist()
    assert [str(uuid.UUID(text)) for text in texts] == texts
