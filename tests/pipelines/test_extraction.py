"""A source becomes a manifest whose columns fit the mapping, or an error that leads to the YAML's line."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from connectors.profiles.errors import SourceNotFoundError, SourceUnreadableError, WarehouseError
from connectors.profiles.parquet import Manifest, read_manifest
from pipelines.errors import ConfigurationError
from pipelines.extraction import explained, extract_profiles
from pipelines.mapping import mapping_from

YAML = """\
type: pipelines.attribute_sync.AttributeSync
attributes:
  source: {parquet: profiles/*.parquet}
  accounts:
    user_id:
      column: user
      attributes:
        city: town
        note: town
        level: level
"""
ROWS = {"user": ["u1", "u2"], "town": ["Bonn", "上海"], "level": [1, 2], "unused": [b"x", b"y"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "defs.yaml").write_text(YAML, encoding="utf-8")
    return tmp_path


def write(folder: Path, rows: dict[str, Any], name: str = "part-0.parquet") -> Path:
    path = folder / "profiles" / name
    pq.write_table(pa.table(rows), path)
    return path


def extracted(folder: Path, *, source: dict[str, Any] | None = None, heard: list[int] | None = None) -> Manifest:
    attributes = yaml.safe_load(YAML)["attributes"]
    if source:
        attributes["source"] = source
    return extract_profiles(
        mapping_from(attributes),
        base=folder,
        destination=folder / "extracted",
        yaml_file=folder / "defs.yaml",
        memory_limit="500MB",
        on_rows=(heard if heard is not None else []).append,
    )


def warehouse(folder: Path, query: str = "select * from profiles") -> dict[str, Any]:
    file = folder / "lake.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            "create or replace table profiles as select * from (values ('u1', 'Bonn', 1)) t(user, town, level)"
        )
    return {"warehouse": {"uri": f"duckdb:///{file}", "query": query}}


# Parquet ------------------------------------------------------------------------------------------------------------


def test_parquet_is_used_where_it_lies_and_only_the_named_columns(folder: Path) -> None:
    path = write(folder, ROWS)
    manifest = extracted(folder)
    assert [file.path for file in manifest.files] == [str(path)]
    assert manifest.schema.names == ["user", "town", "level"]
    assert manifest.rows == 2
    assert not (folder / "extracted").exists()


def test_a_missing_column_is_told_with_the_file_the_nearest_name_and_each_line(folder: Path) -> None:
    path = write(folder, {"user": ["u1"], "Town": ["Bonn"], "level": [1]})
    with pytest.raises(ConfigurationError) as caught:
        extracted(folder)
    text = str(caught.value)
    assert f"{path} has no column 'town' (nearest: Town)" in text
    assert text.endswith(f"Named in {folder}/defs.yaml:8, {folder}/defs.yaml:9.")


def test_a_column_that_only_a_later_file_lacks_is_null_there(folder: Path) -> None:
    write(folder, ROWS)
    write(folder, {"user": ["u1"], "town": ["Bonn"]}, "part-1.parquet")
    manifest = extracted(folder)
    assert [(each.column, each.files, each.rows) for each in manifest.missing()] == [("level", 1, 1)]
    assert explained(manifest) is None


def test_a_column_that_every_file_must_have_is_told_with_its_line(folder: Path) -> None:
    write(folder, ROWS)
    path = write(folder, {"town": ["Bonn"], "level": [1]}, "part-1.parquet")
    with pytest.raises(ConfigurationError, match=rf"defs\.yaml:6: {path} has no column 'user', which other files"):
        extracted(folder)


def test_a_column_of_two_types_is_told_with_both_files_and_the_line(folder: Path) -> None:
    first = write(folder, ROWS)
    second = write(folder, {**ROWS, "level": ["one", "two"]}, "part-1.parquet")
    with pytest.raises(ConfigurationError) as caught:
        extracted(folder)
    assert f"Column 'level' is int64 in {first} and string in {second}." in str(caught.value)
    assert str(caught.value).endswith(f"Named in {folder}/defs.yaml:10.")


def test_a_type_that_has_no_text_is_told_before_any_row_is_read(folder: Path) -> None:
    write(folder, {**ROWS, "level": [[1], [2]]})
    with pytest.raises(
        ConfigurationError, match=r"defs\.yaml:10: column 'level' is list<.*> *, which has no canonical"
    ):
        extracted(folder)


def test_a_source_that_is_not_there_and_one_that_is_no_parquet_are_the_sources_own_errors(folder: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"profiles/\*\.parquet"):
        extracted(folder)
    (folder / "profiles" / "part-0.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(SourceUnreadableError, match=r"part-0\.parquet"):
        extracted(folder)


# Warehouses ---------------------------------------------------------------------------------------------------------


def test_a_warehouses_answer_is_streamed_to_the_destination(folder: Path) -> None:
    heard: list[int] = []
    manifest = extracted(folder, source=warehouse(folder), heard=heard)
    assert manifest.rows == 1
    assert all(Path(file.path).is_relative_to(folder / "extracted") for file in manifest.files)
    assert pq.read_table(manifest.files[0].path).to_pylist() == [{"user": "u1", "town": "Bonn", "level": 1}]
    assert heard[-1] == 1


def test_a_table_stands_for_the_query_of_all_its_rows(folder: Path) -> None:
    source = warehouse(folder)["warehouse"] | {"table": "main.profiles"}
    del source["query"]
    manifest = extracted(folder, source={"warehouse": source})
    assert pq.read_table(manifest.files[0].path).to_pylist() == [{"user": "u1", "town": "Bonn", "level": 1}]
    source["table"] = "{{ env.A_TABLE_THAT_NOBODY_NAMED }}"
    with pytest.raises(ConfigurationError, match=r"\{\{ env.A_TABLE_THAT_NOBODY_NAMED \}\} has no value"):
        extracted(folder, source={"warehouse": source})


def test_a_column_that_the_query_lacks_is_told_with_its_lines(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'town'.*defs\.yaml:8, .*defs\.yaml:9\."):
        extracted(folder, source=warehouse(folder, "select user, level from profiles"))
    assert not (folder / "extracted").exists()


def test_a_query_that_the_warehouse_refuses_is_the_warehouses_error(folder: Path) -> None:
    with pytest.raises(WarehouseError, match=r"defs\.yaml:3: .* refused the query: .*nowhere"):
        extracted(folder, source=warehouse(folder, "select nonsense from nowhere"))


# Damage behind a whole footer ---------------------------------------------------------------------------------------


def test_a_file_whose_pages_are_damaged_is_found_with_its_column_and_no_value(folder: Path) -> None:
    write(folder, ROWS, "a.parquet")
    path = folder / "profiles" / "b.parquet"
    pq.write_table(pa.table({"user": ["u1"], "town": ["geheim" * 50], "level": [1]}), path, use_dictionary=False)
    chunk = pq.read_metadata(path).row_group(0).column(1)
    content = bytearray(path.read_bytes())
    start = chunk.data_page_offset
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    manifest = read_manifest(
        [str(folder / "profiles" / name) for name in ("a.parquet", "b.parquet")],
        columns=["user", "town", "level"],
        base=folder,
    )
    found = explained(manifest)
    assert isinstance(found, SourceUnreadableError)
    assert str(found).startswith(f"{path}: column 'town' cannot be read; the file is damaged.")
    assert "geheim" not in str(found)


def test_whole_files_are_not_blamed(folder: Path) -> None:
    path = write(folder, ROWS)
    assert explained(read_manifest(str(path), columns=["user", "town"], base=folder)) is None
