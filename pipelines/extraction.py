"""A sync's source -> a manifest of Parquet files whose columns fit the mapping; nothing of it knows Dagster."""

from pathlib import Path

from connectors.profiles.errors import SourceColumnError
from connectors.profiles.parquet import Manifest, read_manifest
from connectors.profiles.warehouse import extract
from pipelines.mapping import SyncMapping
from pipelines.preflight import check_source, missing_columns


def extract_profiles(mapping: SyncMapping, *, base: Path, destination: Path, yaml_file: Path) -> Manifest:
    """Parquet is used where it lies; a warehouse's answer is streamed to `destination`.

    Raises ConfigurationError, with the YAML's line, for columns that are missing or of a type that has no text.
    """
    columns = mapping.columns()
    try:
        if mapping.source.warehouse is not None:
            warehouse = mapping.source.warehouse
            manifest = extract(warehouse.uri, warehouse.query, destination, columns=columns)
        else:
            manifest = read_manifest(mapping.source.parquet or [], columns=columns, base=base)
    except SourceColumnError as error:
        raise missing_columns(error, mapping, yaml_file=yaml_file) from None
    check_source(mapping, manifest.schema, yaml_file=yaml_file)
    return manifest
