"""Databricks through the vendor's connector, against a double of its service (see databricks_server.py)."""

import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from databricks import sql

from connectors.profiles.errors import (
    SourceColumnError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseTimeoutError,
    WarehouseUnreachableError,
)
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.databricks import Databricks, field_of
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.warehouse import extract
from tests.databricks_server import Answer, DatabricksServer, RefusedError, databricks_server

RowsOf = Callable[[Manifest], pa.Table]
ROWS = [pa.record_batch({"a": [3, 1], "b": ["x", "y"]}), pa.record_batch({"a": [2], "b": ["z"]})]
NUMBERS = Answer(ROWS[0].schema, ROWS)
HOST = "databricks://token:planted@host"
PATH = "http_path=/sql/1.0/warehouses/abc"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabricksServer]:
    with databricks_server() as running:
        running.answer = lambda query: NUMBERS
        plain(monkeypatch, running.port)
        yield running


def plain(monkeypatch: pytest.MonkeyPatch, port: int, **settings: object) -> None:
    """The connector speaks https alone, but for this setting of its own tests."""
    connect = sql.connect

    def unencrypted(**arguments: Any) -> Any:
        uri = f"http://127.0.0.1:{port}{arguments['http_path']}"
        return connect(**arguments | {"_connection_uri": uri} | settings)

    monkeypatch.setattr(sql, "connect", unencrypted)


# rows ---------------------------------------------------------------------------------------------------------------


def test_every_type_arrives_as_the_value_that_it_is(server: DatabricksServer, tmp_path: Path, rows_of: RowsOf) -> None:
    moment = datetime(2026, 11, 22, 2, 0, 0, 123456)
    given: dict[str, tuple[pa.DataType, object]] = {
        "tiny": (pa.int8(), -5), "whole": (pa.int64(), 2**63 - 1), "f": (pa.float32(), 1.5), "vip": (pa.bool_(), True),
        "money": (pa.decimal128(38, 4), Decimal("12345678901234567890.1200")), "city": (pa.string(), "上海"),
        "born": (pa.date32(), date(1950, 1, 2)), "local": (pa.timestamp("us"), moment), "nothing": (pa.null(), None),
        "seen": (pa.timestamp("us", "UTC"), moment.replace(tzinfo=UTC)),
    }  # fmt: skip
    batch = pa.record_batch({name: pa.array([value, None], kind) for name, (kind, value) in given.items()})
    server.answer = lambda query: Answer(batch.schema, [batch])
    rows = rows_of(extract(server.uri, "select everything from t", tmp_path / "out"))
    assert rows.to_pylist() == [{name: value for name, (_, value) in given.items()}, dict.fromkeys(given)]
    assert rows.schema.field("seen").type == pa.timestamp("us", "UTC")


def test_rows_come_piece_by_piece_in_their_order_and_only_the_named_columns(
    server: DatabricksServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    table = TableName(("main", "my schema", "user `profiles"))
    rows = rows_of(extract(server.uri, table, tmp_path / "out", columns=["a"]))
    assert rows.to_pydict() == {"a": [3, 1, 2]}
    assert server.queries() == ["SELECT `a` FROM (\nSELECT * FROM `main`.`my schema`.`user ``profiles`\n) AS profiles"]


def test_an_ordered_query_runs_as_it_stands_and_its_other_columns_are_left_out_here(
    server: DatabricksServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    rows = rows_of(extract(server.uri, "select a, b from t order by b;", tmp_path / "out", columns=["b"]))
    assert rows.to_pydict() == {"b": ["x", "y", "z"]}
    assert server.queries() == ["select a, b from t order by b"]


def test_many_rows_come_in_batches_of_bounded_size(server: DatabricksServer) -> None:
    batches = [pa.record_batch({"a": range(start, start + 30_000)}) for start in range(0, 90_000, 30_000)]
    server.answer = lambda query: Answer(batches[0].schema, batches)
    warehouse = Databricks(server.uri, timeout_seconds=60)
    query = warehouse.select("select a from t", list(warehouse.describe("select a from t")))
    read = list(warehouse.read(query))
    warehouse.close()
    assert max(batch.num_rows for batch in read) <= 20_000
    assert pa.Table.from_batches(read)["a"].to_pylist() == list(range(90_000))


def test_a_large_answer_comes_from_the_storage_beside_the_service_in_its_order(
    server: DatabricksServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    batches = [pa.record_batch({"a": range(start, start + 1_000)}) for start in range(0, 8_000, 1_000)]
    server.answer = lambda query: Answer(batches[0].schema, batches if server.queries() else (), beside=True)
    rows = rows_of(extract(server.uri, "select a from t", tmp_path / "out"))
    assert rows["a"].to_pylist() == list(range(8_000))


def test_a_piece_of_a_large_answer_that_cannot_be_had_is_no_result(server: DatabricksServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer(NUMBERS.schema, ROWS if server.queries() else (), beside=True, breaks=1)
    with pytest.raises(WarehouseUnreachableError, match="broke off before the last row"):
        extract(server.uri, "select a, b from t", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_no_rows_give_one_empty_file_with_the_schema(server: DatabricksServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer(NUMBERS.schema)
    manifest = extract(server.uri, "select a, b from t", tmp_path / "out")
    assert (manifest.rows, manifest.schema.names) == (0, ["a", "b"])


@pytest.mark.parametrize(
    ("kind", "name"),
    [(pa.list_(pa.string()), "ARRAY<STRING>"), (pa.struct([("a", pa.int8())]), "STRUCT<a: TINYINT>"),
     (pa.map_(pa.string(), pa.int8()), "MAP<STRING, TINYINT>"), (pa.binary(), "BINARY"), (pa.string(), "VARIANT"),
     (pa.string(), "INTERVAL DAY TO SECOND"), (pa.string(), "geography(4326)")],
)  # fmt: skip
def test_a_column_of_another_type_is_refused_by_its_name(
    kind: pa.DataType, name: str, server: DatabricksServer, tmp_path: Path
) -> None:
    many = pa.field("many", kind, metadata={b"Spark:DataType:SqlName": name.encode()})
    server.answer = lambda query: Answer(pa.schema([("a", pa.int64()), many]))
    with pytest.raises(SourceColumnError) as caught:
        extract(server.uri, "select a, many from t", tmp_path / "out")
    assert f"the column 'many' ({name})" in str(caught.value)
    assert (caught.value.columns, server.queries()) == (("many",), [])


def test_a_text_stays_a_text_whatever_its_type_is_called() -> None:
    for name in (b"STRING", b"VARCHAR(9)", b"variants"):
        assert field_of(pa.field("a", pa.string(), metadata={b"Spark:DataType:SqlName": name})).type == pa.string()


# the session --------------------------------------------------------------------------------------------------------


def test_the_session_ends_its_queries_by_itself_and_tells_times_in_utc(
    server: DatabricksServer, tmp_path: Path
) -> None:
    extract(server.uri, "select a, b from t", tmp_path / "out", timeout_seconds=100)
    assert server.asked[:2] == ["SET TIME ZONE 'UTC'", "SET STATEMENT_TIMEOUT = 160"]
    namespace = server.sessions[0].initialNamespace
    assert (namespace.catalogName, namespace.schemaName) == ("c", "s")
    assert {headers["authorization"] for headers in server.headers} == {"Bearer secret"}
    assert set(server.routes) == {"/sql/1.0/warehouses/abc"}, "nothing is reported to the vendor"


def test_a_limit_that_cannot_be_set_is_left_as_it_is(server: DatabricksServer, tmp_path: Path) -> None:
    server.fixed = "SET STATEMENT_TIMEOUT"
    assert extract(server.uri, "select a, b from t", tmp_path / "out").rows == 3


def test_a_query_that_takes_too_long_is_cancelled(server: DatabricksServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer(NUMBERS.schema, ROWS, waits=bool(server.queries()))
    with pytest.raises(WarehouseTimeoutError, match="did not end within"):
        extract(server.uri, "select a, b from t", tmp_path / "out", timeout_seconds=0.8)
    assert server.cancelled.is_set()
    assert list(tmp_path.iterdir()) == []


# faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("[PARSE_SYNTAX_ERROR] Syntax error at or near 'selec'. SQLSTATE: 42601 (line 1, pos 0)\n\n== SQL ==\nselec 1",
         r"Syntax error at or near 'selec'. Correct the query"),
        ("[UNRESOLVED_COLUMN.WITHOUT_SUGGESTION] A column with name `nope` cannot be resolved. SQLSTATE: 42703; line 1",
         "name `nope` cannot be resolved. Correct"),
        ("[TABLE_OR_VIEW_NOT_FOUND] The table or view `nope` cannot be found. SQLSTATE: 42P01", "view `nope`"),
        ("[INSUFFICIENT_PERMISSIONS] User does not have SELECT on Table 't'. SQLSTATE: 42501", "'t'. Grant the"),
        ("PERMISSION_DENIED: User does not have USE SCHEMA on Schema 's'.", "Schema 's'. Grant the user use"),
        ("[CAST_INVALID_INPUT] The value 'planted' of the type STRING cannot be cast. SQLSTATE: 22018; line 1 pos 7",
         r"\[CAST_INVALID_INPUT\] The value \(SQLSTATE 22018\)"),
    ],
)  # fmt: skip
def test_a_refused_query_is_told_with_the_server_s_words_but_no_value(
    words: str, said: str, server: DatabricksServer, tmp_path: Path
) -> None:
    def refuse(query: str) -> Answer:
        raise RefusedError(words)

    server.answer = refuse
    with pytest.raises(WarehouseQueryError, match=said) as caught:
        extract(server.uri, "select a from t", tmp_path / "out")
    assert "planted" not in str(caught.value)


def test_the_server_s_own_limit_is_a_time_out(server: DatabricksServer, tmp_path: Path) -> None:
    def refuse(query: str) -> Answer:
        raise RefusedError("[STATEMENT_TIMEOUT] The statement ran longer than 5 seconds. SQLSTATE: 57KD0")

    server.answer = refuse
    with pytest.raises(WarehouseTimeoutError, match="the server's own limit"):
        extract(server.uri, "select a from t", tmp_path / "out")


def test_a_server_that_hangs_up_between_two_pieces_gives_no_result(server: DatabricksServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer(NUMBERS.schema, ROWS, breaks=1)
    with pytest.raises(WarehouseUnreachableError, match="broke off before the last row"):
        extract(server.uri, "select a, b from t", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_token_is_told_at_once_and_never_shown(
    server: DatabricksServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.status = 403
    uri = server.uri.replace("secret", "dapi-planted")
    with caplog.at_level(0), pytest.raises(WarehouseUnreachableError, match=r"refuses the token \(403\)") as caught:
        extract(uri, "select a from t", tmp_path / "out")
    assert "planted" not in "".join(traceback.format_exception(caught.value))
    assert "dapi-planted" not in caplog.text
    assert not caught.value.is_passing


def test_a_fault_of_no_known_words_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(**arguments: object) -> None:
        raise sql.exc.RequestError("planted", {"original-exception": "planted"})

    monkeypatch.setattr(sql, "connect", connect)
    with pytest.raises(WarehouseUnreachableError, match=r"the connection broke \(RequestError\)") as caught:
        Databricks(f"{HOST}?{PATH}", timeout_seconds=60)
    assert "planted" not in str(caught.value)


def test_a_server_that_is_not_there_is_told_and_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plain(monkeypatch, 1, _retry_stop_after_attempts_count=1)
    with pytest.raises(WarehouseUnreachableError, match="cannot be reached: Connection refused") as caught:
        Databricks(f"{HOST}?{PATH}", timeout_seconds=60)
    assert caught.value.is_passing


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (f"{HOST}/marts?{PATH}", "must look like databricks://token"),
        (HOST, "names no SQL warehouse, or no token"),
        (f"databricks://host?{PATH}", "names no SQL warehouse, or no token"),
        (f"{HOST}?http_path=/sql/protocolv1/o/1/abc", "a cluster is no SQL warehouse"),
        (f"{HOST}?{PATH}&tokn=planted", "parameter 'tokn'. Known: http_path"),
    ],
)
def test_an_unfit_address_is_told_before_anything_is_sent(uri: str, said: str) -> None:
    with pytest.raises(WarehouseSettingsError, match=said) as caught:
        Databricks(uri, timeout_seconds=60)
    assert "planted" not in str(caught.value)


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "databricks.sql", None)
    with pytest.raises(WarehouseSettingsError, match=r"pip install '\.\[databricks\]'"):
        Databricks(f"{HOST}?{PATH}", timeout_seconds=60)
