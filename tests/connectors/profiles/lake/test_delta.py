"""A Delta table's rows: those of one version, in order, and none that was deleted; and what cannot be read."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import SourceNotFoundError, SourceTableError, SourceUnreadableError
from connectors.profiles.lake import data_files, delta
from connectors.profiles.lake.delta import DeltaTable
from connectors.profiles.lake.lake_extract import extract_table
from connectors.profiles.storage.object_storage import ObjectStorage
from tests.delta_reads import extracted, file_of, people, refused, rows
from tests.lake_tables import (
    added,
    commit_delta,
    delete_delta_rows,
    delta_actions,
    delta_field,
    delta_files,
    delta_metadata,
    on_disk,
    protocol,
    write_delta,
)

# Versions and order -------------------------------------------------------------------------------------------------


def test_the_newest_version_is_read_in_the_order_of_its_commits_and_told(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(5, 4, 3), people(9), people(1, 2))
    manifest = extracted(tmp_path / "t", ["name", "id"])
    assert manifest.table is not None
    assert (manifest.table.format, manifest.table.id) == ("Delta", "2")
    assert manifest.table.table == str(tmp_path / "t")
    assert manifest.table.committed_at is not None
    assert abs(datetime.now(UTC) - manifest.table.committed_at).total_seconds() < 3600
    assert manifest.schema == pa.schema([("name", pa.string()), ("id", pa.int64())])
    assert [row["id"] for row in rows(tmp_path / "t", "id")] == [5, 4, 3, 9, 1, 2]


def test_files_of_one_commit_are_ordered_by_name(tmp_path: Path) -> None:
    for name, ids in (("b", [3]), ("c", [1]), ("a", [2])):
        pq.write_table(people(*ids), file_of(tmp_path, f"{name}.parquet"))
    fields = [delta_field("id", "long"), delta_field("name", "string")]
    adds = [added(tmp_path / "t" / f"{name}.parquet", tmp_path / "t", at_ms=7) for name in "bca"]
    commit_delta(tmp_path / "t", 0, protocol(), delta_metadata(fields), *adds)
    assert [row["id"] for row in rows(tmp_path / "t", "id")] == [2, 3, 1]


def test_a_version_that_is_named_is_read_as_it_was(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(1), people(2))
    deltalake.DeltaTable(tmp_path / "t").delete("id = 1")
    assert [row["id"] for row in rows(tmp_path / "t", "id", version=1)] == [1, 2]
    assert [row["id"] for row in rows(tmp_path / "t", "id")] == [2]


def test_versions_that_are_not_there_are_told_with_the_newest(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(1), people(2), people(3))
    told = str(refused(tmp_path / "t", version=7))
    assert (
        told == f"The Delta table {tmp_path}/t: version 7 does not exist: the newest is 2. Name another one, or none."
    )
    deltalake.DeltaTable(tmp_path / "t").create_checkpoint()
    for number in (0, 1):
        (tmp_path / "t" / "_delta_log" / f"{number:020}.json").unlink()
    assert "version 1 is not in its log any more" in str(refused(tmp_path / "t", version=1))
    assert [row["id"] for row in rows(tmp_path / "t", "id")] == [1, 2, 3]


def test_a_table_without_rows_gives_none(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(1))
    deltalake.DeltaTable(tmp_path / "t").delete()
    manifest = extracted(tmp_path / "t", ["id"])
    assert (manifest.rows, manifest.schema.names) == (0, ["id"])


# Deleted rows -------------------------------------------------------------------------------------------------------


def test_deleted_rows_are_in_no_batch_whatever_the_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "_ROWS_PER_BATCH", 7)
    pq.write_table(people(*range(100)), file_of(tmp_path, "a.parquet"), row_group_size=10)
    pq.write_table(people(*range(100, 120)), file_of(tmp_path, "b.parquet"), row_group_size=3)
    fields = [delta_field("id", "long"), delta_field("name", "string")]
    adds = [added(tmp_path / "t" / name, tmp_path / "t") for name in ("a.parquet", "b.parquet")]
    commit_delta(tmp_path / "t", 0, protocol(), delta_metadata(fields), *adds)
    gone = [0, 6, 7, 9, 10, *range(33, 55), 99]
    delete_delta_rows(tmp_path / "t", 1, {"a.parquet": gone, "b.parquet": [19]})

    found = rows(tmp_path / "t", "id", "name")
    assert [row["id"] for row in found] == [each for each in range(119) if each not in gone]
    assert found == pa.table(deltalake.DeltaTable(tmp_path / "t").scan(columns=["id", "name"])).to_pylist()
    assert [row["id"] for row in rows(tmp_path / "t", "id", version=0)] == list(range(120))


def test_deleted_rows_are_found_below_partitions_of_any_name(tmp_path: Path) -> None:
    name = tmp_path / "a table (1) 50%"
    write_delta(name, people(1, 2, 3, 4, part=["a b/ü%", "a b/ü%", "上", "上"]), partition_by=["part"])
    delete_delta_rows(name, 1, {path: [0] for path in delta_files(name, 0)})
    assert sorted((row["id"], row["part"]) for row in rows(name, "id", "part")) == [(2, "a b/ü%"), (4, "上")]
    assert [row["part"] for row in rows(name, "part")].count("上") == 1


def test_deletion_vectors_in_files_are_read_and_one_that_is_gone_stops_the_extract(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(*range(10)))
    gone = {path: [0, 3, 9] for path in delta_files(tmp_path / "t", 0)}
    delete_delta_rows(tmp_path / "t", 1, gone, in_a_file=True)
    (vector,) = (tmp_path / "t").glob("deletion_vector_*.bin")
    content = vector.read_bytes()
    vector.unlink()
    assert "The record of deleted rows of the Delta table" in str(refused(tmp_path / "t"))
    vector.write_bytes(content[:-6] + b"planted")
    assert "planted" not in str(refused(tmp_path / "t"))
    vector.write_bytes(content)
    assert [row["id"] for row in rows(tmp_path / "t", "id")] == [1, 2, 4, 5, 6, 7, 8]


def test_a_partition_s_value_that_is_none_of_its_type_is_refused(tmp_path: Path) -> None:
    pq.write_table(people(1), file_of(tmp_path, "a.parquet"))
    fields = [delta_field("id", "long"), delta_field("day", "date")]
    add = added(tmp_path / "t/a.parquet", tmp_path / "t", partition={"day": "2026-13-45"})
    commit_delta(tmp_path / "t", 0, protocol(), delta_metadata(fields, partitions=["day"]), add)
    assert isinstance(refused(tmp_path / "t", "id", "day"), SourceUnreadableError)


def test_a_file_of_which_all_rows_are_deleted_gives_none(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(1, 2))
    delete_delta_rows(tmp_path / "t", 1, {path: [0, 1] for path in delta_files(tmp_path / "t", 0)})
    assert rows(tmp_path / "t", "id") == []


def test_deleted_rows_of_a_file_that_is_not_known_are_never_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_delta(tmp_path / "t", people(1, 2))
    delete_delta_rows(tmp_path / "t", 1, {path: [0] for path in delta_files(tmp_path / "t", 0)})
    monkeypatch.setattr(delta, "urlsplit", lambda address: SimpleNamespace(path=f"{address}-spelt-otherwise"))
    assert "tells of deleted rows in a file that it does not have" in str(refused(tmp_path / "t"))


# What cannot be read ------------------------------------------------------------------------------------------------


def test_features_that_nobody_here_knows_are_refused(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(1))
    commit_delta(tmp_path / "t", 1, protocol("bloomVectors"))
    told = refused(tmp_path / "t")
    assert isinstance(told, SourceTableError)
    assert "has features that cannot be read here" in str(told)


def test_a_feature_that_only_deltalake_knows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "_READER_FEATURES", {"deletionVectors"})
    write_delta(tmp_path / "t", people(1))
    commit_delta(tmp_path / "t", 1, protocol("timestampNtz", "deletionVectors"))
    assert "has features that cannot be read here: timestampNtz." in str(refused(tmp_path / "t"))


def test_a_place_without_a_log_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    told = refused(tmp_path / "t")
    assert isinstance(told, SourceNotFoundError)
    assert str(told).startswith(f"No Delta table stands at {tmp_path}/t")


def test_a_relative_path_starts_at_the_base(tmp_path: Path) -> None:
    write_delta(tmp_path / "lake/t", people(1))
    found = DeltaTable("lake/t", base=tmp_path, storage=ObjectStorage())
    assert found.version.table == str(tmp_path / "lake/t")


def test_a_damaged_log_is_told(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(1), people(2))
    (tmp_path / "t/_delta_log" / f"{0:020}.json").unlink()
    told = refused(tmp_path / "t")
    assert isinstance(told, SourceUnreadableError)
    assert f"The log of the Delta table {tmp_path}/t cannot be read" in str(told)


def test_a_file_that_was_vacuumed_fails_the_extract_and_leaves_the_earlier_one(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write_delta(folder, people(1))
    extracted(folder, ["id"], to=tmp_path / "kept")
    write_delta(folder, people(2))
    (path,) = delta_files(folder, 1)
    on_disk(folder, path).unlink()
    told = refused(folder)
    assert isinstance(told, SourceNotFoundError)
    assert str(told).startswith(
        f"{folder}/{path}, a file of the Delta table {folder}, version 1, is not there any more"
    )
    with pytest.raises(SourceNotFoundError):
        extracted(folder, ["id"], to=tmp_path / "kept")
    assert pq.read_table(tmp_path / "kept").to_pylist() == [{"id": 1}]


def test_an_interrupt_leaves_the_earlier_extract(tmp_path: Path) -> None:
    def interrupt(_rows: int) -> None:
        raise KeyboardInterrupt

    write_delta(tmp_path / "t", people(1))
    extracted(tmp_path / "t", ["id"])
    write_delta(tmp_path / "t", people(2))
    with pytest.raises(KeyboardInterrupt):
        extract_table(
            lambda: DeltaTable(str(tmp_path / "t"), base=tmp_path, storage=ObjectStorage()),
            tmp_path / "extract",
            columns=["id"],
            on_rows=interrupt,
        )
    assert pq.read_table(tmp_path / "extract").to_pylist() == [{"id": 1}]
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_is_another_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write_delta(folder, people(1))
    (path,) = delta_files(folder, 0)
    pq.write_table(people(1, 2), on_disk(folder, path))
    assert "is not the file that the Delta table" in str(refused(folder))


def test_a_damaged_file_is_told_without_its_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write_delta(folder, people(1))
    (path,) = delta_files(folder, 0)
    on_disk(folder, path).write_bytes(b"planted content, no Parquet")
    told = refused(folder)
    assert isinstance(told, SourceUnreadableError)
    assert "planted" not in str(told)


def test_without_the_reader_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_delta(tmp_path / "t", people(1))
    monkeypatch.setitem(__import__("sys").modules, "deltalake", None)
    assert "pip install '.[delta]'" in str(refused(tmp_path / "t"))


@pytest.mark.parametrize("original", ["t", "上 #1?"])
def test_a_shallow_clone_reads_the_files_of_its_original(tmp_path: Path, original: str) -> None:
    write_delta(tmp_path / "t", people(1, 2))
    (tmp_path / "t").rename(tmp_path / original)
    actions = delta_actions(tmp_path / original, 0)
    for action in actions:
        if "add" in action:
            action["add"]["path"] = (tmp_path / original / action["add"]["path"]).as_uri()
    commit_delta(tmp_path / "clone", 0, *(action for action in actions if "commitInfo" not in action))
    assert [row["id"] for row in rows(tmp_path / "clone", "id")] == [1, 2]
    shutil.rmtree(tmp_path / "extract")
    shutil.rmtree(tmp_path / original)
    assert isinstance(refused(tmp_path / "clone"), SourceNotFoundError)
