"""Fixtures for warehouses: statements run by hand, and folders that can be searched for what was left behind."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import adbc_driver_postgresql.dbapi as postgresql
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses import connection

RunSql = Callable[..., list[tuple[object, ...]]]


@pytest.fixture(autouse=True)
def no_pauses_before_connecting_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting is tried as often as ever, without waiting in between."""
    monkeypatch.setattr(connection, "CONNECT_PAUSES_SECONDS", (0.0,) * len(connection.CONNECT_PAUSES_SECONDS))


@pytest.fixture
def postgres_sql(postgres_uri: str) -> RunSql:
    """Runs statements one by one on the test server; answers the rows of the last one."""

    def run(*statements: str, uri: str = postgres_uri) -> list[tuple[object, ...]]:
        with postgresql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
def duckdb_uri(tmp_path: Path) -> Callable[..., str]:
    """Makes a DuckDB file with the statements and answers its address."""

    def make(*statements: str) -> str:
        path = tmp_path / "warehouse" / "profiles.duckdb"
        path.parent.mkdir()
        with duckdb.connect(str(path)) as connection:
            for statement in statements:
                connection.execute(statement)
        return f"duckdb://{path}"

    return make


@pytest.fixture
def sqlite_uri(tmp_path: Path) -> Callable[..., str]:
    """Makes a SQLite file with the statements and answers its address."""

    def make(*statements: str) -> str:
        path = tmp_path / "warehouse" / "profiles.sqlite"
        path.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        return f"sqlite://{path}"

    return make


@pytest.fixture
def rows_of() -> Callable[[Manifest], pa.Table]:
    """All rows of a manifest, in its order."""

    def read(manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
        return pa.concat_tables([pq.read_table(file.path, columns=columns) for file in manifest.files])

    return read
