"""The engine stays within its memory, spills, leaves no half file, and never repeats a value when it fails."""

import os
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.engine import ROW_NUMBER, Engine, file_list, identifier, quoted
from pipelines.errors import DataFolderError, EngineError

SMALL_MEMORY = "100MB"
ROWS = 1_500_000  # about 60 MB as a table, more than the limit leaves for a sort of them


def texts(engine: Engine, rows: int = ROWS) -> ir.Table:
    return engine.define("texts", f"SELECT range AS number, md5(range::VARCHAR) AS text FROM range({rows})")


# Memory -------------------------------------------------------------------------------------------------------------


def test_a_sort_larger_than_the_memory_spills_beside_the_database_and_succeeds(tmp_path: Path) -> None:
    with Engine(tmp_path, memory_limit=SMALL_MEMORY) as engine:
        rows = texts(engine)
        rank = ibis.row_number().over(order_by=rows.text)
        ranked = engine.materialize("ranked", rows.select("number", "text", wide=rows.text.repeat(3), rank=rank))
        assert (tmp_path / "spill").is_dir()
        first = engine.rows(ranked.filter(ranked["rank"] == 0).select("text"))
        assert engine.rows(rows.aggregate(least=rows.text.min())) == [{"least": first[0]["text"]}]


def test_what_cannot_spill_fails_with_the_remedy(tmp_path: Path) -> None:
    with Engine(tmp_path, memory_limit=SMALL_MEMORY) as engine:
        rows = texts(engine)
        with pytest.raises(EngineError) as caught:
            engine.materialize("gathered", rows.aggregate(all=rows.text.collect()))
    assert str(caught.value) == (
        "the engine ran out of memory while computing gathered; raise ATTRIBUTE_SYNC_MEMORY (for example to 2GB) "
        "or free disk space for its temporary area, then run again"
    )


def test_the_limit_is_in_force(tmp_path: Path) -> None:
    with Engine(tmp_path, memory_limit="300MB") as engine:
        (row,) = engine.rows(engine.define("limit", "SELECT current_setting('memory_limit') AS memory"))
    assert row["memory"] == "286.1 MiB"


# Files --------------------------------------------------------------------------------------------------------------


def test_a_written_file_has_its_rows_its_metadata_and_bounded_row_groups(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "it's here" / "rows.parquet"
    written = engine.write_parquet(texts(engine, 250_000), path, metadata={"it's": 'a "b" c', "n": "1"})
    metadata = pq.read_metadata(path)
    assert written == metadata.num_rows == 250_000
    assert metadata.num_row_groups >= 2
    assert metadata.metadata[b"it's"] == b'a "b" c'
    assert [file.name for file in path.parent.iterdir()] == ["rows.parquet"]


def test_rows_are_numbered_by_their_place_in_the_file(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "account_type=user_id" / "rows.parquet"
    engine.write_parquet(texts(engine, 250_000).drop("number"), path)
    numbered = engine.numbered_parquet("numbered", path)
    assert sorted(numbered.columns) == [ROW_NUMBER, "text"]
    first = pq.read_table(path)
    (found,) = engine.rows(numbered.filter(numbered[ROW_NUMBER] == 249_999))
    assert found["text"] == first["text"][249_999].as_py()


def test_a_folders_name_is_no_column(engine: Engine, tmp_path: Path) -> None:
    """`account_type=user_id/` is our own layout, not a partition."""
    path = tmp_path / "account_type=user_id" / "rows.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"account": ["u"]}), path)
    assert engine.parquet("plain", path).columns == ("account",)


def test_a_full_disk_says_so_and_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    (tmp_path / f".rows.parquet.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(
        DataFolderError,
        match=r"No space left on the data folder's disk, .* while writing .*; free space or point ATTRIBUTE_SYNC",
    ):
        engine.write_parquet(texts(engine, 200_000), path)
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_fails_leaves_the_old_file(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    engine.write_parquet(texts(engine, 3), path)
    failing = engine.define("failing", "SELECT error('secret') AS x FROM range(3)")
    with pytest.raises(EngineError):
        engine.write_parquet(failing, path)
    assert pq.read_metadata(path).num_rows == 3
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


# Errors -------------------------------------------------------------------------------------------------------------


def test_the_engines_own_words_are_not_passed_on(engine: Engine) -> None:
    """They quote the value that they failed on."""
    profiles = engine.register("profiles", pa.table({"text": ["secret-value"]}))
    for step in (
        lambda: engine.rows(profiles.select(number=profiles.text.cast("int64"))),
        lambda: engine.materialize("numbers", profiles.select(number=profiles.text.cast("int64"))),
    ):
        with pytest.raises(EngineError) as caught:
            step()
        assert "secret" not in str(caught.value)
        assert "ConversionException" in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_a_file_that_is_gone_or_damaged_is_named(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"gone\.parquet"):
        engine.parquet("gone", tmp_path / "gone.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(EngineError, match=r"damaged\.parquet"):
        engine.parquet("damaged", tmp_path / "damaged.parquet")


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="opening its database"):
        Engine(tmp_path / "none", memory_limit="1GB")


# Values and names ---------------------------------------------------------------------------------------------------


def test_times_are_read_in_utc_whatever_the_machines_zone(engine: Engine) -> None:
    (row,) = engine.rows(engine.define("zone", "SELECT current_setting('TimeZone') AS zone"))
    assert row["zone"] == "UTC"


def test_a_table_is_computed_once_and_replaced_by_name(engine: Engine) -> None:
    drawn = engine.materialize("drawn", engine.define("draw", "SELECT random() AS x"))
    assert engine.rows(drawn) == engine.rows(drawn)
    again = engine.materialize("drawn", engine.define("draw", "SELECT 'text' AS y"))
    assert engine.rows(again) == [{"y": "text"}]


def test_quotes_in_texts_and_names_end_nothing() -> None:
    assert quoted("it's") == "'it''s'"
    assert identifier('a "b"') == '"a ""b"""'
    assert file_list(["a'b", "c"]) == "['a''b', 'c']"


@pytest.mark.parametrize("name", ["a[1]", "a?", "a*", "a[!x]", "[a-z]1", "{a,b}", "[[]", "**"])
def test_a_name_that_looks_like_a_pattern_is_one_file(engine: Engine, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    for each in (folder, tmp_path / "a1"):
        each.mkdir()
        for stem in (name, "a1", "b1"):
            pq.write_table(pa.table({"place": [f"{each.name}/{stem}"]}), each / f"{stem}.parquet")
    file = folder / f"{name}.parquet"
    assert engine.rows(engine.parquet("one", file)) == [{"place": f"{name}/{name}"}]
    assert engine.rows(engine.numbered_parquet("one", file)) == [{"place": f"{name}/{name}", ROW_NUMBER: 0}]
    sources = engine.define("sources", f"SELECT place, filename FROM read_parquet({file_list([str(file)])})")
    assert engine.rows(sources) == [{"place": f"{name}/{name}", "filename": str(file)}]
