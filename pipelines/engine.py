"""Runs Ibis expressions on DuckDB: one database in a temporary folder, bounded memory, spilling beside it.

Expressions are written against unbound tables and compiled here, so that they know no engine. What the engine says
when it fails may quote a value: its words are not passed on, its kind is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.errors import DataFolderError, EngineError
from pipelines.store import whole_file

ROW_GROUP_ROWS = 100_000
ENGINE_VERSION = f"duckdb-{duckdb.__version__}"
ROW_NUMBER = "__row_number"
ROW_PLACE = "file_row_number"  # DuckDB's name for it


class Engine:
    """A DuckDB database that lives as long as the `with` block. `memory_limit` is DuckDB's: "1GB"."""

    def __init__(self, folder: Path, *, memory_limit: str) -> None:
        self._folder = folder
        with _engine_errors("opening its database"):
            self._connection = duckdb.connect(str(folder / "engine.duckdb"))
            self._connection.execute(f"SET memory_limit = {quoted(memory_limit)}")
            self._connection.execute(f"SET temp_directory = {quoted(str(folder / 'spill'))}")
            self._connection.execute("SET TimeZone = 'UTC'")
            self._connection.execute("SET enable_progress_bar = false")

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def define(self, name: str, sql: str) -> ir.Table:
        """A view, for what no expression can say: where files lie and how their rows are numbered."""
        return self._view(name, sql, doing=f"reading {name}")

    def parquet(self, name: str, file: Path) -> ir.Table:
        sql = f"SELECT * FROM read_parquet({quoted_file(str(file))}, hive_partitioning = false)"
        return self._view(name, sql, doing=f"reading {file}")

    def numbered_parquet(self, name: str, file: Path) -> ir.Table:
        """The file's rows with `ROW_NUMBER`, their position in it from 0."""
        sql = (
            f"SELECT * EXCLUDE (file_row_number), file_row_number AS {ROW_NUMBER} "
            f"FROM read_parquet({quoted_file(str(file))}, file_row_number = true, hive_partitioning = false)"
        )
        return self._view(name, sql, doing=f"reading {file}")

    def register(self, name: str, table: pa.Table) -> ir.Table:
        """A small Arrow table, or a column of numbers of any length."""
        self._connection.register(name, table)
        return self._table(name)

    def materialize(self, name: str, expression: ir.Table) -> ir.Table:
        """Computed once and kept until the engine closes; what memory does not hold is spilled."""
        with _engine_errors(f"computing {name}"):
            self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {identifier(name)} AS {compiled(expression)}")
            return self._table(name)

    def write_parquet(self, expression: ir.Table, path: Path, *, metadata: Mapping[str, str] | None = None) -> int:
        """Write the rows to `path`, whole or not at all; returns how many were written."""
        pairs = ", ".join(f"{identifier(key)}: {quoted(value)}" for key, value in (metadata or {}).items())
        options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS}"
        if pairs:
            options += f", KV_METADATA {{{pairs}}}"
        with whole_file(path) as beside, _engine_errors(f"writing {path}"):
            sql = f"COPY ({compiled(expression)}) TO {quoted(str(beside))} ({options})"
            written = self._connection.execute(sql).fetchall()
        return int(written[0][0])

    def rows(self, expression: ir.Table) -> list[dict[str, Any]]:
        """A small result as dictionaries."""
        with _engine_errors("counting"):
            table = self._connection.sql(compiled(expression)).to_arrow_table()
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def numbers(self, expression: ir.Table) -> npt.NDArray[np.int64]:
        """The one column of a result of any length, without a Python object per row."""
        with _engine_errors("counting"):
            table = self._connection.sql(compiled(expression)).to_arrow_table()
        return np.asarray(table.column(0), dtype=np.int64)

    def _view(self, name: str, sql: str, *, doing: str) -> ir.Table:
        with _engine_errors(doing):
            self._connection.execute(f"CREATE OR REPLACE VIEW {identifier(name)} AS {sql}")
            return self._table(name)

    def _table(self, name: str) -> ir.Table:
        arrow = self._connection.sql(f"SELECT * FROM {identifier(name)} LIMIT 0").to_arrow_table()
        return ibis.table(ibis.Schema.from_pyarrow(arrow.schema), name=name)


def compiled(expression: ir.Table) -> str:
    return str(ibis.to_sql(expression, dialect="duckdb"))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def file_list(files: Sequence[str]) -> str:
    return "[" + ", ".join(quoted_file(file) for file in files) + "]"


def quoted_file(file: str) -> str:
    """One file, though its name holds what the engine reads as a pattern: `a[1].parquet` would mean `a1.parquet`."""
    return quoted(re.sub(r"[*?[]", r"[\g<0>]", file))


_DISK_WORDS = ("No space left", "Could not write", "Disk quota exceeded", "Could not truncate", "failed to write")


@contextmanager
def _engine_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise EngineError(
            f"the engine ran out of memory while {doing}; raise ATTRIBUTE_SYNC_MEMORY (for example to 2GB) "
            "or free disk space for its temporary area, then run again"
        ) from None
    except duckdb.Error as error:
        # A full disk comes as an IOException, but in the middle of a transaction or a checkpoint as others, too.
        if any(words in str(error) for words in _DISK_WORDS):
            raise DataFolderError(
                f"No space left on the data folder's disk, or it fails, while {doing}; "
                "free space or point ATTRIBUTE_SYNC_DATA elsewhere, then run again"
            ) from None
        if isinstance(error, duckdb.IOException):
            raise EngineError(
                f"the engine could not read or write a file while {doing}; see that it is there, that its disk is "
                "whole, and that this user may use it"
            ) from None
        raise EngineError(f"the engine failed while {doing} ({type(error).__name__})") from None
