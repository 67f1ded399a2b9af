"""An Iceberg table's rows: those of one snapshot, in order, and none that was deleted; and what cannot be read."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.io import pyarrow as pyarrow_io
from pyiceberg.manifest import DataFileContent, FileFormat, ManifestContent
from pyiceberg.table import Table

from connectors.profiles.errors import SourceNotFoundError, SourceTableError, SourceUnreadableError
from connectors.profiles.lake import data_files
from tests.iceberg_reads import NAME, extracted, files_of, people, refused, rows
from tests.lake_tables import (
    commit_to_iceberg,
    data_file,
    deletion_vector,
    equality_deletes,
    open_catalog,
    position_deletes,
    write_iceberg,
)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(tmp_path / "lake")


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


# Snapshots and order ------------------------------------------------------------------------------------------------


def test_the_newest_snapshot_is_read_in_the_order_of_its_commits_and_told(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, *(people(*ids) for ids in ([5, 4, 3], [9], [1, 2], [8], [7], [6])))
    manifest = extracted(tmp_path, ["name", "id"])
    snapshot = written.current_snapshot()
    assert snapshot is not None
    assert manifest.table is not None
    assert (manifest.table.format, manifest.table.table) == ("Iceberg", "marts.people of the catalog test")
    assert manifest.table.id == str(snapshot.snapshot_id)
    assert manifest.table.committed_at == datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
    assert manifest.schema == pa.schema([("name", pa.string()), ("id", pa.int64())])
    assert [row["id"] for row in rows(tmp_path, "id")] == [5, 4, 3, 9, 1, 2, 8, 7, 6]


def test_a_snapshot_a_branch_or_a_tag_that_is_named_is_read_as_it_was(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, people(1), people(2))
    first, second = (snapshot.snapshot_id for snapshot in written.snapshots())
    written.manage_snapshots().create_tag(first, "audit").commit()
    written.delete("id = 1")
    assert [row["id"] for row in rows(tmp_path, "id", snapshot=second)] == [1, 2]
    assert [row["id"] for row in rows(tmp_path, "id", ref="audit")] == [1]
    assert [row["id"] for row in rows(tmp_path, "id", ref="main")] == [2]
    assert [row["id"] for row in rows(tmp_path, "id")] == [2]


def test_snapshots_and_names_that_are_not_there_are_told(tmp_path: Path, catalog: Catalog) -> None:
    write_iceberg(catalog, NAME, people(1))
    told = refused(tmp_path, snapshot=7)
    assert isinstance(told, SourceTableError)
    assert "has no snapshot 7. It may have expired." in str(told)
    assert "has no branch or tag 'audit'. It has main." in str(refused(tmp_path, ref="audit"))


def test_a_table_is_read_by_its_metadata_alone(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, people(1, 2))
    location = written.metadata_location
    manifest = extracted(tmp_path, ["id"], metadata=location)
    assert (manifest.rows, manifest.table and manifest.table.table) == (2, location)
    relative = location.removeprefix(f"file://{tmp_path}/")
    assert [row["id"] for row in rows(tmp_path, "id", metadata=relative)] == [1, 2]


def test_a_table_without_rows_gives_none(tmp_path: Path, catalog: Catalog) -> None:
    catalog.create_table(NAME, people(1).schema)
    manifest = extracted(tmp_path, ["id"])
    assert (manifest.rows, manifest.schema.names, manifest.table and manifest.table.id) == (0, ["id"], "")


# Deleted rows -------------------------------------------------------------------------------------------------------


def test_rows_deleted_by_position_are_in_no_batch(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files, "_ROWS_PER_BATCH", 7)
    properties = {"write.parquet.row-group-limit": "10"}
    written = write_iceberg(catalog, NAME, people(*range(100)), people(*range(100, 120)), properties=properties)
    by_rows = {task.file.record_count: task.file.file_path for task in written.scan().plan_files()}
    gone = [0, 6, 7, 9, 10, *range(33, 55), 99]
    deletes = [
        position_deletes(tmp_path, {by_rows[100]: gone[:5], by_rows[20]: [19]}, "a.parquet"),
        position_deletes(tmp_path, {by_rows[100]: gone[3:]}, "b.parquet"),  # some of them a second time
    ]
    location = commit_to_iceberg(written, tmp_path, *deletes)
    assert pq.ParquetFile(by_rows[100].removeprefix("file://")).num_row_groups > 1
    found = [row["id"] for row in rows(tmp_path, "id", "name", metadata=location)]
    assert found == [each for each in range(119) if each not in gone]
    assert [row["id"] for row in rows(tmp_path, "id")] == list(range(120))


def test_rows_written_after_a_delete_are_not_deleted(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, people(1, 2))
    (path,) = files_of(written)
    location = commit_to_iceberg(written, tmp_path, position_deletes(tmp_path, {path: [0]}))
    catalog.drop_table(NAME)
    catalog.register_table(NAME, location).append(people(1, 3))
    assert [row["id"] for row in rows(tmp_path, "id")] == [2, 1, 3]


def test_deletion_vectors_of_version_3_are_honoured(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, people(1, 2, 3, 4), people(5, 6))
    paths = {task.file.record_count: task.file.file_path for task in written.scan().plan_files()}
    location = commit_to_iceberg(written, tmp_path, deletion_vector(tmp_path, paths[4], [0, 2]), version=3)
    assert [row["id"] for row in rows(tmp_path, "id", metadata=location)] == [2, 4, 5, 6]


def test_a_file_of_deletes_is_read_once_however_many_files_it_concerns(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_iceberg(catalog, NAME, *(people(each, each + 10) for each in range(5)))
    deletes = position_deletes(tmp_path, {path: [1] for path in files_of(written)})
    location = commit_to_iceberg(written, tmp_path, deletes)
    read, asked = pyarrow_io._read_deletes, []

    def counted(io: Any, file: Any) -> Any:
        asked.append(file.file_path)
        return read(io, file)

    monkeypatch.setattr(pyarrow_io, "_read_deletes", counted)
    assert [row["id"] for row in rows(tmp_path, "id", metadata=location)] == [0, 1, 2, 3, 4]
    assert len(asked) == 1


def test_rows_deleted_by_their_values_are_refused(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, people(1, 2))
    location = commit_to_iceberg(written, tmp_path, equality_deletes(tmp_path, people(1).select(["id"]), [1]))
    told = refused(tmp_path, metadata=location)
    assert isinstance(told, SourceTableError)
    assert "has rows deleted by their values (equality deletes, as Flink writes them)" in str(told)


def test_deletes_that_are_gone_or_damaged_stop_the_extract(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, people(1, 2))
    (path,) = files_of(written)
    location = commit_to_iceberg(written, tmp_path, position_deletes(tmp_path, {path: [0]}))
    (tmp_path / "deletes.parquet").write_bytes(b"planted, no Parquet")
    told = refused(tmp_path, metadata=location)
    assert isinstance(told, SourceTableError)
    assert "planted" not in str(told)
    (tmp_path / "deletes.parquet").unlink()
    assert isinstance(refused(tmp_path, metadata=location), SourceNotFoundError)


# What cannot be read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "more", "what"), [
    (FileFormat.ORC, {}, "has files of ORC"),
    (FileFormat.PARQUET, {"key_metadata": b"k"}, "is encrypted"),
])  # fmt: skip
def test_other_kinds_of_files_are_refused(
    tmp_path: Path, catalog: Catalog, kind: FileFormat, more: dict[str, Any], what: str
) -> None:
    written = write_iceberg(catalog, NAME, people(1))
    (tmp_path / "data").write_bytes(b"")
    file = data_file(tmp_path / "data", DataFileContent.DATA, kind, 1, **more)
    location = commit_to_iceberg(written, tmp_path, file, content=ManifestContent.DATA)
    assert what in str(refused(tmp_path, metadata=location))


def test_what_is_not_there_is_told(tmp_path: Path, catalog: Catalog) -> None:
    told = refused(tmp_path)
    assert isinstance(told, SourceNotFoundError)
    assert str(told).startswith("There is no Iceberg table marts.people of the catalog test.")
    assert isinstance(refused(tmp_path, table="nowhere.people"), SourceNotFoundError)
    assert f"stands at {tmp_path}/none.metadata.json" in str(refused(tmp_path, metadata="none.metadata.json"))


def test_a_file_that_is_gone_fails_the_extract_and_leaves_the_earlier_one(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, people(1))
    extracted(tmp_path, ["id"], to=tmp_path / "kept")
    written.append(people(2))
    newest = next(each for each in files_of(written) if each not in files_of_first(written))
    Path(newest.removeprefix("file://")).unlink()
    told = refused(tmp_path)
    assert isinstance(told, SourceNotFoundError)
    assert str(told).startswith(f"{newest}, a file of the Iceberg table marts.people of the catalog test, snapshot ")
    with pytest.raises(SourceNotFoundError):
        extracted(tmp_path, ["id"], to=tmp_path / "kept")
    assert pq.read_table(tmp_path / "kept").to_pylist() == [{"id": 1}]


def files_of_first(written: Table) -> list[str]:
    first = written.snapshots()[0].snapshot_id
    return [task.file.file_path for task in written.scan(snapshot_id=first).plan_files()]


def test_a_file_that_is_another_one_or_damaged_is_refused(tmp_path: Path, catalog: Catalog) -> None:
    (path,) = files_of(write_iceberg(catalog, NAME, people(1)))
    file = Path(path.removeprefix("file://"))
    pq.write_table(people(1, 2), file)
    assert "is not the file that the Iceberg table" in str(refused(tmp_path))
    pq.write_table(people(1), file)
    told = refused(tmp_path)  # no ids, and the table has no mapping of names
    assert "do not fit the table's (ValueError)" in str(told)
    file.write_bytes(b"planted content, no Parquet")
    told = refused(tmp_path)
    assert isinstance(told, SourceUnreadableError)
    assert "planted" not in str(told)


def test_metadata_that_are_gone_or_damaged_are_told(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, people(1))
    snapshot = written.current_snapshot()
    assert snapshot is not None
    listed = Path(snapshot.manifest_list.removeprefix("file://"))
    listed.write_bytes(b"planted")
    told = refused(tmp_path)
    assert "planted" not in str(told)
    listed.unlink()
    assert isinstance(refused(tmp_path), SourceNotFoundError)
    Path(written.metadata_location.removeprefix("file://")).unlink()
    assert "are not where its catalog says" in str(refused(tmp_path))
