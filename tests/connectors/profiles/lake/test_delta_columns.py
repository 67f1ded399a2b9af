"""A Delta table's columns: each value as the table means it, whatever its files are like."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import SourceColumnError
from tests.delta_reads import file_of, people, refused, rows, table
from tests.lake_tables import added, commit_delta, delta_field, delta_metadata, protocol, write_delta


@pytest.mark.parametrize("mode", ["name", "id"])
def test_renamed_columns_are_found_by_what_the_files_call_them(tmp_path: Path, mode: str) -> None:
    ids = {"col-a": "1", "col-b": "2"} if mode == "name" else {"of old": "1", "another": "2"}
    schema = pa.schema(
        [pa.field(name, kind, metadata={"PARQUET:field_id": number}) for (name, number), kind in
         zip(ids.items(), (pa.int64(), pa.string()), strict=True)]
    )  # fmt: skip
    pq.write_table(pa.table([[1, 2], ["x", "y"]], schema=schema), file_of(tmp_path, "a.parquet"))

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
    pq.write_table(pa.table(old), file_of(tmp_path, "a.parquet"))
    pq.write_table(pa.table(new), file_of(tmp_path, "b.parquet"))
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
    file = file_of(tmp_path, "a.parquet")
    pq.write_table(pa.table({"at": moments}), file, use_deprecated_int96_timestamps=True)
    metadata = delta_metadata([delta_field("at", "timestamp")])
    commit_delta(tmp_path / "t", 0, protocol(), metadata, added(file, tmp_path / "t"))
    found = [row["at"] for row in rows(tmp_path / "t", "at")]
    assert found == [datetime(9999, 12, 31, 1, tzinfo=UTC), datetime(1600, 2, 3, tzinfo=UTC)]


def test_a_column_that_the_files_spell_in_other_letters_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ID": [1]}), file_of(tmp_path, "a.parquet"))
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
