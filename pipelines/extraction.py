"""A sync's source -> a manifest of Parquet files whose columns fit the mapping; nothing of it knows Dagster."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.errors import (
    SourceColumnError,
    SourcePartitionError,
    SourceUnreadableError,
    WarehouseQueryError,
)
from connectors.profiles.filesystems import StorageOptions
from connectors.profiles.object_storage import ObjectStorage
from connectors.profiles.parquet import Manifest
from connectors.profiles.partitions import Wanted, read_partitions
from connectors.profiles.staging import stage
from connectors.profiles.warehouse import extract
from pipelines.engine import ROW_PLACE
from pipelines.errors import ConfigurationError
from pipelines.mapping import SyncMapping
from pipelines.preflight import check_files, check_source, missing_columns
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
    warehouse's answer is streamed there.

    `base` is where relative paths start. `on_rows` hears the rows so far while they come from elsewhere. `partition`
    is the one that somebody chose for this run. Raises ConfigurationError, with the YAML's line, for columns that are
    missing (also where some files lack one that they must have) or of a type that has no text.
    """
    require_variables(mapping, yaml_file)
    columns = mapping.columns()
    if partition and mapping.source.warehouse is not None:
        line = locate(yaml_file, ("attributes", "source", "warehouse"))
        raise ConfigurationError(f"{line}: a warehouse has no partition {partition!r}; choose rows in its query")
    storage, sources = object_storage(mapping), mapping.source.addresses()
    try:
        if mapping.source.warehouse is not None:
            manifest = extract(
                mapping.source.warehouse.uri,
                mapping.source.warehouse.asks_for(),
                destination,
                columns=columns,
                base=base,
                memory_limit=memory_limit,
                timeout_seconds=mapping.source.warehouse.timeout_minutes * 60,
                on_rows=on_rows,
            )
        else:
            manifest = read_partitions(
                mapping.source.parquet or [],
                columns=columns,
                base=base,
                wanted=wanted_partition(mapping, partition),
                storage=storage,
            )
    except SourcePartitionError as error:
        line = locate(yaml_file, ("attributes", "source", "parquet"))
        raise ConfigurationError(f"{line}: {error}") from None
    except SourceColumnError as error:
        raise missing_columns(error, mapping, yaml_file=yaml_file) from None
    except WarehouseQueryError as error:
        raise WarehouseQueryError(f"{_asked_at(mapping, yaml_file)}: {error}") from None
    check_source(mapping, manifest.schema, yaml_file=yaml_file)
    check_files(mapping, manifest, yaml_file=yaml_file)
    return stage(manifest, destination, sources=sources, storage=storage, on_rows=on_rows) if sources else manifest


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
    warehouse, storage = mapping.source.warehouse, mapping.source.storage
    places: dict[tuple[str, ...], str] = {("parquet",): str(mapping.source.parquet)}
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
