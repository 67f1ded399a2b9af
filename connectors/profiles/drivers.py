"""Which warehouse an address means: one table from URI scheme to driver, and what a driver must do.

A new warehouse is one module with a class of this shape and one row here; reading and writing rows are not done here.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from connectors.profiles.duckdb_files import DuckDBFile
from connectors.profiles.errors import WarehouseSettingsError, without_secrets
from connectors.profiles.postgresql import PostgreSQL
from connectors.profiles.sql_text import TableName


class Warehouse(Protocol):
    """An open connection. Used by one thread at a time, but for `cancel`; raises WarehouseError kinds alone."""

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
    """What a warehouse that runs inside this process needs: where relative paths start, and what it may use."""

    base: Path
    spill_folder: Path
    memory_limit: str


def _open_postgresql(uri: str, _settings: OpenSettings) -> Warehouse:
    return PostgreSQL(uri)


def _open_duckdb(uri: str, settings: OpenSettings) -> Warehouse:
    return DuckDBFile(uri, base=settings.base, spill_folder=settings.spill_folder, memory_limit=settings.memory_limit)


DRIVERS: Mapping[str, Callable[[str, OpenSettings], Warehouse]] = {
    "postgresql": _open_postgresql,
    "postgres": _open_postgresql,
    "duckdb": _open_duckdb,
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
