"""The source's rows as the engine sees them: the mapped columns, and for each row its file and its place in it.

A row is found again by these two numbers alone; both count from 0, files in the manifest's order.
"""

from collections.abc import Sequence

import ibis.expr.types as ir
import pyarrow as pa

from connectors.profiles.parquet import Manifest, SourceFile
from connectors.profiles.widening import layout_free
from pipelines.engine import Engine, file_list, identifier
from pipelines.mapping import SyncMapping

FILE = "__file_number"
ROW = "__source_row"
FOLDER_PREFIX = "__folder_"  # keeps a folder's key apart from the names beside it


def numbered_profiles(engine: Engine, manifest: Manifest, mapping: SyncMapping) -> ir.Table:
    """The columns that the sync names, with the file's number and the row's number in it, both from 0.

    Where files differ in their columns' types, all are read in the type that holds the values of both; a column that a
    file lacks is null there. What a folder's name says is the same in all rows of a file.
    """
    own = [column for column in mapping.columns() if column in manifest.own_columns]
    selected = ", ".join(
        f"rows.{identifier(column)}"
        if column in own
        else f"numbers.{identifier(FOLDER_PREFIX + column)} AS {identifier(column)}"
        for column in mapping.columns()
    )
    engine.register("source_file_numbers", _numbers(manifest))
    rows = " UNION ALL ".join(_rows_of(files, manifest.schema, own) for files in _alike(manifest, own))
    return engine.define(
        "profiles",
        f"SELECT {selected}, numbers.number AS {FILE}, rows.file_row_number AS {ROW} "
        f"FROM ({rows}) AS rows JOIN source_file_numbers AS numbers ON numbers.place = rows.__file",
    )


def _numbers(manifest: Manifest) -> pa.Table:
    """The files' numbers, the places where the engine reads them, and what the folders' names say of each."""
    table = pa.table(
        {
            "number": pa.array(range(len(manifest.files)), pa.int64()),
            "place": pa.array([file.local_path for file in manifest.files], pa.string()),
        }
    )
    if manifest.folder_columns is not None:
        for name in manifest.folder_columns.column_names:
            table = table.append_column(FOLDER_PREFIX + name, manifest.folder_columns[name])
    return table


def _alike(manifest: Manifest, columns: Sequence[str]) -> list[list[SourceFile]]:
    """The files in groups of equal columns and types; mostly one group.

    Not the engine's own union of files by name: it would round nanoseconds beside microseconds, or fail after 2262.
    """
    groups: dict[tuple[pa.DataType | None, ...], list[SourceFile]] = {}
    for file in manifest.files:
        types = {field.name: layout_free(field.type) for field in file.schema}
        groups.setdefault(tuple(types.get(column) for column in columns), []).append(file)
    return list(groups.values())


def _rows_of(files: Sequence[SourceFile], schema: pa.Schema, columns: Sequence[str]) -> str:
    """The rows of files that are alike, in types that a union with others turns into those of `schema`."""
    own = files[0].schema
    values = [
        _value(column, own.field(column).type, schema.field(column).type) if column in own.names else "NULL"
        for column in columns
    ]
    named = [f"{value} AS {identifier(column)}" for value, column in zip(values, columns, strict=True)]
    selected = ", ".join([*named, "__file", "file_row_number"])
    # A folder named city=7 must not take the place of the file's own column.
    return (
        f"SELECT {selected} FROM read_parquet({file_list([file.local_path for file in files])}, "
        "filename = '__file', file_row_number = true, hive_partitioning = false)"
    )


def _value(column: str, own: pa.DataType, wanted: pa.DataType) -> str:
    name = identifier(column)
    if pa.types.is_timestamp(own) and own.unit == "ns" and wanted.unit != "ns":
        make = "make_timestamp" if own.tz is None else "make_timestamptz"
        return f"{make}((epoch_ns({name}) - (epoch_ns({name}) % 1000 + 1000) % 1000) // 1000)"  # a cast would round
    return name


def file_table(manifest: Manifest) -> pa.Table:
    """The files' numbers and names: for people the originals' names, wherever the rows are read."""
    return pa.table(
        {
            "number": pa.array(range(len(manifest.files)), pa.int64()),
            "source_file": pa.array([file.path for file in manifest.files], pa.string()),
        }
    )
