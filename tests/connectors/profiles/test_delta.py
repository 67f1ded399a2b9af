"""A Delta table's rows: those of one version, none that was deleted, each value as the table means it."""

import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles import data_files, delta
from connectors.profiles.delta import DeltaTable
from connectors.profiles.errors import (
    ProfilesError,
    SourceColumnError,
    SourceNotFoundError,
    SourceTableError,
    SourceUnreadableError,
)
from connectors.profiles.lake_extract import extract_table
from connectors.profiles.object_storage import ObjectStorage
from connectors.profiles.parquet import Manifest
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
        pq.write_table(people(*ids), _file(tmp_path, f"{name}.parquet"))
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
    pq.write_table(people(*range(100)), _file(tmp_path, "a.parquet"), row_group_size=10)
    pq.write_table(people(*range(100, 120)), _file(tmp_path, "b.parquet"), row_group_size=3)
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
    pq.write_table(people(1), _file(tmp_path, "a.parquet"))
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


# Columns ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["name", "id"])
def test_renamed_columns_are_found_by_what_the_files_call_them(tmp_path: Path, mode: str) -> None:
    ids = {"col-a": "1", "col-b": "2"} if mode == "name" else {"of old": "1", "another": "2"}
    schema = pa.schema(
        [pa.field(name, kind, metadata={"PARQUET:field_id": number}) for (name, number), kind in
         zip(ids.items(), (pa.int64(), pa.string()), strict=True)]
    )  # fmt: skip
    pq.write_table(pa.table([[1, 2], ["x", "y"]], schema=schema), _file(tmp_path, "a.parquet"))

    def mapped(name: str, kind: str, number: int, physical: str) -> dict[str, Any]:
        told = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": physical}
        return delta_field(name, kind, **told)

    fields = [
        mapped("name", "string", 2, "col-b"),  # the names are exchanged: only the mapping tells
        mapped("col-b", "long", 1, "col-a"),
        mapped("new", "string", 3, "col-c"),
        mapped("part", "integer", 4, "col-d"),
    ]
    properties = {"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": "4"}
    add = added(tmp_path / "t/a.parquet", tmp_path / "t", partition={"col-d": "7"})
    metadata = delta_metadata(fields, partitions=["part"], **properties)
    commit_delta(tmp_path / "t", 0, protocol("columnMapping"), metadata, add)
    expected = [{"col-b": 1, "name": "x", "part": 7, "new": None}, {"col-b": 2, "name": "y", "part": 7, "new": None}]
    assert rows(tmp_path / "t", "col-b", "name", "part", "new") == expected
    if mode == "name":
        scanned = deltalake.DeltaTable(tmp_path / "t").scan(columns=["col-b", "name", "part", "new"])
        assert pa.table(scanned).to_pylist() == expected


def test_files_older_than_a_column_have_null_there(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(1, 2))
    write_delta(tmp_path / "t", people(3, level=[7]), schema_mode="merge")
    assert rows(tmp_path / "t", "level", "id") == [
        {"level": None, "id": 1},
        {"level": None, "id": 2},
        {"level": 7, "id": 3},
    ]
    assert rows(tmp_path / "t", "level") == [{"level": None}, {"level": None}, {"level": 7}]


def test_a_type_that_was_widened_is_read_from_old_files_too(tmp_path: Path) -> None:
    old = {"id": pa.array([1], pa.int8()), "share": pa.array([0.5], pa.float32()), "sum": [Decimal("1.50")]}
    new = {"id": pa.array([2**40], pa.int64()), "share": [0.1], "sum": [Decimal("12345.6789")]}
    old["day"], new["day"] = [date(2026, 11, 20)], pa.array([datetime(2026, 11, 21, 5)], pa.timestamp("us"))
    pq.write_table(pa.table(old), _file(tmp_path, "a.parquet"))
    pq.write_table(pa.table(new), _file(tmp_path, "b.parquet"))
    types = {"id": "long", "share": "double", "sum": "decimal(12,4)", "day": "timestamp_ntz"}
    adds = [added(tmp_path / "t" / name, tmp_path / "t") for name in ("a.parquet", "b.parquet")]
    metadata = delta_metadata([delta_field(*each) for each in types.items()])
    commit_delta(tmp_path / "t", 0, protocol("typeWidening", "timestampNtz", "vacuumProtocolCheck"), metadata, *adds)
    assert rows(tmp_path / "t", "id", "share", "sum", "day") == [
        {"id": 1, "share": 0.5, "sum": Decimal("1.5000"), "day": datetime(2026, 11, 20)},
        {"id": 2**40, "share": 0.1, "sum": Decimal("12345.6789"), "day": datetime(2026, 11, 21, 5)},
    ]


def test_partition_columns_have_the_values_and_types_that_the_log_tells(tmp_path: Path) -> None:
    values = {
        "text": ["a/b=ü %", None],
        "day": [date(2026, 11, 20), None],
        "moment": pa.array([datetime(2026, 11, 20, 1, 2, 3, 456789, UTC), None], pa.timestamp("us", "UTC")),
        "number": pa.array([-(2**62), None], pa.int64()),
        "amount": pa.array([Decimal("1.50"), None], pa.decimal128(12, 2)),
        "flag": [True, None],
    }
    expected = people(1, 2, **values)
    write_delta(tmp_path / "t", expected, partition_by=list(values))
    found = table(tmp_path / "t", "id", "name", *values).sort_by("id")
    assert found == expected


def test_every_type_that_a_profile_may_have_arrives_as_it_is(tmp_path: Path) -> None:
    moments = [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), None]
    expected = pa.table(
        {
            "text": pa.array(["", "👩‍👩‍👧‍👦", None]),
            "flag": pa.array([True, False, None]),
            "tiny": pa.array([-128, 127, None], pa.int8()),
            "big": pa.array([-(2**63), 2**63 - 1, None], pa.int64()),
            "real": pa.array([0.1, float("inf"), None], pa.float32()),
            "amount": pa.array([Decimal("-99999999999999999999999999999999999.999"), Decimal("0.001"), None]),
            "day": pa.array([date(1, 1, 1), date(9999, 12, 31), None]),
            "moment": pa.array([each and each.replace(tzinfo=UTC) for each in moments], pa.timestamp("us", "UTC")),
            "local": pa.array(moments, pa.timestamp("us")),
        }
    )
    write_delta(tmp_path / "t", expected)
    assert table(tmp_path / "t", *expected.column_names) == expected


def test_texts_in_other_layouts_of_arrow_are_the_same_text(tmp_path: Path) -> None:
    views = pa.array(["ü", None], pa.string_view())
    laid_out = {"large": pa.array(["ü", None], pa.large_string()), "coded": views.cast(pa.string()).dictionary_encode()}
    write_delta(tmp_path / "t", pa.table({**laid_out, "view": views}))
    alike = table(tmp_path / "t", "large", "coded", "view")
    assert set(alike.schema.types) == {pa.string()}
    assert [column.to_pylist() for column in alike.columns] == [["ü", None]] * 3


def test_times_that_spark_wrote_as_int96_reach_past_2262(tmp_path: Path) -> None:
    moments = pa.array([datetime(9999, 12, 31, 1), datetime(1600, 2, 3)], pa.timestamp("us"))
    file = _file(tmp_path, "a.parquet")
    pq.write_table(pa.table({"at": moments}), file, use_deprecated_int96_timestamps=True)
    metadata = delta_metadata([delta_field("at", "timestamp")])
    commit_delta(tmp_path / "t", 0, protocol(), metadata, added(file, tmp_path / "t"))
    found = [row["at"] for row in rows(tmp_path / "t", "at")]
    assert found == [datetime(9999, 12, 31, 1, tzinfo=UTC), datetime(1600, 2, 3, tzinfo=UTC)]


def test_a_column_that_the_files_spell_in_other_letters_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ID": [1]}), _file(tmp_path, "a.parquet"))
    add = added(tmp_path / "t/a.parquet", tmp_path / "t")
    commit_delta(tmp_path / "t", 0, protocol(), delta_metadata([delta_field("id", "long")]), add)
    told = refused(tmp_path / "t")
    assert isinstance(told, SourceColumnError)
    assert "a.parquet has a column 'ID' where the Delta table" in str(told)


def test_columns_without_a_text_are_refused_and_only_where_they_are_asked_for(tmp_path: Path) -> None:
    nested = {"tags": [["a"]], "raw": [b"x"], "place": [{"x": 1}]}
    write_delta(tmp_path / "t", people(1, **nested))
    told = refused(tmp_path / "t", "id", "tags", "raw", "place")
    assert isinstance(told, SourceColumnError)
    assert told.columns == ("tags", "raw", "place")
    assert str(told).endswith("Convert it in the table, or take it out of the mapping.")
    assert rows(tmp_path / "t", "id") == [{"id": 1}]


def test_a_column_that_the_table_lacks_is_named_with_the_nearest(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(1))
    told = refused(tmp_path / "t", "nam")
    assert isinstance(told, SourceColumnError)
    assert f"The Delta table {tmp_path}/t, version 0 has no column 'nam' (nearest: name)" in str(told)


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
    assert "pip install 'tencent-push-attribute-sync[delta]'" in str(refused(tmp_path / "t"))


def test_a_shallow_clone_reads_the_files_of_its_original(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", people(1, 2))
    actions = delta_actions(tmp_path / "t", 0)
    for action in actions:
        if "add" in action:
            action["add"]["path"] = (tmp_path / "t" / action["add"]["path"]).as_uri()
    commit_delta(tmp_path / "clone", 0, *(action for action in actions if "commitInfo" not in action))
    assert [row["id"] for row in rows(tmp_path / "clone", "id")] == [1, 2]
    shutil.rmtree(tmp_path / "extract")
    shutil.rmtree(tmp_path / "t")
    assert isinstance(refused(tmp_path / "clone"), SourceNotFoundError)


def _file(tmp_path: Path, name: str) -> Path:
    (tmp_path / "t").mkdir(exist_ok=True)
    return tmp_path / "t" / name
