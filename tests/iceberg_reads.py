"""What tests of Iceberg tables read, and what is refused to them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import Table

from connectors.profiles.errors import ProfilesError
from connectors.profiles.lake.iceberg import IcebergTable
from connectors.profiles.lake.iceberg_catalog import IcebergName
from connectors.profiles.lake.lake_extract import extract_table
from connectors.profiles.parquet import Manifest
from connectors.profiles.storage.object_storage import ObjectStorage
from tests.lake_tables import catalog_properties

NAMES = ["Zoë", "上海", "نور", "O'Neil", "🦉"]
NAME = "marts.people"


def people(*ids: int, **more: Any) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [NAMES[each % 5] for each in ids], **more})


def extracted(folder: Path, columns: Sequence[str], *, to: Path | None = None, **chosen: Any) -> Manifest:
    if "metadata" not in chosen:
        found = {"table": NAME, "catalog": "test", "properties": catalog_properties(folder / "lake")}
        chosen = {**found, **chosen}
    return extract_table(
        lambda: IcebergTable(IcebergName(**chosen), base=folder, storage=ObjectStorage()),
        to or folder / "extract",
        columns=columns,
    )


def table(folder: Path, *columns: str, **chosen: Any) -> pa.Table:
    manifest = extracted(folder, columns, **chosen)
    return pa.concat_tables([pq.read_table(file.path) for file in manifest.files])


def rows(folder: Path, *columns: str, **chosen: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table(folder, *columns, **chosen).to_pylist()
    return found


def refused(folder: Path, *columns: str, **chosen: Any) -> ProfilesError:
    with pytest.raises(ProfilesError) as caught:
        extracted(folder, columns or ["id"], **chosen)
    assert not (folder / "extract").exists()
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []
    return caught.value


def files_of(written: Table) -> list[str]:
    return sorted(task.file.file_path for task in written.scan().plan_files())
