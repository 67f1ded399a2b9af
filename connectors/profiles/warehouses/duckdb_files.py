"""DuckDB files as a warehouse: opened read-only by DuckDB itself, which needs no driver beside it.

What is DuckDB's alone stands here: its address, its limits, its errors. Writing files is not.
"""

from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa

from connectors.profiles.errors import (
    WarehouseError,
    WarehouseQueryError,
    WarehouseUnreachableError,
    before_values,
)
from connectors.profiles.warehouses.database_files import path_of
from connectors.profiles.warehouses.sql_text import TableName, all_of, narrowed, quoted

_ROWS_PER_BATCH = 2_048  # one of DuckDB's vectors: it bounds batches by rows alone, and rows may be wide
_NAMES_NOT_VALUES = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.SyntaxException)


class DuckDBFile:
    """One read-only connection. Raises WarehouseError kinds alone."""

    def __init__(self, uri: str, *, base: Path, spill_folder: Path, memory_limit: str) -> None:
        self._path = path_of(uri, base)
        if not self._path.is_file():
            raise WarehouseUnreachableError(
                f"{self._path}: no DuckDB file stands there. Correct the warehouse's address."
            )
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "temp_directory": str(spill_folder),
        }
        try:
            self._connection = duckdb.connect(str(self._path), read_only=True, config=config)
        except duckdb.Error as error:
            raise WarehouseUnreachableError(
                f"{self._path} cannot be opened: {_first_line(error)}. Check that it is a DuckDB file, that no other "
                "program has it open for writing, and that this user may read it."
            ) from None

    def all_of(self, table: TableName) -> str:
        """The query for the whole table."""
        return all_of(table)

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result; the query is bound and not run."""
        try:
            statements = duckdb.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise WarehouseQueryError(f"{self._path}: the query must be one SELECT. Correct the query.")
            relation = self._connection.sql(query)
            described = relation.limit(0).to_arrow_table().schema  # which renames columns of one name
            return pa.schema([field.with_name(name) for field, name in zip(described, relation.columns, strict=True)])
        except duckdb.Error as error:
            raise self._translated(error) from None

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """`query` narrowed to `fields`."""
        return narrowed(query, [quoted(field.name) for field in fields])

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `query`, as DuckDB makes them."""
        try:
            relation = self._connection.sql(query)
            with relation.to_arrow_reader(_ROWS_PER_BATCH) as reader:
                yield from reader
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise self._translated(error) from None

    def cancel(self) -> None:
        """Ends what is running, from any thread."""
        with suppress(duckdb.Error):
            self._connection.interrupt()

    def close(self) -> None:
        """Closes the file."""
        with suppress(duckdb.Error):
            self._connection.close()

    def _translated(self, error: Exception) -> WarehouseError:
        if isinstance(error, _NAMES_NOT_VALUES):
            message = str(error).strip()
        else:  # the message may quote a row's value
            message = before_values(_first_line(error).partition("Error: ")[2])
        return WarehouseQueryError(f"{self._path} refused the query: {message.rstrip('.')}. Correct the query.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
