"""A sync's source -> a manifest of Parquet files whose columns fit the mapping; nothing of it knows Dagster."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.errors import SourceColumnError, SourceUnreadableError
from connectors.profiles.filesystems import StorageOptions
from connectors.profiles.object_storage import ObjectStorage
from connectors.profiles.parquet import Manifest, read_manifest
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
) -> Manifest:
    """Parquet on a local disk is used where it lies; of object storage the columns are copied to `destination`, and a
    warehouse's answer is streamed there.

    `base` is where relative paths start. `on_rows` hears the rows so far while they come from elsewhere. Raises
    ConfigurationError, with the YAML's line, for columns that are missing (also where some files lack one
    that they must have) or of a type that has no text.
    """
    _require_variables(mapping, yaml_file)
    columns = mapping.columns()
    storage = ObjectStorage(mapping.source.storage.options() if mapping.source.storage else StorageOptions())
    sources = mapping.source.addresses()
    try:
        if mapping.source.warehouse is not None:
            manifest = extract(
                mapping.source.warehouse.uri,
                mapping.source.warehouse.query,
                destination,
                columns=columns,
                base=base,
                memory_limit=memory_limit,
                on_rows=on_rows,
            )
        else:
            manifest = read_manifest(mapping.source.parquet or [], columns=columns, base=base, storage=storage)
    except SourceColumnError as error:
        raise missing_columns(error, mapping, yaml_file=yaml_file) from None
    check_source(mapping, manifest.schema, yaml_file=yaml_file)
    check_files(mapping, manifest, yaml_file=yaml_file)
    return stage(manifest, destination, sources=sources, storage=storage, on_rows=on_rows) if sources else manifest


def _require_variables(mapping: SyncMapping, yaml_file: Path) -> None:
    """A template that is still one names a variable that was not set when the YAML was loaded."""
    warehouse, storage = mapping.source.warehouse, mapping.source.storage
    places: dict[tuple[str, ...], str] = {("parquet",): str(mapping.source.parquet)}
    if warehouse is not None:
        places |= {("warehouse", "uri"): warehouse.uri, ("warehouse", "query"): warehouse.query}
    if storage is not None:
        places |= {("storage", "endpoint"): storage.endpoint or "", ("storage", "region"): storage.region or ""}
    for path, text in places.items():
        template = re.search(r"\{\{.*?\}\}", text)
        if template:
            line = locate(yaml_file, ("attributes", "source", *path))
            raise ConfigurationError(f"{line}: {template[0]} has no value; set the variable, then run again")


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
