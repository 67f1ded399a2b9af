"""Snowflake through the vendor's connector, against a double of its protocol (see snowflake_server.py)."""

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
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseTimeoutError,
    WarehouseUnreachableError,
)
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.snowflake import Snowflake
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.warehouse import extract
from tests.snowflake_server import Column, RefusalError, Rows, SnowflakeServer, snowflake_server

RowsOf = Callable[[Manifest], pa.Table]
PASSWORD = "planted p@ss/word?&=%上"


@pytest.fixture
def server() -> Iterator[SnowflakeServer]:
    with snowflake_server() as running:
        yield running


def numbers(
    name: str, *pieces: list[int | None], kind: pa.DataType | None = None, digits: int = 38, scale: int = 0
) -> Column:
    return Column(name, "fixed", tuple(pa.array(piece, kind or pa.int8()) for piece in pieces), digits, scale)


def moments(name: str, kind: str, seconds: list[int | None], *, zone: int | None = None) -> Column:
    """As the service encodes them with nine digits: seconds, billionths, and minutes of the zone beyond -24 hours."""
    fields = {"epoch": pa.int64(), "fraction": pa.int32()} | ({} if zone is None else {"timezone": pa.int32()})
    one = {"fraction": 123456789, "timezone": zone}
    rows = [None if each is None else {name: one.get(name, each) for name in fields} for each in seconds]
    return Column(name, kind, (pa.array(rows, pa.struct(list(fields.items()))),), 0, 9)


# rows ---------------------------------------------------------------------------------------------------------------


def test_every_type_arrives_as_the_value_that_it_is(server: SnowflakeServer, tmp_path: Path, rows_of: RowsOf) -> None:
    server.rows = lambda query: [
        numbers("WHOLE", [1, None]),
        numbers("HUGE", [10**37, -1], kind=pa.decimal128(38, 0)),
        numbers("SHORT", [-7, 7], digits=5),
        numbers("BALANCE", [1250, -1], kind=pa.int16(), digits=12, scale=2),
        numbers("RATE", [123456789012345678, None], kind=pa.int64(), digits=38, scale=20),
        Column("SCORE", "real", (pa.array([1.5, None]),)),
        Column("CITY", "text", (pa.array(["上海", None]),)),
        Column("VIP", "boolean", (pa.array([True, None]),)),
        Column("BORN", "date", (pa.array([date(1950, 1, 2), None]),)),
        moments("LOCAL", "timestamp_ntz", [1795312800, None]),
        moments("SEEN", "timestamp_ltz", [1795312800, None]),
        moments("PAID", "timestamp_tz", [1795312800, None], zone=1440 + 8 * 60),
        Column("MILLIS", "timestamp_ntz", (pa.array([1795312800123, None], pa.int64()),), 0, 3),
    ]
    rows = rows_of(extract(server.uri, "select everything", tmp_path / "out"))
    local, seen = (datetime(2026, 11, 22, 2, 0, 0, 123456, tzinfo=zone) for zone in (None, UTC))
    assert rows.to_pylist() == [
        {
            "WHOLE": Decimal(1), "HUGE": Decimal(10**37), "SHORT": -7, "BALANCE": Decimal("12.50"),
            "RATE": Decimal("0.00123456789012345678"), "SCORE": 1.5, "CITY": "上海", "VIP": True,
            "BORN": date(1950, 1, 2), "LOCAL": local, "SEEN": seen, "PAID": seen,
            "MILLIS": local.replace(microsecond=123000),
        },
        {**dict.fromkeys(rows.column_names), "HUGE": Decimal(-1), "SHORT": 7, "BALANCE": Decimal("-0.01")},
    ]  # fmt: skip
    types = {"WHOLE": pa.decimal128(38, 0), "SHORT": pa.int64(), "BALANCE": pa.decimal128(12, 2), "CITY": pa.string()}
    types |= {"LOCAL": pa.timestamp("us"), "SEEN": pa.timestamp("us", "UTC"), "PAID": pa.timestamp("us", "UTC")}
    assert {name: rows.schema.field(name).type for name in types} == types


def test_pieces_whose_integers_differ_in_width_are_one_type_in_their_order(
    server: SnowflakeServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    pieces = (pa.array([3, 1], pa.int8()), pa.array([70_000], pa.int32()), pa.array([2], pa.decimal128(38, 0)))
    server.rows = lambda query: [Column("I", "fixed", pieces, 38, 0)]
    rows = rows_of(extract(server.uri, "select i", tmp_path / "out"))
    assert rows["I"].to_pylist() == [3, 1, 70_000, 2]


def test_only_the_named_columns_are_asked_for_and_names_are_quoted(
    server: SnowflakeServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    server.rows = lambda query: [numbers('a "b', [1]), numbers("C", [2])]
    table = TableName(("MARTS", "my schema", 'user "profiles'))
    manifest = extract(server.uri, table, tmp_path / "out", columns=['a "b'])
    assert rows_of(manifest).to_pydict() == {'a "b': [1]}
    assert server.queries() == [
        'SELECT "a ""b" FROM (\nSELECT * FROM "MARTS"."my schema"."user ""profiles"\n) AS profiles'
    ]


def test_an_ordered_query_runs_as_it_stands_and_its_other_columns_are_left_out_here(
    server: SnowflakeServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    server.rows = lambda query: [numbers("A", [3], [1]), Column("MANY", "variant", (pa.array(["{}"]),) * 2)]
    rows = rows_of(extract(server.uri, "select a, many from t order by a desc;", tmp_path / "out", columns=["A"]))
    assert rows.to_pydict() == {"A": [3, 1]}
    assert server.queries() == ["select a, many from t order by a desc"]


def test_what_is_no_query_of_rows_is_never_run(server: SnowflakeServer, tmp_path: Path) -> None:
    def compile_only(query: str) -> Rows:
        if str(server.asked[-1]["sqlText"]).startswith("SELECT"):
            raise RefusalError(1003, "42000", "SQL compilation error: syntax error unexpected 'create'.")
        return [numbers("status", [1])]

    server.rows = compile_only
    with pytest.raises(WarehouseQueryError, match="unexpected 'create'"):
        extract(server.uri, "create table x as select 1 as a order by a", tmp_path / "out")
    assert server.queries() == []


def test_a_query_with_percent_signs_and_colons_is_sent_as_it_is(server: SnowflakeServer, tmp_path: Path) -> None:
    server.rows = lambda query: [numbers("A", [1])]
    extract(server.uri, "select a from t where n like '%s:x' -- 100 %", tmp_path / "out")
    assert "like '%s:x' -- 100 %\n)" in server.queries()[0]


def test_no_rows_give_one_empty_file_with_the_schema(server: SnowflakeServer, tmp_path: Path) -> None:
    server.rows = lambda query: [numbers("A", []), Column("B", "text", (pa.array([], pa.string()),))]
    manifest = extract(server.uri, "select a, b", tmp_path / "out")
    assert (manifest.rows, manifest.schema.names) == (0, ["A", "B"])


@pytest.mark.parametrize("kind", ["variant", "object", "array", "binary", "time", "geography"])
def test_a_column_of_many_values_is_refused_by_its_name(kind: str, server: SnowflakeServer, tmp_path: Path) -> None:
    server.rows = lambda query: [numbers("A", [1]), Column("MANY", kind, (pa.array(["{}"]),), bytes_of_one=8)]
    with pytest.raises(SourceColumnError, match=rf"the column 'MANY' \({kind.upper()}\)") as caught:
        extract(server.uri, "select a, many", tmp_path / "out")
    assert (caught.value.columns, server.queries()) == (("MANY",), [])


# the session --------------------------------------------------------------------------------------------------------


def test_the_session_ends_by_itself_tells_its_times_in_utc_and_reports_nothing_to_the_vendor(
    server: SnowflakeServer, tmp_path: Path
) -> None:
    server.rows = lambda query: [numbers("A", [1])]
    extract(server.uri, "select a", tmp_path / "out", timeout_seconds=100)
    login = server.logins[0]
    said = {name: str(value).lower() for name, value in login["SESSION_PARAMETERS"].items()}
    assert (said["STATEMENT_TIMEOUT_IN_SECONDS"], said["TIMEZONE"]) == ("160", "utc")
    assert said["CLIENT_TELEMETRY_ENABLED"] == "false"
    assert (login["ACCOUNT_NAME"].lower(), login["LOGIN_NAME"], login["PASSWORD"]) == ("account", "reader", "secret")
    assert (login["warehouse"], login["roleName"]) == ("SMALL", "READER")
    assert (login["databaseName"], login["schemaName"]) == ("MARTS", "PUBLIC")


def test_a_query_that_takes_too_long_is_cancelled_by_a_second_session(server: SnowflakeServer, tmp_path: Path) -> None:
    running = threading.Event()

    def slow(query: str) -> Rows:
        if server.asked[-1].get("describeOnly"):
            return [numbers("A", [1])]
        running.set()
        assert server.cancelled.wait(30)
        raise RefusalError(604, "57014", "SQL execution canceled")

    server.rows = slow
    with pytest.raises(WarehouseTimeoutError, match="did not end within"):
        extract(server.uri, "select a", tmp_path / "out", timeout_seconds=1.0)
    assert running.is_set()
    assert len(server.logins) == 2
    assert list(tmp_path.iterdir()) == []


# faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((1003, "42000", "SQL compilation error:\nsyntax error line 1 at position 0 unexpected 'selec'."),
         "SQL compilation error: syntax error line 1 at position 0 unexpected 'selec'. Correct the query"),
        ((904, "42000", "SQL compilation error: error line 1 at position 7\ninvalid identifier 'NOPE'"),
         "invalid identifier 'NOPE'. Correct"),
        ((2003, "42S02", "SQL compilation error:\nObject 'NOPE' does not exist or not authorized."), "Object 'NOPE'"),
        ((3001, "42501", "SQL access control error:\nInsufficient privileges to operate on table 'T'"),
         "on table 'T'. Grant the role usage on the warehouse"),
        ((606, "57P03", "No active warehouse selected in the current session."), "Name a warehouse in the address"),
        ((100038, "22018", "Numeric value 'planted' is not recognized"), r"Numeric value \(error 100038\)"),
    ],
)  # fmt: skip
def test_a_refused_query_is_told_with_the_server_s_words_but_no_value(
    refusal: tuple[int, str, str], said: str, server: SnowflakeServer, tmp_path: Path
) -> None:
    def refuse(query: str) -> Rows:
        raise RefusalError(*refusal)

    server.rows = refuse
    with pytest.raises(WarehouseQueryError, match=said) as caught:
        extract(server.uri, "select a", tmp_path / "out")
    assert "planted" not in str(caught.value)
    assert "request_id" not in str(caught.value)


def test_the_server_s_own_limit_is_a_time_out(server: SnowflakeServer, tmp_path: Path) -> None:
    def refuse(query: str) -> Rows:
        raise RefusalError(630, "57014", "Statement reached its statement or warehouse timeout of 5 second(s)")

    server.rows = refuse
    with pytest.raises(WarehouseTimeoutError, match=r"own limit \(STATEMENT_TIMEOUT_IN_SECONDS\)"):
        extract(server.uri, "select a", tmp_path / "out")


def test_a_wrong_password_is_told_at_once_and_never_shown(
    server: SnowflakeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.login = "Incorrect username or password was specified."
    uri = server.uri.replace("secret", quote(PASSWORD, safe=""))
    with caplog.at_level(0), pytest.raises(WarehouseUnreachableError, match="Incorrect username or password") as caught:
        extract(uri, "select a", tmp_path / "out")
    assert "planted" not in "".join(traceback.format_exception(caught.value)) + caplog.text
    assert [login["PASSWORD"] for login in server.logins] == [PASSWORD], "tried again, a wrong password locks the user"


def test_a_service_that_is_not_there_is_told_and_may_be_tried_again() -> None:
    uri = "snowflake://reader:planted@account:1/MARTS?host=127.0.0.1&protocol=http&connect_timeout=1"
    with pytest.raises(WarehouseUnreachableError, match=r"cannot be reached: (Connection|timed)") as caught:
        Snowflake(uri, timeout_seconds=60)
    assert caught.value.is_passing
    assert "planted" not in str(caught.value)


def test_a_piece_that_cannot_be_had_is_no_result(server: SnowflakeServer, tmp_path: Path) -> None:
    server.rows = lambda query: [numbers("A", [1], [2], [3])]
    server.broken_piece = 1
    with pytest.raises(WarehouseUnreachableError, match="broke off before the last row"):
        extract(server.uri, "select a", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_missing_in_a_piece_are_no_result(server: SnowflakeServer, tmp_path: Path) -> None:
    server.rows = lambda query: [numbers("A", [1], [2, 3], [4])]
    server.empty_piece = 1
    with pytest.raises(WarehouseUnreachableError, match="broke off before the last row: 2 of 4 rows came"):
        extract(server.uri, "select a", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_not_there_is_told_by_its_parameter() -> None:
    with pytest.raises(WarehouseSettingsError, match="private_key_file is no file that can be read") as caught:
        Snowflake("snowflake://reader@account/a?private_key_file=/no/planted.p8", timeout_seconds=60)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("snowflake://reader:planted@account/a/b/c", "must look like snowflake://"),
        ("snowflake://reader@account/a?tokn=planted", "parameter 'tokn'. Known: warehouse, role"),
        ("snowflake://reader@account/a?authenticator=externalbrowser", "a run without a person is one of snowflake,"),
    ],
)
def test_an_unfit_address_is_told_before_anything_is_sent(uri: str, said: str) -> None:
    with pytest.raises(WarehouseSettingsError, match=said) as caught:
        Snowflake(uri, timeout_seconds=60)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "authenticator"),
    [
        ("", "snowflake"),
        (f"private_key_file={__file__}&private_key_file_pwd=planted", "snowflake_jwt"),
        ("authenticator=PROGRAMMATIC_ACCESS_TOKEN&token=planted", "programmatic_access_token"),
        ("authenticator=workload_identity&workload_identity_provider=AWS", "workload_identity"),
    ],
)
def test_how_the_user_proves_who_it_is_and_secrets_are_masked(
    parameters: str, authenticator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import snowflake.connector

    seen: dict[str, object] = {}

    def connect(**arguments: object) -> None:
        seen.update(arguments)
        raise snowflake.connector.DatabaseError("Failed to login: JWT token is invalid, planted")

    monkeypatch.setattr(snowflake.connector, "connect", connect)
    with pytest.raises(WarehouseUnreachableError, match="JWT token is invalid") as caught:
        Snowflake(f"snowflake://reader@account?{parameters}", timeout_seconds=60)
    given = dict(pair.split("=") for pair in parameters.split("&") if pair)
    assert seen["authenticator"] == authenticator
    assert {name: seen[name] for name in given if name != "authenticator"} == {
        name: value for name, value in given.items() if name != "authenticator"
    }
    assert ("planted" in str(caught.value)) == (not any("planted" in value for value in given.values()))


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snowflake.connector", None)
    with pytest.raises(WarehouseSettingsError, match=r"pip install '\.\[snowflake\]'"):
        Snowflake("snowflake://account", timeout_seconds=60)
