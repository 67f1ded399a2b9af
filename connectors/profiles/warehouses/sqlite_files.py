"""SQLite files as a warehouse: opened read-only by Python's own module, which needs no driver beside it.

SQLite keeps a type with each value and only a wish with each column; the wish (`decimal(12, 2)`, `date`, `boolean`)
decides here, and a value that does not follow it is an error. Writing files is not done here.
"""

import re
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from connectors.profiles.arrow_types import ColumnFault, column_error
from connectors.profiles.errors import (
    SourceColumnError,
    WarehouseError,
    WarehouseQueryError,
    WarehouseUnreachableError,
    before_values,
)
from connectors.profiles.warehouses.database_files import path_of
from connectors.profiles.warehouses.sql_text import TableName, all_of, narrowed, quoted
from connectors.profiles.warehouses.sqlite_types import declared_type, type_of_values, values_of

_BATCH_BYTES = 4 * 1024 * 1024
_MOST_ROWS = 8_192
_FIRST_ROWS = 256  # until it is known how wide rows are
_ROWS_LOOKED_AT = 1_000  # where the query names no type
_VIEW = "attribute_sync_query"
_NOT_TEXT = re.compile(r"Could not decode to UTF-8 column '(.*?)' with text", re.DOTALL)
_NAMES_NOT_VALUES = (
    "no such",
    "near ",
    "ambiguous",
    "incomplete",
    "You can only execute",
    "unrecognized",
    "wrong number",
)
_REFUSED = (sqlite3.Error, sqlite3.Warning)  # two statements at once are a Warning before Python 3.12


class SQLiteFile:
    """One read-only connection in one transaction, which sees one state of the file."""

    def __init__(self, uri: str, *, base: Path) -> None:
        self._path = path_of(uri, base)
        self._schemas: dict[str, pa.Schema] = {}  # of narrowed queries, which need not be looked at again
        if not self._path.is_file():
            raise WarehouseUnreachableError(
                f"{self._path}: no SQLite file stands there. Correct the warehouse's address."
            )
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
            )
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            raise WarehouseUnreachableError(
                f"{self._path} cannot be opened: {error}. Check that it is a SQLite file that this user may read.",
                is_passing="locked" in str(error),
            ) from None

    def all_of(self, table: TableName) -> str:
        """The query for the whole table."""
        return all_of(table, "`")

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result, by the types that their tables declare.

        A column that is computed has none; its first rows tell, for which the query begins to run.
        """
        if query in self._schemas:
            return self._schemas[query]
        try:
            columns = self._declared(query)
            open_ones = [name for name, declared in columns if not declared]
            found = self._types_of_values(query, open_ones) if open_ones else {}
        except _REFUSED as error:
            raise self._translated(error) from None
        return pa.schema([(name, declared_type(declared) if declared else found[name]) for name, declared in columns])

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """`query` narrowed to `fields`."""
        narrow = narrowed(query, [quoted(field.name, "`") for field in fields])
        self._schemas[narrow] = pa.schema(fields)
        return narrow

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `query`, in batches of a few megabytes."""
        schema = self.describe(query)
        try:
            with closing(self._connection.execute(query)) as cursor:
                rows_wanted = _FIRST_ROWS
                while rows := cursor.fetchmany(rows_wanted):
                    columns = zip(*rows, strict=True)
                    arrays = [values_of(*pair, where=str(self._path)) for pair in zip(columns, schema, strict=True)]
                    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
                    rows_wanted = min(_MOST_ROWS, max(1, _BATCH_BYTES * len(rows) // max(1, batch.nbytes)))
                    yield batch
        except _REFUSED as error:
            raise self._translated(error) from None

    def cancel(self) -> None:
        """Ends what is running, from any thread."""
        with suppress(sqlite3.Error):
            self._connection.interrupt()

    def close(self) -> None:
        """Closes the file."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def _declared(self, query: str) -> list[tuple[str, str]]:
        """(name, declared type or "") of each column, which SQLite tells of a view alone."""
        self._connection.execute(f"CREATE TEMP VIEW {_VIEW} AS {query}")
        try:
            described = self._connection.execute(f"PRAGMA temp.table_info({_VIEW})").fetchall()
        finally:
            self._connection.execute(f"DROP VIEW temp.{_VIEW}")
        names = {row[1] for row in described}
        return [(_as_asked(row[1], names), row[2]) for row in described]

    def _types_of_values(self, query: str, names: Sequence[str]) -> Mapping[str, pa.DataType]:
        columns = [quoted(name, "`") for name in names]
        sample = narrowed(query, columns)
        rows = self._connection.execute(f"{sample} LIMIT {_ROWS_LOOKED_AT}").fetchall()
        return {name: type_of_values([row[place] for row in rows]) for place, name in enumerate(names)}

    def _translated(self, error: Exception) -> WarehouseError | SourceColumnError:
        message = str(error).strip()
        no_text = _NOT_TEXT.search(message)
        if no_text:
            return column_error(
                no_text[1], ColumnFault("holds bytes that are not UTF-8 text", "hex({0})"), where=str(self._path)
            )
        if isinstance(error, sqlite3.DatabaseError) and "malformed" in message:
            return WarehouseUnreachableError(f"{self._path} is damaged: {message}. Restore it, then run again.")
        if not message.startswith(_NAMES_NOT_VALUES):
            message = before_values(message)
        return WarehouseQueryError(f"{self._path} refused the query: {message.rstrip('.')}. Correct the query.")


def _as_asked(name: str, names: set[str]) -> str:
    """The second column of one name is called `name:1` in a view."""
    first, colon, number = name.rpartition(":")
    return first if colon and number.isdigit() and first in names else name
