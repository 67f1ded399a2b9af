"""The source's rows as the engine sees them: the mapped columns, and for each row its file and its place in it.

A row is found again by these two numbers alone; both count from 0, files in the manifest's order.
"""

import ibis.expr.types as ir
import pyarrow as pa

from connectors.profiles.parquet import Manifest
from pipelines.engine import Engine, file_list, identifier
from pipelines.mapping import SyncMapping

FILE = "__file_number"
ROW = "__source_row"
FOLDER_PREFIX = "__folder_"  # keeps a folder's key apart from the names beside it


def numbered_profiles(engine: Engine, manifest: Manifest, mapping: SyncMapping) -> ir.Table:
    """The columns that the sync names, with the file's number and the row's number in it, both from 0."""
    above = manifest.folder_columns.column_names if manifest.folder_columns is not None else []
    columns = ", ".join(
        f"numbers.{identifier(FOLDER_PREFIX + column)} AS {identifier(column)}"
        if column in above
        else f"rows.{identifier(column)}"
        for column in mapping.columns()
    )
    engine.register("source_file_numbers", _numbers(manifest))
    files = file_list([file.path for file in manifest.files])
    return engine.define(
        "profiles",
        f"SELECT {columns}, numbers.number AS {FILE}, rows.file_row_number AS {ROW} "
        f"FROM read_parquet({files}, filename = '__file', file_row_number = true, "
        # A folder named city=7 must not take the place of the file's own column.
        "hive_partitioning = false) AS rows "
        f"JOIN source_file_numbers AS numbers ON numbers.source_file = rows.__file",
    )


def _numbers(manifest: Manifest) -> pa.Table:
    """`file_table`, with what the folders' names say of each file."""
    table = file_table(manifest)
    if manifest.folder_columns is not None:
        for name in manifest.folder_columns.column_names:
            table = table.append_column(FOLDER_PREFIX + name, manifest.folder_columns[name])
    return table


def file_table(manifest: Manifest) -> pa.Table:
    return pa.table(
        {
            "number": pa.array(range(len(manifest.files)), pa.int64()),
            "source_file": pa.array([file.path for file in manifest.files], pa.string()),
        }
    )
