"""Which warehouse an address means: one table from URI scheme to driver, and what a driver must do.

A new warehouse is one module with a class of this shape and one row here; reading and writing rows are not done here.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from connectors.profiles.errors import WarehouseSettingsError, without_secrets
from connectors.profiles.warehouses.bigquery import BigQuery
from connectors.profiles.warehouses.clickhouse import ClickHouse
from connectors.profiles.warehouses.databricks import Databricks
from connectors.profiles.warehouses.duckdb_files import DuckDBFile
from connectors.profiles.warehouses.mysql import MySQL
from connectors.profiles.warehouses.postgresql import PostgreSQL
from connectors.profiles.warehouses.snowflake import Snowflake
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.sqlite_files import SQLiteFile
from connectors.profiles.warehouses.trino import Trino


class Warehouse(Protocol):
    """An open connection. Used by one thread at a time, but for `cancel`.

    Raises WarehouseError kinds, and SourceColumnError for what one column holds.
    """

    def all_of(self, table: TableName) -> str:
        """The query for the whole table, its name quoted as this warehouse wants it."""

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result, without running it."""

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """The query narrowed to `fields` (out of `describe`), each under its name, cast where the driver needs it."""

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of the query in its own order, in batches of bounded size."""

    def cancel(self) -> None:
        """Ends a running `describe` or `read`; callable from any thread, never raises."""

    def close(self) -> None:
        """Gives the connection back; never raises."""


@dataclass(frozen=True, slots=True)
class OpenSettings:
    """What a warehouse may use. All but the time is for those that run inside this process: where paths start, ..."""

    base: Path
    spill_folder: Path
    memory_limit: str
    timeout_seconds: float  # for servers, as a backstop: the connection counts the time by itself


class _Server(Protocol):
    def __call__(self, uri: str, *, timeout_seconds: float) -> Warehouse: ...


def _server(kind: _Server) -> Callable[[str, OpenSettings], Warehouse]:
    """Of what runs elsewhere nothing but the time counts."""
    return lambda uri, settings: kind(uri, timeout_seconds=settings.timeout_seconds)


def _open_duckdb(uri: str, settings: OpenSettings) -> Warehouse:
    return DuckDBFile(uri, base=settings.base, spill_folder=settings.spill_folder, memory_limit=settings.memory_limit)


def _open_sqlite(uri: str, settings: OpenSettings) -> Warehouse:
    return SQLiteFile(uri, base=settings.base)


DRIVERS: Mapping[str, Callable[[str, OpenSettings], Warehouse]] = {
    "postgresql": _server(PostgreSQL),
    "postgres": _server(PostgreSQL),
    "mysql": _server(MySQL),
    "mariadb": _server(MySQL),
    "clickhouse": _server(ClickHouse),
    "snowflake": _server(Snowflake),
    "bigquery": _server(BigQuery),
    "trino": _server(Trino),
    "databricks": _server(Databricks),
    "duckdb": _open_duckdb,
    "sqlite": _open_sqlite,
}


def open_warehouse(uri: str, settings: OpenSettings) -> Warehouse:
    """Connects. Raises WarehouseSettingsError (scheme, address, driver) or WarehouseUnreachableError."""
    scheme = uri.partition(":")[0].lower()
    opener = DRIVERS.get(scheme)
    if opener is None:
        known = ", ".join(f"{name}:" for name in DRIVERS)
        raise WarehouseSettingsError(
            f"The warehouse's address {without_secrets(uri)} begins with no known scheme. Known: {known}"
        )
    return opener(uri, settings)
