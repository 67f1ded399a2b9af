import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.profiles.errors import (
    SourceChangedError,
    SourceColumnError,
    SourceNotFoundError,
    SourceUnreadableError,
)
from connectors.profiles.parquet import Manifest, MissingColumn, check_unchanged, read_manifest

PROFILES = pa.table({"user_id": ["u1", "u2"], "city": ["上海", None], "level": pa.array([1, 2], pa.int32())})


def write(path: Path, table: pa.Table = PROFILES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def names(manifest: Manifest, folder: Path) -> list[str]:
    return [str(Path(file.path).relative_to(folder)) for file in manifest.files]


def test_a_file_gives_its_rows_size_time_and_schema(tmp_path: Path) -> None:
    path = write(tmp_path / "profiles.parquet")
    manifest = read_manifest(str(path), columns=None, base=tmp_path)
    assert [file.path for file in manifest.files] == [str(path)]
    assert (manifest.rows, manifest.bytes) == (2, path.stat().st_size)
    assert manifest.files[0].modified_ns == path.stat().st_mtime_ns
    assert manifest.schema.equals(PROFILES.schema)


def test_only_the_named_columns_are_in_the_schema_each_once(tmp_path: Path) -> None:
    write(tmp_path / "p.parquet")
    manifest = read_manifest("p.parquet", columns=["level", "user_id", "level"], base=tmp_path)
    assert manifest.schema.names == ["level", "user_id"]


def test_relative_paths_start_at_the_base_not_at_the_working_folder(tmp_path: Path) -> None:
    write(tmp_path / "data" / "p.parquet")
    assert names(read_manifest("p.parquet", columns=None, base=tmp_path / "data"), tmp_path) == ["data/p.parquet"]


def test_globs_and_folders_are_sorted_and_a_list_keeps_its_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.parquet")
    for source in ("*.parquet", "**/*.parquet", ".", str(tmp_path), "**"):
        manifest = read_manifest(source, columns=None, base=tmp_path)
        assert names(manifest, tmp_path) == ["a.parquet", "b.parquet", "c.parquet"]
    manifest = read_manifest(["c.parquet", "[ab].parquet"], columns=None, base=tmp_path)
    assert names(manifest, tmp_path) == ["c.parquet", "a.parquet", "b.parquet"]


def test_a_file_that_is_named_twice_counts_once_also_through_a_link(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "a.parquet")
    manifest = read_manifest(["a.parquet", "./a.parquet", "*.parquet"], columns=None, base=tmp_path)
    assert names(manifest, tmp_path) == ["a.parquet"]


def test_folders_are_read_below_through_links_and_for_parquet_alone(tmp_path: Path) -> None:
    write(tmp_path / "lake" / "day=1" / "a.parquet")
    write(tmp_path / "elsewhere" / "b.parquet")
    (tmp_path / "lake" / "day=2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lake" / "README.txt").write_text("not data")
    manifest = read_manifest("lake", columns=None, base=tmp_path)
    assert names(manifest, tmp_path) == ["lake/day=1/a.parquet", "lake/day=2/b.parquet"]


def test_a_glob_may_match_folders_that_end_in_parquet(tmp_path: Path) -> None:
    write(tmp_path / "night.parquet" / "part-0.parquet")
    (tmp_path / "empty.parquet").mkdir()
    assert names(read_manifest("*.parquet", columns=None, base=tmp_path), tmp_path) == ["night.parquet/part-0.parquet"]


def test_what_a_writer_sets_aside_is_no_source_unless_it_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    write(tmp_path / "_temporary" / "0" / "half.parquet")
    write(tmp_path / ".hidden.parquet")
    for source in (".", "*.parquet", "**/*.parquet"):
        assert names(read_manifest(source, columns=None, base=tmp_path), tmp_path) == ["a.parquet"]
    named = read_manifest("_temp*/**/*.parquet", columns=None, base=tmp_path)
    assert names(named, tmp_path) == ["_temporary/0/half.parquet"]


def test_the_set_aside_rule_does_not_look_at_folders_above_the_source(tmp_path: Path) -> None:
    write(tmp_path / "_work" / "a.parquet")
    assert read_manifest("*.parquet", columns=None, base=tmp_path / "_work").rows == 2


def test_a_name_with_brackets_can_be_given_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "night [1]" / "a.parquet")
    assert read_manifest("night [1]/a.parquet", columns=None, base=tmp_path).rows == 2
    assert read_manifest("night [1]", columns=None, base=tmp_path).rows == 2


@pytest.mark.parametrize("source", ["nope.parquet", "nope/*.parquet", "empty", [], "", "  "])
def test_nothing_to_read_is_an_error_that_names_the_source(tmp_path: Path, source: str | list[str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError) as caught:
        read_manifest(source, columns=None, base=tmp_path)
    assert not source or str(source).strip() in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"not parquet at all, a CSV perhaps", b"PAR1" + b"\0" * 40 + b"PAR1"]
)
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(content)
    with pytest.raises(SourceUnreadableError, match=r"b\.parquet is not a readable Parquet file"):
        read_manifest("*.parquet", columns=None, base=tmp_path)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_file_cut_off_anywhere_is_unreadable(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    folder = tmp_path_factory.mktemp("cut")
    content = write(folder / "a.parquet").read_bytes()
    (folder / "a.parquet").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SourceUnreadableError, match=r"a\.parquet"):
        read_manifest("a.parquet", columns=None, base=folder)


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    write(tmp_path / "a.parquet")
    monkeypatch.setattr(pq, "ParquetFile", refuse)  # the tests may run as root, whom no permission stops
    with pytest.raises(SourceUnreadableError, match=r"a\.parquet may not be read"):
        read_manifest("a.parquet", columns=None, base=tmp_path)


def test_missing_columns_are_all_named_with_the_nearest_names_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    with pytest.raises(SourceColumnError, match=r"'ctiy' \(nearest: city\); 'User_ID' \(nearest: user_id\)") as caught:
        read_manifest("a.parquet", columns=["level", "ctiy", "User_ID"], base=tmp_path)
    assert caught.value.columns == ("ctiy", "User_ID")
    assert caught.value.where == str(path)
    with pytest.raises(SourceColumnError, match="its columns: user_id, city, level"):
        read_manifest("a.parquet", columns=["zzzzzz"], base=tmp_path)


def test_a_column_that_some_files_lack_is_kept_and_told_with_files_and_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", PROFILES.drop_columns(["city", "level"]))
    write(tmp_path / "b.parquet")
    write(tmp_path / "c.parquet", pa.concat_tables([PROFILES.drop_columns("city")] * 3))
    manifest = read_manifest("*.parquet", columns=["user_id", "city", "level"], base=tmp_path)
    assert manifest.schema.equals(PROFILES.schema)
    assert [file.schema.names for file in manifest.files] == [
        ["user_id"],
        ["user_id", "city", "level"],
        ["user_id", "level"],
    ]
    first = str(tmp_path / "a.parquet")
    assert manifest.missing() == [MissingColumn("city", 2, 8, first), MissingColumn("level", 1, 2, first)]
    assert read_manifest("*.parquet", columns=["user_id"], base=tmp_path).missing() == []


def test_a_column_that_no_file_has_is_missing_also_beside_one_that_some_have(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", PROFILES.drop_columns("city"))
    write(tmp_path / "b.parquet")
    with pytest.raises(SourceColumnError, match=r"a\.parquet has no column 'ctiy'") as caught:
        read_manifest("*.parquet", columns=["user_id", "city", "ctiy"], base=tmp_path)
    assert caught.value.columns == ("ctiy",)


def test_a_column_in_other_letters_in_one_file_is_not_missing_but_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    path = write(tmp_path / "b.parquet", PROFILES.rename_columns(["user_id", "City", "level"]))
    with pytest.raises(
        SourceColumnError, match=r"b\.parquet has a column 'City' where other files have 'city'"
    ) as caught:
        read_manifest("*.parquet", columns=["user_id", "city"], base=tmp_path)
    assert (caught.value.columns, caught.value.where) == (("city",), str(path))
    assert read_manifest("*.parquet", columns=["user_id"], base=tmp_path).rows == 4


def test_a_column_of_several_widths_has_the_type_that_holds_all(tmp_path: Path) -> None:
    for name, kind in (("a", pa.uint8()), ("b", pa.int8()), ("c", pa.int32()), ("d", pa.uint8())):
        write(tmp_path / f"{name}.parquet", PROFILES.set_column(2, "level", PROFILES["level"].cast(kind)))
    manifest = read_manifest("*.parquet", columns=["level"], base=tmp_path)
    assert manifest.schema.field("level").type == pa.int32()
    assert [str(file.schema.field("level").type) for file in manifest.files] == ["uint8", "int8", "int32", "uint8"]


def test_of_three_types_the_two_that_do_not_fit_are_named(tmp_path: Path) -> None:
    for name, kind in (("a", pa.uint8()), ("b", pa.int8()), ("c", pa.uint64())):
        write(tmp_path / f"{name}.parquet", PROFILES.set_column(2, "level", PROFILES["level"].cast(kind)))
    with pytest.raises(SourceColumnError, match=r"'level' is int8 in .*b\.parquet and uint64 in .*c\.parquet"):
        read_manifest("*.parquet", columns=["level"], base=tmp_path)


def test_columns_that_differ_by_case_alone_are_refused_when_one_is_wanted(tmp_path: Path) -> None:
    # DuckDB reads both as the first one: the value of another column would be sent.
    write(tmp_path / "a.parquet", pa.table({"City": ["x"], "city": ["y"], "user_id": ["u"]}))
    with pytest.raises(SourceColumnError, match="'city' more than once"):
        read_manifest("a.parquet", columns=["user_id", "city"], base=tmp_path)
    assert read_manifest("a.parquet", columns=["user_id"], base=tmp_path).rows == 1


def test_a_type_that_differs_between_files_names_both_files_and_types(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", PROFILES.set_column(2, "level", pa.array(["1", "2"])))
    with pytest.raises(SourceColumnError, match=r"'level' is int32 in .*a\.parquet and string in .*b\.parquet"):
        read_manifest("*.parquet", columns=["user_id", "level"], base=tmp_path)
    assert read_manifest("*.parquet", columns=["user_id", "city"], base=tmp_path).rows == 4


@pytest.mark.parametrize(
    "layout", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_text_in_another_arrow_layout_is_the_same_type(tmp_path: Path, layout: pa.DataType) -> None:
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", PROFILES.set_column(1, "city", PROFILES["city"].cast(layout)))
    assert read_manifest("*.parquet", columns=None, base=tmp_path).rows == 4


def test_an_unchanged_source_passes(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    check_unchanged(read_manifest("a.parquet", columns=None, base=tmp_path))


def test_a_changed_size_a_changed_time_and_a_vanished_file_are_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    manifest = read_manifest("a.parquet", columns=None, base=tmp_path)
    content, status = path.read_bytes(), path.stat()

    path.write_bytes(content + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(SourceChangedError, match=r"a\.parquet changed"):
        check_unchanged(manifest)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    with pytest.raises(SourceChangedError, match=r"a\.parquet changed"):
        check_unchanged(manifest)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    check_unchanged(manifest)
    path.unlink()
    with pytest.raises(SourceChangedError, match=r"a\.parquet vanished"):
        check_unchanged(manifest)
