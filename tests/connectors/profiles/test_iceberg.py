"""An Iceberg table's rows: those of one snapshot, none that was deleted, each value as the table means it."""

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.io import pyarrow as pyarrow_io
from pyiceberg.manifest import DataFileContent, FileFormat, ManifestContent
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    DateType,
    DoubleType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    UUIDType,
)

from connectors.profiles import data_files
from connectors.profiles.errors import (
    ProfilesError,
    SourceColumnError,
    SourceNotFoundError,
    SourceTableError,
    SourceUnreachableError,
    SourceUnreadableError,
)
from connectors.profiles.iceberg import IcebergTable
from connectors.profiles.iceberg_catalog import IcebergName
from connectors.profiles.lake_extract import extract_table
from connectors.profiles.object_storage import ObjectStorage
from connectors.profiles.parquet import Manifest
from tests.lake_tables import (
    catalog_properties,
    commit_to_iceberg,
    data_file,
    deletion_vector,
    equality_deletes,
    open_catalog,
    position_deletes,
    write_iceberg,
)

NAMES = ["Zoë", "上海", "نور", "O'Neil", "🦉"]
NAME = "marts.people"


def people(*ids: int, **more: Any) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [NAMES[each % 5] for each in ids], **more})


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(tmp_path / "lake")


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


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
    monkeypatch.setattr(pyarrow_io, "_read_deletes", lambda io, file: asked.append(file.file_path) or read(io, file))
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


# Columns ------------------------------------------------------------------------------------------------------------


def test_columns_are_known_by_their_ids_through_every_change(tmp_path: Path, catalog: Catalog) -> None:
    first = pa.table({"id": pa.array([1], pa.int32()), "share": pa.array([0.5], pa.float32()), "a": ["α"], "b": ["β"]})
    written = write_iceberg(catalog, NAME, first)
    with written.update_schema() as update:
        update.update_column("id", LongType()).update_column("share", DoubleType())
        update.rename_column("a", "c").delete_column("b").add_column("level", IntegerType())
    with written.update_schema() as update:
        update.add_column("b", StringType()).rename_column("c", "a2").move_first("b")
    assert rows(tmp_path, "id", "share", "a2", "b", "level") == [
        {"id": 1, "share": 0.5, "a2": "α", "b": None, "level": None}
    ]
    schema = {"id": pa.int64(), "share": pa.float64(), "a2": pa.string(), "b": pa.string(), "level": pa.int32()}
    values = dict(zip(schema, [2**40, 0.1, "a", "b", 7], strict=True))
    more = pa.table({name: pa.array([value], schema[name]) for name, value in values.items()})
    written.append(more.select(["b", "id", "share", "a2", "level"]))
    assert rows(tmp_path, *schema)[1:] == more.to_pylist()
    assert rows(tmp_path, "b", "level") == [{"b": None, "level": None}, {"b": "b", "level": 7}]
    assert rows(tmp_path, "a", snapshot=written.snapshots()[0].snapshot_id) == [{"a": "α"}]
    told = refused_after(tmp_path, "a")
    assert isinstance(told, SourceColumnError)
    assert told.columns == ("a",)


def test_a_column_of_version_3_has_its_default_in_older_files(tmp_path: Path, catalog: Catalog) -> None:
    written = write_iceberg(catalog, NAME, people(1))
    location = tmp_path / "edited.metadata.json"
    metadata = json.loads(written.metadata.model_dump_json())
    plan = {"id": 3, "name": "plan", "required": False, "type": "string", "initial-default": "gratis"}
    metadata["schemas"][0]["fields"].append(plan)
    metadata |= {"format-version": 3, "next-row-id": 0, "last-column-id": 3}
    location.write_text(json.dumps(metadata), encoding="utf-8")
    assert rows(tmp_path, "id", "plan", metadata=str(location)) == [{"id": 1, "plan": "gratis"}]


def refused_after(folder: Path, *columns: str) -> ProfilesError:
    shutil.rmtree(folder / "extract")
    return refused(folder, *columns)


def test_files_that_were_only_registered_have_the_partition_s_value(tmp_path: Path, catalog: Catalog) -> None:
    schema = Schema(
        NestedField(1, "id", LongType()), NestedField(2, "day", DateType()), NestedField(3, "n", LongType())
    )
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "day"))
    written = catalog.create_table(NAME, schema, partition_spec=spec)
    written.append(pa.table({"id": [1, 2], "day": [date(2026, 11, 20), date(2026, 11, 21)], "n": [5, 6]}))
    for task in written.scan().plan_files():  # as Hive's files are, which do not repeat their folder's value
        path = task.file.file_path.removeprefix("file://")
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["day", "n"]), path)
    found = sorted(rows(tmp_path, "day", "id", "n"), key=lambda row: row["id"])
    assert found == [{"day": date(2026, 11, 20), "id": 1, "n": None}, {"day": date(2026, 11, 21), "id": 2, "n": None}]
    assert {row["day"] for row in rows(tmp_path, "day")} == {date(2026, 11, 20), date(2026, 11, 21)}


def test_every_type_that_a_profile_may_have_arrives_as_it_is(tmp_path: Path, catalog: Catalog) -> None:
    moments = [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), None]
    expected = pa.table(
        {
            "text": pa.array(["", "👩‍👩‍👧‍👦", None]),
            "flag": pa.array([True, False, None]),
            "int": pa.array([-(2**31), 2**31 - 1, None], pa.int32()),
            "big": pa.array([-(2**63), 2**63 - 1, None], pa.int64()),
            "real": pa.array([0.1, float("inf"), None], pa.float32()),
            "amount": pa.array([Decimal("-99999999999999999999999999999999999.999"), Decimal("0.001"), None]),
            "day": pa.array([date(1, 1, 1), date(9999, 12, 31), None]),
            "moment": pa.array([each and each.replace(tzinfo=UTC) for each in moments], pa.timestamp("us", "UTC")),
            "local": pa.array(moments, pa.timestamp("us")),
        }
    )
    write_iceberg(catalog, NAME, expected)
    assert table(tmp_path, *expected.column_names) == expected


def test_files_without_ids_are_read_by_the_name_mapping(tmp_path: Path, catalog: Catalog) -> None:
    written = catalog.create_table(NAME, people(1).schema)
    strange = people(1).append_column("other", pa.array(["x"], pa.large_string()))
    pq.write_table(people(1, 2), tmp_path / "plain.parquet")
    pq.write_table(strange.select(["name", "id"]), tmp_path / "turned.parquet")
    written.add_files([(tmp_path / "plain.parquet").as_uri(), (tmp_path / "turned.parquet").as_uri()])
    assert [row["id"] for row in rows(tmp_path, "id", "name")] == [1, 2, 1]


def test_times_that_spark_wrote_as_int96_reach_past_2262(tmp_path: Path, catalog: Catalog) -> None:
    moments = pa.table({"at": pa.array([datetime(9999, 12, 31, 1), datetime(1600, 2, 3)], pa.timestamp("us", "UTC"))})
    written = write_iceberg(catalog, NAME, moments)
    (path,) = files_of(written)
    schema = pq.read_schema(path.removeprefix("file://"))
    local = moments.cast(schema).cast(pa.schema([schema.field("at").with_type(pa.timestamp("us"))]))
    pq.write_table(local, path.removeprefix("file://"), use_deprecated_int96_timestamps=True)
    found = [row["at"] for row in rows(tmp_path, "at")]
    assert found == [datetime(9999, 12, 31, 1, tzinfo=UTC), datetime(1600, 2, 3, tzinfo=UTC)]


def test_columns_without_a_text_are_refused_and_only_where_they_are_asked_for(tmp_path: Path, catalog: Catalog) -> None:
    unfit = {"tags": [["a"]], "raw": [b"x"], "place": [{"x": 1}]}
    written = write_iceberg(catalog, NAME, people(1, **unfit))
    with written.update_schema() as update:
        update.add_column("key", UUIDType())
    told = refused(tmp_path, "id", "tags", "raw", "place", "key")
    assert isinstance(told, SourceColumnError)
    assert told.columns == ("tags", "raw", "place", "key")
    assert rows(tmp_path, "id") == [{"id": 1}]


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


# Catalogs -----------------------------------------------------------------------------------------------------------


def test_a_catalog_is_found_by_its_name_in_the_environment(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_iceberg(catalog, NAME, people(1))
    for key, value in catalog_properties(tmp_path / "lake").items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__TEST__{key.upper()}", value)
    assert rows(tmp_path, "id", properties={}) == [{"id": 1}]
    monkeypatch.setenv("PYICEBERG_DEFAULT_CATALOG", "test")
    assert rows(tmp_path, "id", properties={}, catalog=None) == [{"id": 1}]


def test_a_catalog_is_found_by_its_name_in_pyiceberg_s_file(tmp_path: Path, catalog: Catalog) -> None:
    write_iceberg(catalog, NAME, people(1))
    lines = [f"      {key}: {value}\n" for key, value in catalog_properties(tmp_path / "lake").items()]
    (tmp_path / ".pyiceberg.yaml").write_text("catalog:\n    test:\n" + "".join(lines), encoding="utf-8")
    found = extracted(tmp_path, ["id"], properties={})
    assert found.rows == 1


@pytest.mark.parametrize(("properties", "kind", "what"), [
    ({"type": "nonsense", "uri": "x://user:planted@h"}, SourceTableError, "at x://h cannot be set up (ValueError)"),
    ({}, SourceTableError, "cannot be set up (ValueError)"),
    ({"type": "hive", "uri": "thrift://127.0.0.1:9"}, SourceTableError, "needs a package that is not installed"),
    ({"type": "rest", "uri": "http://127.0.0.1:9", "credential": "a:planted",
      "oauth2-server-uri": "http://127.0.0.1:9/token"}, SourceUnreachableError, "be reached"),
    ({"type": "sql", "uri": "sqlite:////nowhere/planted.db", "warehouse": "/x"}, SourceUnreachableError, "no use ("),
])  # fmt: skip
def test_a_catalog_that_cannot_be_had_is_told_without_its_secrets(
    tmp_path: Path, properties: dict[str, str], kind: type[ProfilesError], what: str
) -> None:
    told = refused(tmp_path, properties=properties)
    assert isinstance(told, kind)
    assert what in str(told)
    assert "planted" not in str(told).replace("sqlite:////nowhere/planted.db", "")


def test_without_the_reader_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.profiles.iceberg_catalog.importlib.import_module", _not_installed)
    assert "pip install 'tencent-push-attribute-sync[iceberg]'" in str(refused(tmp_path))


def test_a_name_shows_no_property_of_its_catalog() -> None:
    name = IcebergName(NAME, "prod", {"uri": "postgresql://reader:planted@h/c"})
    assert "planted" not in f"{name} {name!r}"


def _not_installed(name: str) -> None:
    raise ModuleNotFoundError(name)
