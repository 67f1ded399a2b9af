"""Trino through its own client, against a double of its protocol (see trino_server.py)."""

import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from math import inf, isnan
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.profiles.errors import (
    SourceColumnError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseTimeoutError,
    WarehouseUnreachableError,
)
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.trino import Trino
from connectors.profiles.warehouses.trino_types import column_of, field_of, values_of
from connectors.profiles.warehouses.warehouse import extract
from tests.trino_server import Answer, RefusedError, TrinoServer, trino_server

RowsOf = Callable[[Manifest], pa.Table]
NUMBERS = Answer([("a", "bigint"), ("b", "varchar(9)")], [[[3, "x"], [1, "y"]], [], [[2, "z"]]])


@pytest.fixture
def server() -> Iterator[TrinoServer]:
    with trino_server() as running:
        running.answer = lambda query: NUMBERS
        yield running


# types --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "arrow", "values", "expected"),
    [
        ("boolean", pa.bool_(), [True, None], [True, None]),
        ("tinyint", pa.int8(), [-5, None], [-5, None]),
        ("bigint", pa.int64(), [2**63 - 1, None], [2**63 - 1, None]),
        ("real", pa.float32(), [1.5, "-Infinity"], [1.5, -inf]),
        ("double", pa.float64(), [2, None], [2.0, None]),
        ("decimal(38,4)", pa.decimal128(38, 4), ["12345678901234567890.1200", None],
         [Decimal("12345678901234567890.1200"), None]),
        ("decimal(5, 0)", pa.decimal128(5, 0), ["-7"], [Decimal(-7)]),
        ("varchar", pa.string(), ["上海", None], ["上海", None]),
        ("varchar(9)", pa.string(), [""], [""]),
        ("char(3)", pa.string(), ["a  "], ["a  "]),
        ("uuid", pa.string(), ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567-e89b-12d3-a456-426614174000"]),
        ("date", pa.date32(), ["1950-01-02", None], [date(1950, 1, 2), None]),
        ("timestamp(0)", pa.timestamp("s"), ["2026-11-22 10:00:00"], [datetime(2026, 11, 22, 10)]),
        ("timestamp", pa.timestamp("ms"), ["2026-11-22 10:00:00.123"], [datetime(2026, 11, 22, 10, 0, 0, 123000)]),
        ("timestamp(6)", pa.timestamp("us"), ["2026-11-22 10:00:00.123456", None],
         [datetime(2026, 11, 22, 10, 0, 0, 123456), None]),
        ("timestamp(3) with time zone", pa.timestamp("ms", "UTC"), ["2026-11-22 02:00:00.123 UTC", None],
         [datetime(2026, 11, 22, 2, 0, 0, 123000, tzinfo=UTC), None]),
        ("unknown", pa.null(), [None], [None]),
    ],
)  # fmt: skip
def test_a_type_is_read_as(declared: str, arrow: pa.DataType, values: list[object], expected: list[object]) -> None:
    field = field_of("a", declared)
    assert field.type == arrow
    assert values_of(values, field, where="there").to_pylist() == expected


def test_a_value_that_is_no_number_stays_one() -> None:
    assert isnan(values_of(["NaN"], field_of("a", "double"), where="there")[0].as_py())


@pytest.mark.parametrize(
    "declared",
    ["array(varchar)", "map(varchar,bigint)", "row(a bigint)", "json", "varbinary", "time(3)", "timestamp(12)",
     "interval day to second", "HyperLogLog"],
)  # fmt: skip
def test_a_column_of_another_type_is_refused_by_its_name(declared: str, server: TrinoServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer([("a", "bigint"), ("many", declared)])
    with pytest.raises(SourceColumnError) as caught:
        extract(server.uri, "select a, many from t", tmp_path / "out")
    assert f"the column 'many' ({declared})" in str(caught.value)
    assert (caught.value.columns, server.queries()) == (("many",), [])


def test_moments_are_asked_for_in_utc_and_other_zones_are_refused_with_the_remedy() -> None:
    field = field_of("seen", "timestamp(3) with time zone")
    assert column_of(field) == '"seen" AT TIME ZONE \'UTC\' AS "seen"'
    assert column_of(field_of('a "b', "timestamp(3)")) == '"a ""b"'
    with pytest.raises(SourceColumnError, match=r"'seen' holds moments in other zones.*at time zone 'UTC'") as caught:
        values_of(["2026-11-22 10:00:00.123 Asia/Shanghai"], field, where="there")
    assert "Shanghai" not in str(caught.value)


@pytest.mark.parametrize(("declared", "value"), [("date", "planted"), ("bigint", "planted"), ("double", "planted")])
def test_a_value_of_another_type_is_told_by_its_column_alone(declared: str, value: object) -> None:
    with pytest.raises(SourceColumnError, match="'a' holds a value that does not fit its own type") as caught:
        values_of([value], field_of("a", declared), where="there")
    assert "planted" not in "".join(traceback.format_exception(caught.value))


# rows ---------------------------------------------------------------------------------------------------------------


def test_rows_come_page_by_page_in_their_order_and_only_the_named_columns(
    server: TrinoServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    table = TableName(("hive", "my schema", "user profiles"))
    rows = rows_of(extract(server.uri, table, tmp_path / "out", columns=["a"]))
    assert rows.to_pydict() == {"a": [3, 1, 2]}
    assert server.queries() == ['SELECT "a" FROM (\nSELECT * FROM "hive"."my schema"."user profiles"\n) AS profiles']


def test_an_ordered_query_runs_as_it_stands_and_its_other_columns_are_left_out_here(
    server: TrinoServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    rows = rows_of(extract(server.uri, "select a, b from t order by b;", tmp_path / "out", columns=["b"]))
    assert rows.to_pydict() == {"b": ["x", "y", "z"]}
    assert server.queries() == ["select a, b from t order by b"]


def test_many_rows_come_in_batches_of_bounded_size(server: TrinoServer) -> None:
    server.answer = lambda query: Answer([("a", "bigint")], [[[i] for i in range(start, start + 4_000)]
                                                             for start in range(0, 20_000, 4_000)])  # fmt: skip
    warehouse = Trino(server.uri, timeout_seconds=60)
    query = warehouse.select("select a from t", list(warehouse.describe("select a from t")))
    batches = list(warehouse.read(query))
    assert max(batch.num_rows for batch in batches) <= 5_000
    assert pa.Table.from_batches(batches)["a"].to_pylist() == list(range(20_000))


def test_no_rows_give_one_empty_file_with_the_schema(server: TrinoServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer(NUMBERS.columns)
    manifest = extract(server.uri, "select a, b from t", tmp_path / "out")
    assert (manifest.rows, manifest.schema.names) == (0, ["a", "b"])


# the session --------------------------------------------------------------------------------------------------------


def test_the_query_ends_by_itself_and_its_times_are_utc(server: TrinoServer, tmp_path: Path) -> None:
    extract(server.uri, "select a, b from t", tmp_path / "out", timeout_seconds=100)
    _, headers = server.asked[-1]
    assert (headers["x-trino-session"], headers["x-trino-time-zone"]) == ("query_max_run_time=160s", "UTC")
    assert (headers["x-trino-catalog"], headers["x-trino-schema"]) == ("hive", "marts")
    assert (headers["x-trino-user"], headers["x-trino-source"]) == ("reader", "tencent-push-attribute-sync")
    assert "x-trino-query-data-encoding" not in headers


def test_a_query_that_takes_too_long_is_cancelled(server: TrinoServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer(NUMBERS.columns, waits=True) if server.queries() else NUMBERS
    with pytest.raises(WarehouseTimeoutError, match="did not end within"):
        extract(server.uri, "select a, b from t", tmp_path / "out", timeout_seconds=0.6)
    assert server.cancelled.is_set()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_query_of_rows_is_never_run(server: TrinoServer, tmp_path: Path) -> None:
    def plan(query: str) -> Answer:
        raise RefusedError("SYNTAX_ERROR", "line 2:1: mismatched input 'create'")

    server.answer = plan
    with pytest.raises(WarehouseQueryError, match="mismatched input 'create'"):
        extract(server.uri, "create table x as select 1 as a order by a", tmp_path / "out")
    assert server.queries() == []


# faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("SYNTAX_ERROR", "line 1:1: mismatched input 'selec'", "mismatched input 'selec'. Correct the query"),
        ("COLUMN_NOT_FOUND", "line 1:8: Column 'nope' cannot be resolved", "Column 'nope' cannot be resolved"),
        ("TABLE_NOT_FOUND", "line 1:15: Table 'hive.marts.nope' does not exist", "Table 'hive.marts.nope' does not"),
        ("PERMISSION_DENIED", "Access Denied: Cannot select from columns [a]", r"columns \[a\]. Grant the user select"),
        ("INVALID_CAST_ARGUMENT", "Cannot cast 'planted' to INT", r"Cannot cast \(INVALID_CAST_ARGUMENT\)"),
    ],
)
def test_a_refused_query_is_told_with_the_server_s_words_but_no_value(
    name: str, words: str, said: str, server: TrinoServer, tmp_path: Path
) -> None:
    server.answer = lambda query: Answer(NUMBERS.columns, NUMBERS.pages, RefusedError(name, words))
    with pytest.raises(WarehouseQueryError, match=f"refused the query: .*{said}") as caught:
        extract(server.uri, "select a, b from t", tmp_path / "out")
    assert "planted" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_server_s_own_limit_is_a_time_out(server: TrinoServer, tmp_path: Path) -> None:
    error = RefusedError("EXCEEDED_TIME_LIMIT", "Query exceeded the maximum run time limit", "INSUFFICIENT_RESOURCES")
    server.answer = lambda query: Answer(NUMBERS.columns, NUMBERS.pages, error)
    with pytest.raises(WarehouseTimeoutError, match="the server's own limit"):
        extract(server.uri, "select a, b from t", tmp_path / "out")


def test_a_server_that_hangs_up_between_two_pages_gives_no_result(server: TrinoServer, tmp_path: Path) -> None:
    server.hangs_up_at = 2
    with pytest.raises(WarehouseUnreachableError, match="broke off before the last row"):
        extract(server.uri, "select a, b from t", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_user_that_is_not_let_in_is_told_at_once(server: TrinoServer, tmp_path: Path) -> None:
    server.status = 401
    with pytest.raises(WarehouseUnreachableError, match=r"refuses the user, password or token \(401\)") as caught:
        extract(server.uri, "select a", tmp_path / "out")
    assert "planted" not in str(caught.value)
    assert not caught.value.is_passing


def test_a_server_that_is_not_there_is_told_and_may_be_tried_again() -> None:
    with pytest.raises(WarehouseUnreachableError, match=r":1/hive cannot be reached: Connection refused") as caught:
        Trino("trino://reader@127.0.0.1:1/hive?secure=false", timeout_seconds=60)
    assert caught.value.is_passing


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("trino://reader:planted@host/a/b/c", "must look like trino://"),
        ("trino://host/hive", "names no user"),
        ("trino://reader:planted@host:8080/hive", "a password or a token over an encrypted connection alone"),
        ("trino://host/hive?secure=false&access_token=planted", "over an encrypted connection alone"),
        ("trino://reader@host/hive?tokn=planted", "parameter 'tokn'. Known: secure, verify"),
    ],
)
def test_an_unfit_address_is_told_before_anything_is_sent(uri: str, said: str) -> None:
    with pytest.raises(WarehouseSettingsError, match=said) as caught:
        Trino(uri, timeout_seconds=60)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("trino://reader:p%40ss@host/hive", ("https", 443, "BasicAuthentication")),
        ("trino://reader@host:8443/hive?access_token=abc&ca_cert=/etc/ca.pem", ("https", 8443, "JWTAuthentication")),
        ("trino://reader@host:8080/hive", ("http", 8080, "NoneType")),
    ],
)
def test_how_the_user_proves_who_it_is(uri: str, expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
    import trino

    seen: dict[str, object] = {}

    class Connection:
        def __init__(self, **arguments: object) -> None:
            seen.update(arguments)

        def cursor(self) -> None:
            raise trino.exceptions.TrinoConnectionError("Connection refused")

    monkeypatch.setattr(trino.dbapi, "connect", Connection)
    with pytest.raises(WarehouseUnreachableError):
        Trino(uri, timeout_seconds=60)
    assert (seen["http_scheme"], seen["port"], type(seen.get("auth")).__name__) == expected


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trino", None)
    with pytest.raises(WarehouseSettingsError, match=r"pip install '\.\[trino\]'"):
        Trino("trino://reader@host", timeout_seconds=60)
