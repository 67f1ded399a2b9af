"""What tests of Delta tables read, and what is refused to them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import ProfilesError
from connectors.profiles.lake.delta import DeltaTable
from connectors.profiles.lake.lake_extract import extract_table
from connectors.profiles.parquet import Manifest
from connectors.profiles.storage.object_storage import ObjectStorage

NAMES = ["Zoë", "上海", "نور", "O'Neil", "🦉"]


def people(*ids: int, **more: Any) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [NAMES[each % 5] for each in ids], **more})


def extracted(folder: Path, columns: Sequence[str], *, to: Path | None = None, **options: Any) -> Manifest:
    return extract_table(
        lambda: DeltaTable(str(folder), base=Path("/"), storage=ObjectStorage(), **options),
        to or folder.parent / "extract",
        columns=columns,
    )


def rows(folder: Path, *columns: str, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table(folder, *columns, **options).to_pylist()
    return found


def table(folder: Path, *columns: str, **options: Any) -> pa.Table:
    manifest = extracted(folder, columns, **options)
    return pa.concat_tables([pq.read_table(file.path) for file in manifest.files])


def refused(folder: Path, *columns: str, **options: Any) -> ProfilesError:
    with pytest.raises(ProfilesError) as caught:
        extracted(folder, columns or ["id"], **options)
    assert not (folder.parent / "extract").exists()
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []
    return caught.value


def file_of(tmp_path: Path, name: str) -> Path:
    (tmp_path / "t").mkdir(exist_ok=True)
    return tmp_path / "t" / name
