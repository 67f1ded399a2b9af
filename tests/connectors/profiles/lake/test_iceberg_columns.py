"""An Iceberg table's columns: each value as the table means it, whatever its files are like."""

import json
import shutil
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, DoubleType, IntegerType, LongType, NestedField, StringType, UUIDType

from connectors.profiles.errors import ProfilesError, SourceColumnError
from tests.iceberg_reads import NAME, files_of, people, refused, rows, table
from tests.lake_tables import open_catalog, write_iceberg


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(tmp_path / "lake")


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


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
