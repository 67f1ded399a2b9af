"""MySQL's protocol against a real MariaDB: one state of the data, interrupts, and every way it can fail."""

import logging
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest

from connectors.profiles.errors import (
    ProfilesError,
    SourceColumnError,
    WarehouseError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseTimeoutError,
    WarehouseUnreachableError,
)
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.mysql import MySQL, address_of
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.warehouse import extract
from tests.mariadb_server import MariaDBServer, mariadb_server

RowsOf = Callable[[Manifest], pa.Table]
PASSWORD = "planted p@ss/word?&=%上"
ENDLESS = "SELECT seq AS a, repeat('x', 500) AS pad FROM seq_1_to_100000000"
SLEEPING = "SELECT sleep(60) AS a"
ROWS = "SELECT seq AS i, repeat('x', 300) AS pad FROM seq_1_to_{rows}"


# rows ---------------------------------------------------------------------------------------------------------------


def test_rows_keep_the_query_s_order_also_when_columns_are_left_out(
    mariadb: MariaDBServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    query = "SELECT seq AS i, repeat('x', 30) AS pad, 1 AS unused FROM seq_1_to_50000 ORDER BY (seq * 7919) % 50001"
    expected = sorted(range(1, 50_001), key=lambda number: number * 7919 % 50_001)
    for columns, limit in ((["i", "pad"], ""), (["i"], " LIMIT 50000"), (None, " -- all of them"), (["pad", "i"], ";")):
        manifest = extract(mariadb.uri, query + limit, tmp_path / "out", columns=columns)
        assert rows_of(manifest)["i"].to_pylist() == expected


def test_no_rows_give_one_empty_file_with_the_schema(mariadb: MariaDBServer, tmp_path: Path) -> None:
    manifest = extract(mariadb.uri, "SELECT 1 AS a, 'x' AS b FROM dual WHERE false", tmp_path / "out")
    assert (manifest.rows, manifest.schema.names) == (0, ["a", "b"])


def test_a_row_of_16_mib_is_refused(mariadb: MariaDBServer, tmp_path: Path) -> None:
    mariadb.run("SET GLOBAL max_allowed_packet = 64 * 1024 * 1024")
    with pytest.raises(WarehouseQueryError, match="a row has 16 MiB or more"):
        extract(mariadb.uri, "SELECT repeat('x', 17 * 1024 * 1024) AS a", tmp_path / "out")


def test_only_the_named_columns_are_selected(mariadb: MariaDBServer, tmp_path: Path) -> None:
    query = "SELECT seq AS a, (SELECT 1 UNION SELECT seq) AS `no ``way` FROM seq_2_to_3"
    assert extract(mariadb.uri, query, tmp_path / "out", columns=["a"]).schema.names == ["a"]
    with pytest.raises(WarehouseQueryError, match="Subquery returns more than"):
        extract(mariadb.uri, query, tmp_path / "out", columns=["no `way"])


def test_the_query_may_not_write(mariadb: MariaDBServer, tmp_path: Path) -> None:
    mariadb.run("CREATE TABLE untouched (id int) ENGINE=InnoDB", "INSERT INTO untouched VALUES (1)")
    mariadb.run("CREATE FUNCTION sneaky() RETURNS int BEGIN DELETE FROM untouched; RETURN 1; END")
    with pytest.raises(WarehouseQueryError, match="READ ONLY transaction"):
        extract(mariadb.uri, "SELECT sneaky() AS id", tmp_path / "out")
    with pytest.raises(WarehouseQueryError, match="syntax"):
        extract(mariadb.uri, "DELETE FROM untouched", tmp_path / "out")
    assert mariadb.run("SELECT count(*) FROM untouched") == [(1,)]


def test_an_extraction_sees_one_state_however_long_it_reads(
    mariadb: MariaDBServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    mariadb.run("CREATE TABLE moving (id int PRIMARY KEY, state int, pad varchar(600))")
    mariadb.run("INSERT INTO moving SELECT seq, 1, repeat('x', 500) FROM seq_1_to_40000")
    mariadb.run("CREATE TABLE marker (state int)", "INSERT INTO marker VALUES (1)")
    mariadb.run("CREATE FUNCTION marked() RETURNS int READS SQL DATA RETURN (SELECT state FROM marker)")
    heard: list[int] = []

    def change(rows: int) -> None:
        if not heard:
            mariadb.run("UPDATE moving SET state = 2", "DELETE FROM moving WHERE id > 30000")
            mariadb.run("UPDATE marker SET state = 2")
        heard.append(rows)

    query = "SELECT id, state, marked() AS inner_state, pad FROM moving"
    manifest = extract(mariadb.uri, query, tmp_path / "out", rows_per_file=2_000, on_rows=change)
    assert len(heard) > 1, "the change came while rows were still read"
    rows = rows_of(manifest)
    assert (manifest.rows, set(rows["state"].to_pylist())) == (40_000, {1})
    assert set(rows["inner_state"].to_pylist()) == {1}
    assert mariadb.run("SELECT count(*), min(state) FROM moving") == [(30_000, 2)]


def test_what_is_written_after_the_connection_was_made_is_not_read(mariadb: MariaDBServer) -> None:
    mariadb.run("CREATE TABLE growing (i int)", "INSERT INTO growing VALUES (1)")
    with closing(MySQL(mariadb.uri, timeout_seconds=60)) as warehouse:
        query = warehouse.all_of(TableName(("growing",)))
        mariadb.run("INSERT INTO growing VALUES (2)")
        narrow = warehouse.select(query, list(warehouse.describe(query)))
        assert [batch.to_pylist() for batch in warehouse.read(narrow)] == [[{"i": 1}]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_result(mariadb: MariaDBServer, tmp_path: Path) -> None:
    ended = run_script(
        """
        def peak_mib():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        extract(uri, query.format(rows=1000), destination)
        before = peak_mib()
        extract(uri, query.format(rows=1500000), destination)
        print(peak_mib() - before)
        """,
        uri=mariadb.uri,
        query=ROWS,
        destination=tmp_path / "out",
    )
    assert float(ended.stdout) < 150, "MiB, of a result of 450 MiB"


# interrupts and time-outs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [SLEEPING, ENDLESS])
def test_an_interrupt_ends_a_running_query_at_once_and_leaves_nothing(
    query: str, mariadb: MariaDBServer, tmp_path: Path
) -> None:
    ended = run_script(
        """
        import os, signal, threading, time
        before = time.monotonic()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            extract(uri, query, destination)
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - before < 8)
        """,
        uri=mariadb.uri,
        query=query,
        destination=tmp_path / "out",
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "interrupted True"), ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []
    assert eventually(lambda: running(mariadb) == 0)


@pytest.mark.parametrize("query", [SLEEPING, ENDLESS])
def test_a_query_that_takes_too_long_is_cancelled_with_a_message_of_its_own(
    query: str, mariadb: MariaDBServer, tmp_path: Path
) -> None:
    with pytest.raises(WarehouseTimeoutError, match=r"did not end within 0\.01.* minutes .*`timeout_minutes`"):
        extract(mariadb.uri, query, tmp_path / "out", timeout_seconds=1)
    assert list(tmp_path.iterdir()) == []
    assert eventually(lambda: running(mariadb) == 0)


def test_the_server_ends_a_query_by_itself_when_nobody_does(
    mariadb: MariaDBServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    query = "SELECT @@max_statement_time AS seconds, @@net_write_timeout AS write_seconds"
    rows = rows_of(extract(mariadb.uri, query, tmp_path / "out", timeout_seconds=100)).to_pylist()
    assert rows == [{"seconds": Decimal(160), "write_seconds": 600}]
    mariadb.run("SET GLOBAL max_statement_time = 0.5")
    try:
        with pytest.raises(WarehouseQueryError, match="max_statement_time exceeded"):
            extract(mariadb.uri, "SELECT sleep(0.1) AS a FROM seq_1_to_100", tmp_path / "out")
    finally:
        mariadb.run("SET GLOBAL max_statement_time = 0")


# what fails ---------------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_in_mid_extraction_is_an_error_and_no_result(tmp_path: Path) -> None:
    with mariadb_server() as server:
        with pytest.raises(WarehouseUnreachableError, match="broke off before the last row: "):
            extract(server.uri, ENDLESS, tmp_path / "out", on_rows=lambda _: server.kill())
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(WarehouseUnreachableError, match="cannot be reached: Can't connect"):
            extract(server.uri, "SELECT 1 AS a", tmp_path / "out")


def test_a_connection_that_an_administrator_ends_is_an_error_and_no_result(
    mariadb: MariaDBServer, tmp_path: Path
) -> None:
    def kill(_rows: int) -> None:
        mariadb.run(*(f"KILL {number}" for (number,) in mariadb.run(f"SELECT id {OURS}")))

    with pytest.raises(WarehouseUnreachableError, match="broke off before the last row: "):
        extract(mariadb.uri, ENDLESS, tmp_path / "out", on_rows=kill)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "error in your SQL syntax"),
        ("SELECT nope FROM (SELECT 1 AS a) AS t", "Unknown column 'nope'"),
        ("SELECT * FROM no_such_table", "no_such_table"),
        ("SELECT * FROM no_such_schema.t", "no_such_schema"),
        ("SELECT 1 AS a; SELECT 2 AS a", "syntax"),
        (" ;", "Write a SELECT"),
    ],
)
def test_what_the_server_refuses_is_said_in_its_words(
    query: str, said: str, mariadb: MariaDBServer, tmp_path: Path
) -> None:
    with pytest.raises(WarehouseQueryError, match=said):
        extract(mariadb.uri, query, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_column_that_was_dropped_and_one_that_stands_twice_are_named(mariadb: MariaDBServer, tmp_path: Path) -> None:
    mariadb.run("CREATE TABLE shrinking (user_id int, city text)", "ALTER TABLE shrinking DROP COLUMN city")
    with pytest.raises(SourceColumnError, match="no column 'city'") as caught:
        extract(mariadb.uri, TableName(("marts", "shrinking")), tmp_path / "out", columns=["user_id", "city"])
    assert caught.value.columns == ("city",)
    with pytest.raises(SourceColumnError, match="'a' more than once"):
        extract(mariadb.uri, "SELECT 1 AS a, 2 AS a, 3 AS b", tmp_path / "out", columns=["a", "b"])


@pytest.mark.parametrize(
    "query",
    [
        "SELECT cast(json_extract(value, '$.a') AS int) AS v, number * 9223372036854775807 AS w FROM (SELECT "
        "'O''Brien planted' AS value, 8613800000000 AS number) AS held",
        "SELECT (SELECT 'planted' UNION SELECT 'Brien') AS v",
        "SELECT shouting() AS v",
    ],
)
def test_a_row_at_fault_is_not_quoted(query: str, mariadb: MariaDBServer, tmp_path: Path) -> None:
    mariadb.run(
        "CREATE OR REPLACE FUNCTION shouting() RETURNS int "
        "BEGIN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'planted Brien'; RETURN 1; END"
    )
    with pytest.raises(WarehouseError) as caught:
        extract(mariadb.uri, query, tmp_path / "out")
    for planted in ("planted", "Brien", "861380"):
        assert planted not in str(caught.value)


@pytest.fixture
def guarded_uri(mariadb: MariaDBServer) -> Iterator[str]:
    """A user who must give the planted password and may read one table, as the README grants it."""
    mariadb.run(
        "CREATE TABLE IF NOT EXISTS readable AS SELECT 'u1' AS user_id",
        "CREATE TABLE IF NOT EXISTS secret AS SELECT 'planted' AS user_id",
        f"CREATE OR REPLACE USER guarded IDENTIFIED BY '{PASSWORD}'",
        "GRANT SELECT ON marts.readable TO guarded",
    )
    yield mariadb.uri.replace("root@", f"guarded:{quote(PASSWORD, safe='')}@")
    mariadb.run("DROP USER IF EXISTS guarded")


def test_a_read_only_user_suffices_and_may_read_no_more(guarded_uri: str, tmp_path: Path) -> None:
    assert extract(guarded_uri, TableName(("marts", "readable")), tmp_path / "out").rows == 1
    with pytest.raises(WarehouseQueryError, match=r"SELECT command denied.*Grant the user select"):
        extract(guarded_uri, "SELECT * FROM secret", tmp_path / "out")


def test_a_revoked_password_is_told_at_once_and_stands_in_no_text(
    guarded_uri: str, mariadb: MariaDBServer, tmp_path: Path, *, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    right = quote(PASSWORD, safe="")
    mariadb.run("ALTER USER guarded IDENTIFIED BY 'another'")
    cases: list[tuple[str, str, type[ProfilesError]]] = [
        (guarded_uri, "SELECT 1 AS a", WarehouseUnreachableError),
        (guarded_uri.replace("/marts", "/no_database"), "SELECT 1 AS a", WarehouseUnreachableError),
        (f"mysql://u:{right}@127.0.0.1:1/db", "SELECT 1 AS a", WarehouseUnreachableError),
        (f"mysql://u:{right}@no-such-host.invalid/db", "SELECT 1 AS a", WarehouseUnreachableError),
        (f"mysql://u:{right}@127.0.0.1/db?password={right}", "SELECT 1 AS a", WarehouseSettingsError),
        (f"mysql://u:{right}@127.0.0.1/db?ssl_mode=nonsense", "SELECT 1 AS a", WarehouseSettingsError),
        (f"mysql://u:{PASSWORD}@127.0.0.1:1/db", "SELECT 1 AS a", WarehouseSettingsError),
        (mariadb.uri, f"SELEC '{right}'", WarehouseQueryError),
    ]
    for uri, query, kind in cases[:-1]:
        with pytest.raises(kind) as caught:
            extract(uri, query, tmp_path / "out")
        text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert not [piece for piece in ("planted", "p@ss", "p%40ss") if piece in text]
    with pytest.raises(WarehouseUnreachableError, match="Access denied for user 'guarded'"):
        extract(guarded_uri, "SELECT 1 AS a", tmp_path / "out")
    output = caplog.text + "".join(capfd.readouterr())
    assert not [piece for piece in ("planted", "p@ss", "p%40ss") if piece in output]


# addresses ----------------------------------------------------------------------------------------------------------


def test_an_address_is_read_as_it_is_written() -> None:
    address = address_of("mysql://me:p%40ss%E4%B8%8A@db.example.com:3307/marts?ssl_mode=verify_identity&ssl_ca=/ca.pem")
    assert (address["host"], address["port"], address["user"], address["database"]) == (
        "db.example.com", 3307, "me", "marts",
    )  # fmt: skip
    assert address["password"] == "p@ss上".encode()
    assert (address["ssl_verify_identity"], address["ssl_ca"]) == (True, "/ca.pem")
    assert (address_of("mariadb://[::1]:3307/m")["host"], address_of("mariadb://[::1]:3307/m")["port"]) == ("::1", 3307)
    assert address_of("mysql:///marts?unix_socket=/run/my.sock")["unix_socket"] == "/run/my.sock"
    assert address_of("mysql://db")["database"] is None


@pytest.mark.parametrize(
    "uri",
    ["mysql://a,b/db", "mysql://db/m?nonsense=1", "mysql://db/m?connect_timeout=soon", "mysql://db/m?ssl_mode=on"],
)
def test_an_address_that_means_nothing_is_refused(uri: str) -> None:
    with pytest.raises(WarehouseSettingsError):
        address_of(uri)


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(WarehouseSettingsError, match=r"pip install '\.\[mysql\]'"):
        extract("mysql://db/marts", "SELECT 1 AS a", tmp_path / "out")


# help ---------------------------------------------------------------------------------------------------------------

OURS = "FROM information_schema.processlist WHERE info LIKE 'SELECT%' AND info NOT LIKE '%processlist%'"


def running(mariadb: MariaDBServer) -> int:
    with closing(mariadb.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) {OURS}")
        (number,) = cursor.fetchone()
        return int(number)


def run_script(body: str, *, uri: str, query: str, destination: Path) -> subprocess.CompletedProcess[str]:
    """Runs `body` in an interpreter of its own: signals must not hit the test process."""
    script = "\n".join(
        [
            "import sys",
            "from pathlib import Path",
            "from connectors.profiles.warehouses.warehouse import extract",
            "uri, query, destination = sys.argv[1], sys.argv[2], Path(sys.argv[3])",
            textwrap.dedent(body),
        ]
    )
    return subprocess.run(
        [sys.executable, "-c", script, uri, query, str(destination)],
        cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def eventually(happens: Callable[[], bool], *, seconds: float = 15.0) -> bool:
    """A server notices a closed connection in its own time."""
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
