"""ClickHouse through its own driver: answers of a real engine (see clickhouse_server.py), and faults at the wire."""

import io
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

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
from connectors.profiles.warehouses.clickhouse import ClickHouse
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.warehouse import extract
from tests.clickhouse_server import ClickHouseServer, Request, clickhouse_server

RowsOf = Callable[[Manifest], pa.Table]
TABLE = TableName(("marts", "user `profiles"))
VALUES = """
SELECT CAST(1, 'UInt8') AS u8, CAST(18446744073709551615, 'UInt64') AS u64, CAST(-5, 'Nullable(Int32)') AS i32,
  CAST('上海', 'LowCardinality(Nullable(String))') AS city, NULL AS nothing, true AS vip,
  toDecimal128('12345678901234567890.1200', 4) AS money, toDecimal256('1.10', 50) AS wide, toUInt256(7) AS huge,
  toDate('2026-11-22') AS day, toDate32('1950-01-02') AS early, CAST(toDateTime('2026-11-22 10:00:00', 'Asia/Shanghai'),
  'Nullable(DateTime(\\'Asia/Shanghai\\'))') AS seen,
  toDateTime64('2026-11-22 10:00:00.123456', 6, 'America/New_York') AS fine,
  toUUID('123e4567-e89b-12d3-a456-426614174000') AS id, toIPv6('::1') AS address, toFixedString('ab', 4) AS code,
  CAST('gold', 'Enum8(\\'gold\\' = 1)') AS tier, toFloat32(1.5) AS f32, 2.5 AS f64
"""


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ClickHouseServer]:
    with clickhouse_server() as server:
        yield server


@pytest.fixture
def server(shared_server: ClickHouseServer) -> Iterator[ClickHouseServer]:
    shared_server.requests.clear()
    yield shared_server
    shared_server.script = lambda request: False


# rows ---------------------------------------------------------------------------------------------------------------


def test_every_type_arrives_as_the_value_that_it_is(server: ClickHouseServer, tmp_path: Path, rows_of: RowsOf) -> None:
    rows = rows_of(extract(server.uri, VALUES, tmp_path / "out"))
    assert rows.to_pylist() == [
        {
            "u8": 1, "u64": 2**64 - 1, "i32": -5, "city": "上海", "nothing": None, "vip": True,
            "money": Decimal("12345678901234567890.1200"), "wide": "1.1", "huge": "7",
            "day": date(2026, 11, 22), "early": date(1950, 1, 2),
            "seen": datetime(2026, 11, 22, 2, tzinfo=UTC), "fine": datetime(2026, 11, 22, 15, 0, 0, 123456, tzinfo=UTC),
            "id": "123e4567-e89b-12d3-a456-426614174000", "address": "::1", "code": "ab", "tier": "gold",
            "f32": 1.5, "f64": 2.5,
        }
    ]  # fmt: skip
    types = {"u64": pa.uint64(), "i32": pa.int32(), "money": pa.decimal128(38, 4), "day": pa.date32()}
    types |= {"seen": pa.timestamp("ms", "UTC"), "fine": pa.timestamp("us", "UTC"), "f32": pa.float32()}
    assert {name: rows.schema.field(name).type for name in types} == types


def test_a_table_with_a_quote_in_its_name_is_read_and_only_the_named_columns(
    server: ClickHouseServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    rows = rows_of(extract(server.uri, TABLE, tmp_path / "out", columns=["name", "balance", "seen"]))
    assert rows.to_pydict() == {
        "name": ["王小明", None],
        "balance": [Decimal("12.50"), Decimal("-0.01")],
        "seen": [datetime(2026, 11, 22, 2, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)],
    }
    assert "id" not in server.queries("SELECT `name`")[0].query


def test_rows_keep_the_query_s_order_over_many_blocks(
    server: ClickHouseServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    query = "SELECT intDiv(number, 500) AS i, 1 AS unused FROM numbers(150000) ORDER BY i DESC; "
    rows = rows_of(extract(server.uri, query, tmp_path / "out", columns=["i"]))["i"].to_pylist()
    assert rows == [number for number in range(299, -1, -1) for _ in range(500)]


def test_no_rows_give_one_empty_file_with_the_schema(server: ClickHouseServer, tmp_path: Path) -> None:
    manifest = extract(server.uri, "SELECT 1 AS a, 'x' AS b WHERE false", tmp_path / "out")
    assert (manifest.rows, manifest.schema.names) == (0, ["a", "b"])


def test_bytes_of_an_older_server_are_text_and_told_when_they_are_none(
    server: ClickHouseServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    def older(request: Request) -> bool:
        if "ArrowStream" not in request.query:
            return False
        request.exchange.answer(
            arrow_stream(pa.record_batch({"a": pa.array(["上".encode(), b"x" if good else b"\xff"])}))
        )
        return True

    server.script = older
    good = True
    assert rows_of(extract(server.uri, "SELECT 'x' AS a", tmp_path / "out"))["a"].to_pylist() == ["上", "x"]
    good = False
    with pytest.raises(SourceColumnError, match="'a' holds bytes that are not UTF-8"):
        extract(server.uri, "SELECT 'x' AS a", tmp_path / "out")


@pytest.mark.parametrize("what", ["[1, 2]", "(1, 'a')", "map('a', 1)", "toIntervalDay(1)"])
def test_a_column_of_many_values_is_refused_by_its_name(what: str, server: ClickHouseServer, tmp_path: Path) -> None:
    with pytest.raises(SourceColumnError, match=r"the column 'many' \((Array|Tuple|Map|Interval)") as caught:
        extract(server.uri, f"SELECT 1 AS a, {what} AS many", tmp_path / "out")
    assert caught.value.columns == ("many",)


# the session --------------------------------------------------------------------------------------------------------


def test_the_session_may_only_read_and_ends_by_itself(server: ClickHouseServer, tmp_path: Path) -> None:
    extract(server.uri, "SELECT 1 AS a", tmp_path / "out", timeout_seconds=100)
    for request in (*server.queries("DESCRIBE"), *server.queries("SELECT `a`")):
        sent = request.parameters
        assert (sent["readonly"], sent["max_execution_time"], sent["database"]) == ("2", "160", "marts")
        assert sent["timeout_before_checking_execution_speed"] == "0"
        assert "session_id" not in sent, "a session of one query at a time could not kill its query"


def test_what_the_profile_fixes_is_not_sent(server: ClickHouseServer, tmp_path: Path) -> None:
    def fixed(request: Request) -> bool:
        if "SELECT name, value, readonly FROM system.settings" not in request.query:
            return False
        rows = [("readonly", "1", 1), ("max_execution_time", "7", 1)]
        rows += [("timeout_before_checking_execution_speed", "9", 0)]
        request.exchange.answer(native_settings(rows))
        return True

    server.script = fixed
    extract(server.uri, "SELECT 1 AS a", tmp_path / "out")
    sent = server.queries("SELECT `a`")[0].parameters
    assert "readonly" not in sent
    assert "max_execution_time" not in sent
    assert sent["timeout_before_checking_execution_speed"] == "0"


@pytest.mark.parametrize(
    ("limits", "sent"),
    [("0\t\\N", "160"), ("30\t\\N", "30"), ("0\t45.5", "45"), ("900\t1000", "160"), ("30\t20", "20")],
)
def test_a_lower_limit_of_the_profile_stays_and_its_maximum_is_kept(
    limits: str, sent: str, server: ClickHouseServer, tmp_path: Path
) -> None:
    def limited(request: Request) -> bool:
        if not request.query.startswith("SELECT value, max"):
            return False
        request.exchange.answer(f"{limits}\n".encode())
        return True

    server.script = limited
    extract(server.uri, "SELECT 1 AS a", tmp_path / "out", timeout_seconds=100)
    assert server.queries("SELECT `a`")[0].parameters["max_execution_time"] == sent


@pytest.mark.parametrize("begun", [True, False], ids=["rows came", "no row yet"])
def test_a_query_that_takes_too_long_is_killed_by_its_id(begun: bool, server: ClickHouseServer, tmp_path: Path) -> None:
    killed = threading.Event()

    def endless(request: Request) -> bool:
        if request.query.startswith("KILL QUERY"):
            assert server.queries("SELECT `a`")[-1].parameters["query_id"] in request.query
            killed.set()
            request.exchange.answer(b"")
            return True
        if "ArrowStream" not in request.query:
            return False
        if begun:
            request.exchange.begin()
            request.exchange.send(arrow_stream(pa.record_batch({"a": pa.array([1], pa.uint8())}))[:-8])
        assert killed.wait(30)
        words = "Code: 394. DB::Exception: Query was cancelled. (QUERY_WAS_CANCELLED)"
        if begun:
            request.exchange.send(words.encode())
            request.exchange.send(b"")
        else:
            request.refuse(words)
        return True

    server.script = endless
    with pytest.raises(WarehouseTimeoutError, match=r"did not end within 0.01 minutes"):
        extract(server.uri, "SELECT 1 AS a", tmp_path / "out", timeout_seconds=0.6)
    assert killed.is_set()
    assert list(tmp_path.iterdir()) == []


# faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "Syntax error"),
        ("SELECT nope AS a", "Unknown expression identifier `nope`"),
        ("SELECT * FROM nope", "Unknown table"),
        ("INSERT INTO marts.x VALUES (1)", "Syntax error"),
        ("SELECT 1 AS a, 'x' AS a", "Multiple expressions"),
        ("SELECT toUInt8(concat('planted', toString(number))) AS a FROM numbers(1)", r"Cannot parse string \(code 6\)"),
        ("SELECT throwIf(number = 1, 'planted') AS a FROM numbers(2)", r"an error that may quote a row \(code 395\)"),
    ],
)
def test_a_refused_query_is_told_with_the_server_s_words_but_no_value(
    query: str, said: str, server: ClickHouseServer, tmp_path: Path
) -> None:
    with pytest.raises(WarehouseQueryError, match=f"refused the query: {said}.*Correct the query") as caught:
        extract(server.uri, query, tmp_path / "out")
    assert "planted" not in str(caught.value)
    assert "Code:" not in str(caught.value)


def test_a_right_that_is_missing_is_named_with_the_remedy(server: ClickHouseServer, tmp_path: Path) -> None:
    refuse_all(server, "Code: 497. DB::Exception: reader: Not enough privileges. To execute this query, it's necessary "
               "to have the grant SELECT(id) ON marts.profiles. (ACCESS_DENIED)")  # fmt: skip
    with pytest.raises(WarehouseQueryError, match=r"SELECT\(id\) ON marts.profiles. Grant the user select"):
        extract(server.uri, "SELECT 1 AS a", tmp_path / "out")


def test_the_server_s_own_limit_is_a_time_out(server: ClickHouseServer, tmp_path: Path) -> None:
    refuse_all(server, "Code: 159. DB::Exception: Timeout exceeded: elapsed 5.1 seconds. (TIMEOUT_EXCEEDED)")
    with pytest.raises(WarehouseTimeoutError, match=r"the server's own limit \(max_execution_time\)"):
        extract(server.uri, "SELECT 1 AS a", tmp_path / "out")


PASSWORD = "planted p@ss/word?&=%上"


def test_a_wrong_password_is_told_at_once_and_never_shown(
    server: ClickHouseServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = server.uri.replace("secret", quote(PASSWORD, safe=""))
    with caplog.at_level(0), pytest.raises(WarehouseUnreachableError, match="reader: Authentication failed") as caught:
        extract(uri, "SELECT 1 AS a", tmp_path / "out")
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "planted" not in told
    assert "secret" not in told
    assert len(server.requests) == 1, "a wrong password locks accounts when it is tried again"


def test_a_password_of_any_characters_is_sent_as_it_is(server: ClickHouseServer, tmp_path: Path) -> None:
    server.password, kept = PASSWORD, server.password
    try:
        uri = server.uri.replace(PASSWORD, quote(PASSWORD, safe=""))
        assert extract(uri, "SELECT 1 AS a", tmp_path / "out").rows == 1
    finally:
        server.password = kept


def test_a_server_that_is_not_there_is_tried_again_and_told(tmp_path: Path) -> None:
    with pytest.raises(WarehouseUnreachableError, match=r"127.0.0.1:1/marts cannot be reached: Connection refused"):
        extract("clickhouse://reader:planted@127.0.0.1:1/marts?secure=false", "SELECT 1 AS a", tmp_path / "out")


@pytest.mark.parametrize("how", ["hangs up", "ends the answer in good form", "appends an error"])
def test_an_answer_that_stops_between_two_batches_is_no_result(
    how: str, server: ClickHouseServer, tmp_path: Path
) -> None:
    def broken(request: Request) -> bool:
        if "ArrowStream" not in request.query:
            return False
        request.exchange.begin()
        request.exchange.send(arrow_stream(*[pa.record_batch({"a": pa.array([1], pa.uint8())})] * 3)[:-8])
        if how == "appends an error":
            request.exchange.send(b"__exception__\r\nabc\r\nCode: 241. DB::Exception: Memory limit exceeded: would use "
                         b"9 GiB. (MEMORY_LIMIT_EXCEEDED)\r\n30 abc\r\n__exception__\r\n")  # fmt: skip
        if how == "hangs up":
            request.exchange.hang_up()
        else:
            request.exchange.send(b"")
        return True

    server.script = broken
    said = r"Memory limit exceeded \(code 241\)" if how == "appends an error" else "broke off before the last row"
    with pytest.raises(WarehouseError, match=said):
        extract(server.uri, "SELECT 1 AS a", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("clickhouse://reader:planted@host/a/b", "must look like clickhouse://"),
        ("clickhouse://reader:planted@one,two/marts", "must look like clickhouse://"),
        ("clickhouse://reader:planted@/marts", "must look like clickhouse://"),
        ("clickhouse://reader:planted@host/marts?sslmode=x", "parameter 'sslmode'. Known: secure, verify"),
        ("clickhouse://reader:planted@host/marts?secure=maybe", "secure is true or false"),
        ("clickhouse://reader:planted@host/marts?connect_timeout=soon", "connect_timeout is a number of seconds"),
    ],
)
def test_an_unfit_address_is_told_before_anything_is_sent(uri: str, said: str) -> None:
    with pytest.raises(WarehouseSettingsError, match=said) as caught:
        ClickHouse(uri, timeout_seconds=60)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("clickhouse://u:p@host/marts", ("https", 8443, "u", True)),
        ("clickhouse://host:8123/marts", ("http", 8123, "default", True)),
        ("clickhouse://host/?secure=false", ("http", 8123, "default", True)),
        ("clickhouse://u@[::1]:9443/marts?verify=false&ca_cert=/etc/ca.pem", ("https", 9443, "u", False)),
    ],
)
def test_an_address_is_encrypted_unless_it_says_otherwise(
    uri: str, expected: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import clickhouse_connect

    seen: dict[str, object] = {}

    def connect(**arguments: object) -> None:
        seen.update(arguments)
        raise clickhouse_connect.driver.exceptions.OperationalError("Connection refused")

    monkeypatch.setattr(clickhouse_connect, "get_client", connect)
    with pytest.raises(WarehouseUnreachableError):
        ClickHouse(uri, timeout_seconds=60)
    assert tuple(seen[name] for name in ("interface", "port", "username", "verify")) == expected


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clickhouse_connect", None)
    with pytest.raises(WarehouseSettingsError, match=r"pip install '\.\[clickhouse\]'"):
        ClickHouse("clickhouse://host/marts", timeout_seconds=60)


def refuse_all(server: ClickHouseServer, words: str) -> None:
    def refuse(request: Request) -> bool:
        if request.query.startswith("DESCRIBE"):
            request.refuse(words)
        return request.query.startswith("DESCRIBE")

    server.script = refuse


def arrow_stream(*batches: pa.RecordBatch) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def native_settings(rows: list[tuple[str, str, int]]) -> bytes:
    """name, value and readonly as one block of ClickHouse's Native format; every length is below 128."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    columns = [("name", "String"), ("value", "String"), ("readonly", "UInt8")]
    block = bytes([len(columns), len(rows)])
    for index, (name, kind) in enumerate(columns):
        block += text(name) + text(kind)
        block += b"".join(bytes([row[2]]) if kind == "UInt8" else text(str(row[index])) for row in rows)
    return block
