"""A sync's source -> a manifest of Parquet files whose columns fit the mapping; nothing of it knows Dagster."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.errors import (
    SourceColumnError,
    SourceNotFoundError,
    SourcePartitionError,
    SourceTableError,
    SourceUnreadableError,
    WarehouseQueryError,
)
from connectors.profiles.lake.delta import DeltaTable
from connectors.profiles.lake.iceberg import IcebergTable
from connectors.profiles.lake.lake_extract import extract_table
from connectors.profiles.lake.lake_table import LakeTable
from connectors.profiles.parquet import Manifest
from connectors.profiles.partitions import Wanted, read_partitions
from connectors.profiles.storage.filesystems import StorageOptions
from connectors.profiles.storage.object_storage import ObjectStorage
from connectors.profiles.storage.staging import stage
from connectors.profiles.warehouses.warehouse import extract
from pipelines.engine import ROW_PLACE
from pipelines.errors import ConfigurationError
from pipelines.mapping import SyncMapping
from pipelines.preflight import check_files, check_source, missing_columns
from pipelines.source_options import SourceKind
from pipelines.yaml_lines import locate


def extract_profiles(
    mapping: SyncMapping,
    *,
    base: Path,
    destination: Path,
    yaml_file: Path,
    memory_limit: str,
    on_rows: Callable[[int], None],
    partition: str | None = None,
) -> Manifest:
    """Parquet on a local disk is used where it lies; of object storage the columns are copied to `destination`, and a
    warehouse's answer or a table's rows are streamed there.

    `base` is where relative paths start. `on_rows` hears the rows so far while they come from elsewhere. `partition`
    is the one that somebody chose for this run. Raises ConfigurationError, with the YAML's line, for columns that are
    missing (also where some files lack one that they must have) or of a type that has no text.
    """
    require_variables(mapping, yaml_file)
    source, columns = mapping.source, mapping.columns()
    if partition and source.kind is not SourceKind.PARQUET:
        raise ConfigurationError(f"{_line(yaml_file, source.kind)}: {no_partitions(source.kind, partition)}")
    storage = object_storage(mapping)
    try:
        if source.warehouse is not None:
            manifest = extract(
                source.warehouse.uri,
                source.warehouse.asks_for(),
                destination,
                columns=columns,
                base=base,
                memory_limit=memory_limit,
                timeout_seconds=source.warehouse.timeout_minutes * 60,
                on_rows=on_rows,
            )
        elif source.kind in (SourceKind.DELTA, SourceKind.ICEBERG):
            manifest = extract_table(
                lambda: open_table(mapping, base, storage=storage), destination, columns=columns, on_rows=on_rows
            )
        else:
            manifest = read_partitions(
                source.parquet or [],
                columns=columns,
                base=base,
                wanted=wanted_partition(mapping, partition),
                storage=storage,
            )
    except SourcePartitionError as error:
        raise ConfigurationError(f"{_line(yaml_file, SourceKind.PARQUET)}: {error}") from None
    except SourceColumnError as error:
        raise missing_columns(error, mapping, yaml_file=yaml_file) from None
    except WarehouseQueryError as error:
        raise WarehouseQueryError(f"{_asked_at(mapping, yaml_file)}: {error}") from None
    except (SourceTableError, SourceNotFoundError) as error:
        if source.kind is SourceKind.PARQUET:
            raise
        raise type(error)(f"{_line(yaml_file, source.kind)}: {error}") from None
    check_source(mapping, manifest.schema, yaml_file=yaml_file)
    check_files(mapping, manifest, yaml_file=yaml_file)
    if source.parquet is None or not source.addresses():
        return manifest
    return stage(manifest, destination, sources=source.addresses(), storage=storage, on_rows=on_rows)


def open_table(mapping: SyncMapping, base: Path, *, storage: ObjectStorage) -> LakeTable:
    """The version of the Delta or Iceberg table that the YAML means, by its log or metadata alone."""
    delta, iceberg = mapping.source.delta, mapping.source.iceberg
    if delta is not None:
        return DeltaTable(delta.table, base=base, storage=storage, version=delta.version)
    if iceberg is not None:
        return IcebergTable(iceberg.name(), base=base, storage=storage)
    raise ValueError(f"{mapping.source.kind} is no table")


def no_partitions(kind: SourceKind, name: str | None = None) -> str:
    """Why there is nothing to choose from, `name` being what was asked for."""
    has_none = f"has no partition {name!r}" if name else "has no partitions of files"
    if kind is SourceKind.WAREHOUSE:
        return f"a warehouse {has_none}; choose rows in its query"
    return f"a table {has_none}, it is read whole; choose profiles with `where`"


def _line(yaml_file: Path, kind: SourceKind) -> str:
    return locate(yaml_file, ("attributes", "source", kind.value))


def object_storage(mapping: SyncMapping) -> ObjectStorage:
    """As the YAML and the environment describe it; nothing is listed yet."""
    storage = mapping.source.storage
    return ObjectStorage(storage.options() if storage is not None else StorageOptions())


def wanted_partition(mapping: SyncMapping, name: str | None = None) -> Wanted:
    """The partition `name`, or what the YAML says."""
    chosen = mapping.source.partition
    return Wanted(latest=None if chosen is None else tuple(chosen.latest), name=name)


def _asked_at(mapping: SyncMapping, yaml_file: Path) -> str:
    warehouse = mapping.source.warehouse
    key = "table" if warehouse is not None and warehouse.table is not None else "query"
    return locate(yaml_file, ("attributes", "source", "warehouse", key))


def require_variables(mapping: SyncMapping, yaml_file: Path) -> None:
    """A template that is still one names a variable that was not set when the YAML was loaded."""
    source = mapping.source
    warehouse, storage = source.warehouse, source.storage
    places: dict[tuple[str, ...], str] = {("parquet",): str(source.parquet)}
    if source.delta is not None:
        places |= {("delta",): source.delta.table}
    if source.iceberg is not None:
        iceberg = source.iceberg
        places |= {("iceberg",): f"{iceberg.table} {iceberg.catalog} {iceberg.metadata} {iceberg.ref}"}
    if warehouse is not None:
        places |= {
            ("warehouse", "uri"): warehouse.uri,
            ("warehouse", "query"): warehouse.query or "",
            ("warehouse", "table"): warehouse.table or "",
        }
    if storage is not None:
        places |= {("storage", "endpoint"): storage.endpoint or "", ("storage", "region"): storage.region or ""}
    for path, text in places.items():
        template = re.search(r"\{\{.*?\}\}", text)
        if template:
            line = locate(yaml_file, ("attributes", "source", *path))
            raise ConfigurationError(
                f"{line}: {template[0]} has no value; set the variable, or <its name>_FILE to a file that holds "
                "its value, then run again"
            )


def explained(manifest: Manifest) -> SourceUnreadableError | ConfigurationError | None:
    """Why the engine failed on the source, looked for afterwards: its own words may quote a value.

    A footer can be whole while the pages before it are damaged, and one column's name is the engine's own.
    """
    for file in manifest.files:
        if ROW_PLACE in pq.read_schema(file.local_path).names:
            return ConfigurationError(
                f"{file.path} has a column {ROW_PLACE!r}, the engine's own name for a row's place in its file; "
                "rename it in the source"
            )
        for column in file.schema.names:
            try:
                with pq.ParquetFile(file.local_path) as opened:
                    for batch in opened.iter_batches(columns=[column]):
                        batch.validate(full=True)
            except (pa.ArrowException, OSError):
                return SourceUnreadableError(
                    f"{file.path}: column {column!r} cannot be read; the file is damaged. Write it again, or take it "
                    "out of the source. Nothing was sent."
                )
    return None
