"""Delta and Iceberg tables for tests: written by their own libraries, and with commits that these do not write.

Deletion vectors and column mapping are not written by deltalake, nor deletes that are merged on read by pyiceberg: such
commits are put together here, as the formats' specifications have them.
"""

import json
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyroaring import BitMap64

# Delta --------------------------------------------------------------------------------------------------------------

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def write_delta(folder: Path | str, *tables: pa.Table, **options: Any) -> str:
    """One commit per table."""
    for table in tables:
        write_deltalake(str(folder), table, mode="append", **options)
    return str(folder)


def delta_actions(folder: Path, version: int) -> list[dict[str, Any]]:
    text = (folder / "_delta_log" / f"{version:020}.json").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def commit_delta(folder: Path, version: int, *actions: dict[str, Any]) -> None:
    log = folder / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    told = {"commitInfo": {"timestamp": int(time.time() * 1000), "operation": "TEST", "operationParameters": {}}}
    text = "\n".join(json.dumps(action) for action in (told, *actions))
    (log / f"{version:020}.json").write_text(text, encoding="utf-8")


def protocol(*features: str) -> dict[str, Any]:
    named = {"readerFeatures": list(features), "writerFeatures": list(features)}
    return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **named}}


def delta_metadata(fields: Sequence[dict[str, Any]], *, partitions: Sequence[str] = (), **properties: str) -> Any:
    schema = {"type": "struct", "fields": list(fields)}
    return {
        "metaData": {
            "id": "5f7ac5a5-6ed8-4f3a-9d6c-000000000000",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps(schema),
            "partitionColumns": list(partitions),
            "configuration": properties,
            "createdTime": 1,
        }
    }


def delta_field(name: str, data_type: str, **metadata: Any) -> dict[str, Any]:
    return {"name": name, "type": data_type, "nullable": True, "metadata": metadata}


def added(file: Path, root: Path, *, at_ms: int = 1, partition: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "add": {
            "path": file.relative_to(root).as_posix(),
            "partitionValues": partition or {},
            "size": file.stat().st_size,
            "modificationTime": at_ms,
            "dataChange": True,
            "stats": json.dumps({"numRecords": pq.read_metadata(file).num_rows}),
        }
    }


def delete_delta_rows(
    folder: Path, version: int, deleted: Mapping[str, Sequence[int]], *, in_a_file: bool = False
) -> None:
    """A commit of deletion vectors: by the path that the log has, the positions of the rows in that file.

    They stand in the log, or in a file of their own each, as Spark has them.
    """
    adds: dict[str, dict[str, Any]] = {}
    for earlier in range(version):
        adds |= {each["add"]["path"]: each["add"] for each in delta_actions(folder, earlier) if "add" in each}
    actions = []
    for path, rows in deleted.items():
        actions += [{"remove": {"path": path, "deletionTimestamp": 1, "dataChange": True}}]
        vector = _vector_in_a_file(folder, rows) if in_a_file else _inline_vector(rows)
        actions += [{"add": {**adds[path], "deletionVector": vector}}]
    commit_delta(folder, version, protocol("deletionVectors"), *actions)


def delta_files(folder: Path, version: int) -> list[str]:
    """The paths of a commit, as the log has them."""
    return [each["add"]["path"] for each in delta_actions(folder, version) if "add" in each]


def on_disk(folder: Path, path: str) -> Path:
    return folder / unquote(path)


def _vector_in_a_file(folder: Path, rows: Sequence[int]) -> dict[str, Any]:
    data, name = struct.pack("<I", 1681511377) + BitMap64(rows).serialize(), uuid4()
    content = b"\1" + struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data))
    (folder / f"deletion_vector_{name}.bin").write_bytes(content)
    place = {"storageType": "u", "pathOrInlineDv": _z85(name.bytes), "offset": 1}
    return {**place, "sizeInBytes": len(data), "cardinality": len(rows)}


def _inline_vector(rows: Sequence[int]) -> dict[str, Any]:
    data = struct.pack("<I", 1681511377) + BitMap64(rows).serialize()
    return {"storageType": "i", "pathOrInlineDv": _z85(data), "sizeInBytes": len(data), "cardinality": len(rows)}


def _z85(data: bytes) -> str:
    data += b"\0" * (-len(data) % 4)
    text = ""
    for start in range(0, len(data), 4):
        value = int.from_bytes(data[start : start + 4], "big")
        text += "".join(_Z85[value // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return text


# Iceberg ------------------------------------------------------------------------------------------------------------


def catalog_properties(folder: Path, warehouse: str | None = None) -> dict[str, str]:
    """Of a SQL catalog in a SQLite file, as a sync's YAML has them."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "type": "sql",
        "uri": f"sqlite:///{folder / 'catalog.db'}",
        "warehouse": warehouse or (folder / "warehouse").as_uri(),
    }


def open_catalog(folder: Path, warehouse: str | None = None, **properties: str) -> Catalog:
    catalog = load_catalog("test", **catalog_properties(folder, warehouse), **properties)
    catalog.create_namespace_if_not_exists("marts")
    return catalog


def write_iceberg(catalog: Catalog, name: str, *tables: pa.Table, **options: Any) -> Table:
    """One commit per table."""
    table = catalog.create_table(name, tables[0].schema, **options)
    for rows in tables:
        table.append(rows)
    return table


def position_deletes(folder: Path, rows: Mapping[str, Sequence[int]], name: str = "deletes.parquet") -> DataFile:
    """A file of deletes that names rows by file and position."""
    paths = [path for path, positions in rows.items() for _ in positions]
    schema = pa.schema(
        [
            pa.field("file_path", pa.string(), metadata={"PARQUET:field_id": "2147483546"}),
            pa.field("pos", pa.int64(), metadata={"PARQUET:field_id": "2147483545"}),
        ]
    )
    table = pa.table([paths, [row for positions in rows.values() for row in positions]], schema=schema)
    pq.write_table(table, folder / name)
    return data_file(folder / name, DataFileContent.POSITION_DELETES, FileFormat.PARQUET, len(paths))


def deletion_vector(folder: Path, path: str, rows: Sequence[int], name: str = "deletes.puffin") -> DataFile:
    """A Puffin file with the vector of one data file, as tables of version 3 have it."""
    vector = struct.pack("<I", 1681511377) + BitMap64(rows).serialize()
    blob = struct.pack(">I", len(vector)) + vector + b"\0\0\0\0"
    described = {
        "type": "deletion-vector-v1",
        "fields": [2147483546],
        "snapshot-id": -1,
        "sequence-number": -1,
        "offset": 4,
        "length": len(blob),
        "properties": {"referenced-data-file": path, "cardinality": str(len(rows))},
    }
    footer = json.dumps({"blobs": [described]}).encode()
    ending = b"PFA1" + footer + struct.pack("<I", len(footer)) + b"\0\0\0\0PFA1"
    (folder / name).write_bytes(b"PFA1" + blob + ending)
    return data_file(folder / name, DataFileContent.POSITION_DELETES, FileFormat.PUFFIN, len(rows))


def equality_deletes(folder: Path, table: pa.Table, ids: Sequence[int]) -> DataFile:
    pq.write_table(table, folder / "equality.parquet")
    return data_file(
        folder / "equality.parquet", DataFileContent.EQUALITY_DELETES, FileFormat.PARQUET, len(table), equality_ids=ids
    )


def data_file(file: Path, content: DataFileContent, kind: FileFormat, rows: int, **more: Any) -> DataFile:
    made = DataFile.from_args(
        content=content,
        file_path=file.as_uri(),
        file_format=kind,
        partition=Record(),
        record_count=rows,
        file_size_in_bytes=file.stat().st_size,
        **more,
    )
    made.spec_id = 0
    return made


class _ManifestOfDeletes(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def commit_to_iceberg(
    table: Table, folder: Path, *files: DataFile, content: ManifestContent = ManifestContent.DELETES, version: int = 2
) -> str:
    """The address of metadata with one more snapshot, which adds these files to the current one."""
    io, metadata = PyArrowFileIO(), json.loads(table.metadata.model_dump_json())
    current = table.current_snapshot()
    assert current is not None
    snapshot_id, number = current.snapshot_id + 1, metadata["last-sequence-number"] + 1
    writer = _ManifestOfDeletes if content is ManifestContent.DELETES else ManifestWriterV2
    manifest = writer(
        table.spec(), table.schema(), io.new_output(f"{folder}/manifest-{number}.avro"), snapshot_id, "null"
    )
    with manifest:
        for file in files:
            manifest.add_entry(
                ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=snapshot_id, data_file=file)
            )
    place = f"{folder}/manifests-{number}.avro"
    with write_manifest_list(2, io.new_output(place), snapshot_id, current.snapshot_id, number, "null") as manifests:
        manifests.add_manifests([*current.manifests(table.io), manifest.to_manifest_file()])
    metadata["snapshots"].append(
        {
            "snapshot-id": snapshot_id,
            "parent-snapshot-id": current.snapshot_id,
            "sequence-number": number,
            "timestamp-ms": current.timestamp_ms + 1,
            "manifest-list": place,
            "summary": {"operation": "delete"},
            "schema-id": metadata["current-schema-id"],
        }
    )
    metadata |= {"current-snapshot-id": snapshot_id, "last-sequence-number": number, "format-version": version}
    metadata["last-updated-ms"] = current.timestamp_ms + 1
    metadata["refs"]["main"]["snapshot-id"] = snapshot_id
    if version >= 3:
        metadata["next-row-id"] = 0
    location = folder / f"{number:05}.metadata.json"
    location.write_text(json.dumps(metadata), encoding="utf-8")
    return str(location)
