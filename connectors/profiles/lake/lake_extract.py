"""Profiles from a Delta or Iceberg table: the rows of one version, streamed to Parquet files with bounded memory."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from connectors.profiles.arrow_types import target_schema, to_target
from connectors.profiles.extract_folder import folder_in_the_making
from connectors.profiles.extract_writer import ROWS_PER_FILE, write_parts
from connectors.profiles.lake.lake_table import LakeTable
from connectors.profiles.parquet import Manifest, read_manifest, require_columns


def extract_table(
    open_table: Callable[[], LakeTable],
    destination: Path,
    *,
    columns: Sequence[str],
    rows_per_file: int = ROWS_PER_FILE,
    on_rows: Callable[[int], object] | None = None,
) -> Manifest:
    """Writes the table's rows to `destination/part-00000.parquet`, ...; the manifest tells which version they are of.

    As with a warehouse, `destination` appears whole or not at all, and `on_rows` hears the number of rows so far.
    Raises SourceColumnError, SourceTableError, the errors of files and storages, and ExtractNotWrittenError.
    """
    destination = destination.absolute()
    with folder_in_the_making(destination) as folder:
        table = open_table()
        where = table.version.as_subject
        names = list(dict.fromkeys(columns))
        require_columns(table.schema, names, where=where)
        asked_for = pa.schema([table.schema.field(name).remove_metadata() for name in names])
        schema = target_schema(asked_for, where=where, is_query=False)
        with closing(_batches(table, schema, where=where)) as batches:
            write_parts(batches, schema, folder, rows_per_file=rows_per_file, on_rows=on_rows)
    return replace(read_manifest(str(destination), columns=None, base=destination), table=table.version)


def _batches(table: LakeTable, schema: pa.Schema, *, where: str) -> Generator[pa.RecordBatch, None, None]:
    with closing(table.read(schema.names)) as batches:
        for batch in batches:
            yield to_target(batch, schema, where=where, is_query=False)
