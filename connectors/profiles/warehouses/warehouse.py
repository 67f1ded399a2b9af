"""Profiles from a warehouse: the result of a query, streamed to Parquet files with bounded memory.

Here stands what is asked of the warehouse. The connection is in connection.py, drivers are in drivers.py, the types of
columns in arrow_types.py, the writing of files in extract_writer.py, the folder that appears whole or not at all in
extract_folder.py.
"""

import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from connectors.profiles.arrow_types import target_schema, to_target
from connectors.profiles.errors import WarehouseQueryError, without_secrets
from connectors.profiles.extract_folder import folder_in_the_making
from connectors.profiles.extract_writer import ROWS_PER_FILE, write_parts
from connectors.profiles.parquet import Manifest, read_manifest, require_columns
from connectors.profiles.warehouses.connection import Connection
from connectors.profiles.warehouses.drivers import OpenSettings, Warehouse, open_warehouse
from connectors.profiles.warehouses.sql_text import TableName

TIMEOUT_SECONDS = 1_800.0  # what no nightly query should need; 10 million rows of PostgreSQL take one or two minutes


def extract(
    uri: str,
    query: str | TableName,
    destination: Path,
    *,
    columns: Sequence[str] | None = None,
    base: Path | None = None,
    memory_limit: str = "1GB",
    timeout_seconds: float = TIMEOUT_SECONDS,
    rows_per_file: int = ROWS_PER_FILE,
    on_rows: Callable[[int], object] | None = None,
) -> Manifest:
    """Writes the result of `query` to `destination/part-00000.parquet`, ... and returns their manifest.

    A TableName stands for the query of all its rows. The rows keep the query's order. `columns` None means all
    columns; else nothing but these crosses the network.
    `destination` appears whole or not at all: after any error or interrupt it is as it was. An earlier extract that
    stands there is replaced; only one run at a time may write to one destination. `memory_limit` bounds a warehouse
    that runs in this process (DuckDB); `base` is where its relative path starts. A file ends with the row group that
    fills `rows_per_file`. `timeout_seconds` bounds the query, from its start to its last row. `on_rows` hears the
    number of rows so far after each row group.

    Raises SourceColumnError (before a row is read, but for values that no Parquet type holds), WarehouseError kinds
    and ExtractNotWrittenError.
    """
    where = without_secrets(uri)
    destination = destination.absolute()
    with folder_in_the_making(destination) as folder:
        spill_folder = folder / "spill"
        settings = OpenSettings(
            base=base or Path.cwd(),
            spill_folder=spill_folder,
            memory_limit=memory_limit,
            timeout_seconds=timeout_seconds,
        )
        with Connection(
            lambda: open_warehouse(uri, settings), where=where, timeout_seconds=timeout_seconds
        ) as connection:
            plan = _plan(connection, query, columns=columns, where=where)
            with closing(_batches(connection, plan, where=where)) as batches:
                write_parts(batches, plan.schema, folder, rows_per_file=rows_per_file, on_rows=on_rows)
        shutil.rmtree(spill_folder, ignore_errors=True)
    return read_manifest(str(destination), columns=None, base=destination)


class _Plan(NamedTuple):
    query: str  # narrowed to the columns asked for
    schema: pa.Schema  # of the Parquet files


def _plan(connection: Connection, asked_for: str | TableName, *, columns: Sequence[str] | None, where: str) -> _Plan:
    query = connection.run(lambda warehouse: _query(asked_for, warehouse))
    if not query:
        raise WarehouseQueryError("The warehouse's query is empty. Write a SELECT.")
    described = connection.run(lambda warehouse: warehouse.describe(query))
    names = list(dict.fromkeys(described.names if columns is None else columns))
    asked = f"The query's result in {where}"
    if not names:
        raise WarehouseQueryError(f"{asked} has no columns. Correct the query.")
    require_columns(described, names, where=asked)
    narrowed = connection.run(lambda warehouse: warehouse.select(query, [described.field(name) for name in names]))
    arriving = connection.run(lambda warehouse: warehouse.describe(narrowed))
    return _Plan(query=narrowed, schema=target_schema(arriving, where=asked))


def _batches(connection: Connection, plan: _Plan, *, where: str) -> Generator[pa.RecordBatch, None, None]:
    rows = connection.run(lambda warehouse: warehouse.read(plan.query))
    try:
        while (batch := connection.run(lambda _: next(rows, None))) is not None:
            yield to_target(batch, plan.schema, where=f"The query's result in {where}")
    finally:
        if connection.at_rest:
            rows.close()


def _query(asked_for: str | TableName, warehouse: Warehouse) -> str:
    return warehouse.all_of(asked_for) if isinstance(asked_for, TableName) else _bare(asked_for)


def _bare(query: str) -> str:
    """The query without a closing semicolon, so that it can stand inside another one."""
    return query.strip().rstrip(";").rstrip()
