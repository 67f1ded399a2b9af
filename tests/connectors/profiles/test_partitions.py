"""Hive partitions: the newest complete one, one by name, and folders' values as columns with a sensible type."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import SourceColumnError, SourcePartitionError
from connectors.profiles.files import FoundFile, Place
from connectors.profiles.parquet import Manifest
from connectors.profiles.partitions import Choice, Wanted, choose, folder_values, read_partitions

LATEST = Wanted(latest=())


def found(path: str, *, root: str = "/lake") -> FoundFile:
    return FoundFile(Place(f"{root}/{path}", root), 1, 1)


def chosen(
    *paths: str, wanted: Wanted = LATEST, success: Sequence[str] = (), files: Sequence[FoundFile] = ()
) -> Choice:
    times: Mapping[str, int] = {f"/lake/{folder}": 1 for folder in success}
    return choose([*map(found, paths), *files], wanted, success_ns=times.get)


def names(choice: Choice) -> list[str]:
    return [file.path for file in choice.files]


# The newest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("dt=2026-11-20", "dt=2026-11-21"),
        ("dt=9", "dt=10"),
        ("dt=20261009", "dt=20261120"),
        ("hour=08", "hour=10"),
        ("batch=a9", "batch=b1"),
        ("dt=__HIVE_DEFAULT_PARTITION__", "dt=2026-11-21"),
        ("tag=上", "tag=海"),
    ],
)
def test_the_newest_is_told_by_number_date_or_text(older: str, newer: str) -> None:
    for paths in ([older, newer], [newer, older]):
        choice = chosen(*(f"{path}/a.parquet" for path in paths))
        assert (choice.partition, names(choice)) == (newer, [f"/lake/{newer}/a.parquet"])
        assert choice.passed_over == ()


@pytest.mark.parametrize("root", ["/lake", "s3://lake/profiles", "s3://lake", "hdfs://"])
def test_the_newest_and_its_success_are_told_of_addresses_as_of_paths(root: str) -> None:
    files = [found(f"dt={day}/country=de/a.parquet", root=root) for day in (1, 2, 3)]
    for complete in (f"{root}/dt=2", f"{root}/dt=2/country=de"):
        choice = choose(files, Wanted(latest=("dt",)), success_ns={complete: 1, root: 1}.get)
        assert (choice.partition, names(choice)) == ("dt=2", [f"{root}/dt=2/country=de/a.parquet"])
    assert folder_values(files[0].path) == folder_values(files[0].path, below=root) == {"dt": "1", "country": "de"}
    assert folder_values(files[0].path, below=f"{root}/dt=1") == {"country": "de"}


def test_all_files_of_the_newest_are_taken_below_it_as_well() -> None:
    paths = ("dt=1/a.parquet", "dt=2/a.parquet", "dt=2/b.parquet", "dt=2/more/c.parquet")
    assert names(chosen(*paths)) == [f"/lake/{path}" for path in paths[1:]]


def test_several_keys_are_asked_for_and_not_guessed() -> None:
    """By all keys the newest would be the last country alone, by the first the whole year."""
    by_country = ("dt=1/country=de/a.parquet", "dt=2/country=cn/a.parquet", "dt=2/country=de/a.parquet")
    with pytest.raises(
        SourcePartitionError, match=re.escape("partitions by dt and country. Say which tell the newest")
    ):
        chosen(*by_country)
    choice = chosen(*by_country, wanted=Wanted(latest=("dt",)))
    assert (choice.partition, len(choice.files)) == ("dt=2", 2)
    by_day = ("year=2025/month=12/a.parquet", "year=2026/month=9/a.parquet", "year=2026/month=11/a.parquet")
    assert chosen(*by_day, wanted=Wanted(latest=("year", "month"))).partition == "year=2026/month=11"


def test_a_newest_without_success_is_passed_over_where_older_ones_have_it() -> None:
    paths = tuple(f"dt={day}/a.parquet" for day in (1, 2, 3, 4))
    choice = chosen(*paths, success=["dt=1", "dt=2"])
    assert choice.partition == "dt=2"
    assert choice.passed_over == (
        "dt=4: no _SUCCESS, which older ones have",
        "dt=3: no _SUCCESS, which older ones have",
    )
    assert chosen(*paths, success=["dt=4"]).partition == "dt=4"
    assert chosen(*paths).partition == "dt=4", "nobody writes _SUCCESS here"
    assert chosen(*paths, success=["."]).partition == "dt=4", "one above all partitions says nothing of a single one"


def test_success_is_asked_of_every_part_of_a_partition() -> None:
    paths = tuple(f"dt={day}/country={country}/a.parquet" for day in (1, 2) for country in ("cn", "de"))
    latest = Wanted(latest=("dt",))
    assert chosen(*paths, wanted=latest, success=["dt=1", "dt=2/country=cn"]).partition == "dt=1"
    assert chosen(*paths, wanted=latest, success=["dt=1", "dt=2/country=cn", "dt=2/country=de"]).partition == "dt=2"
    assert chosen(*paths, wanted=latest, success=["dt=1", "dt=2"]).partition == "dt=2"


def test_beside_dates_a_folder_of_another_kind_is_not_the_newest() -> None:
    choice = chosen("dt=2026-11-20/a.parquet", "dt=backfill/a.parquet")
    assert (choice.partition, choice.passed_over) == ("dt=2026-11-20", ("dt=backfill: no date, as others are",))


def test_of_several_folders_the_newest_is_one_that_all_have() -> None:
    eu, us = [found(f"dt={day}/a.parquet", root="/eu") for day in (1, 2)], found("dt=1/a.parquet", root="/us")
    choice = chosen(files=[*eu, us])
    assert (choice.partition, choice.passed_over) == ("dt=1", ("dt=2: not in /us yet",))
    assert names(choice) == ["/eu/dt=1/a.parquet", "/us/dt=1/a.parquet"]


def test_where_no_partition_is_complete_the_reasons_are_told() -> None:
    with pytest.raises(SourcePartitionError, match=re.escape("dt=2: not in /us yet; dt=1: not in /eu yet")):
        chosen(files=[found("dt=2/a.parquet", root="/eu"), found("dt=1/a.parquet", root="/us")])


@pytest.mark.parametrize("stray", ["a.parquet", "country=de/a.parquet"])
def test_a_file_outside_the_partitions_is_refused(stray: str) -> None:
    with pytest.raises(SourcePartitionError, match=rf"/lake/{stray} lies in no folder named dt=\.\.\. below /lake"):
        chosen("dt=1/b.parquet", stray, wanted=Wanted(latest=("dt",)))


def test_a_source_without_partitions_has_no_newest() -> None:
    with pytest.raises(SourcePartitionError, match="lies in no folder named key="):
        chosen("a.parquet")


def test_folders_above_the_source_do_not_count_for_the_newest() -> None:
    assert chosen(files=[found("dt=1/a.parquet", root="/env=prod/lake")]).partition == "dt=1"


# By name ------------------------------------------------------------------------------------------------------------


def test_a_partition_is_chosen_by_name() -> None:
    paths = ("dt=1/country=cn/a.parquet", "dt=1/country=de/a.parquet", "dt=2/country=de/a.parquet")
    assert names(chosen(*paths, wanted=Wanted(name="dt=1"))) == [f"/lake/{path}" for path in paths[:2]]
    one = chosen(*paths, wanted=Wanted(latest=("dt",), name="country=de/dt=1/"))
    assert (one.partition, names(one)) == ("country=de/dt=1", ["/lake/dt=1/country=de/a.parquet"])


def test_a_partition_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(SourcePartitionError, match=r"lies in dt=7\. The last of those that are there: dt=1, dt=2\."):
        chosen("dt=1/a.parquet", "dt=2/a.parquet", wanted=Wanted(name="dt=7"))
    with pytest.raises(SourcePartitionError, match=r"No file lies in folders named day=\.\.\."):
        chosen("dt=1/a.parquet", wanted=Wanted(name="day=1"))


def test_the_newests_name_leads_back_to_it() -> None:
    paths = ("place=上海%2F浦东/a.parquet", "place=100%25/a.parquet")
    for path in paths:
        found = chosen(path, wanted=LATEST)
        assert found.partition is not None
        assert names(chosen(*paths, wanted=Wanted(name=found.partition))) == [f"/lake/{path}"]


@pytest.mark.parametrize("name", ["2026-11-20", "", "dt=1/x", "/", "=1"])
def test_what_is_no_partitions_name_is_refused(name: str) -> None:
    with pytest.raises(SourcePartitionError, match="names no partition; write for example dt=2026-11-20"):
        chosen("dt=1/a.parquet", wanted=Wanted(name=name))


# Columns ------------------------------------------------------------------------------------------------------------


def written(folder: Path, path: str, **columns: Any) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"user": ["u1"], **columns}), folder / path)


def read(folder: Path, *columns: str, wanted: Wanted | None = None) -> Manifest:
    return read_partitions(str(folder), columns=columns, base=folder, wanted=wanted or Wanted())


@pytest.mark.parametrize(
    ("folders", "kind", "values"),
    [
        (["k=2026-11-20", "k=__HIVE_DEFAULT_PARTITION__"], pa.date32(), [date(2026, 11, 20), None]),
        (["k=7", "k=-12"], pa.int64(), [-12, 7]),
        (["k=07", "k=12"], pa.string(), ["07", "12"]),
        (["k=7", "k=eu"], pa.string(), ["7", "eu"]),
        (["k=2026-02-30"], pa.string(), ["2026-02-30"]),
        (["k=上海%2F浦东"], pa.string(), ["上海/浦东"]),
        (["k=" + "9" * 30], pa.string(), ["9" * 30]),
        (["k=__HIVE_DEFAULT_PARTITION__"], pa.string(), [None]),
    ],
)
def test_folders_are_columns_whose_type_all_values_fit(
    tmp_path: Path, folders: Sequence[str], kind: pa.DataType, values: Sequence[object]
) -> None:
    for folder in folders:
        written(tmp_path, f"{folder}/a.parquet")
    manifest = read(tmp_path, "k", "user")
    assert manifest.schema == pa.schema([("k", kind), ("user", pa.string())])
    assert manifest.folder_columns is not None
    assert manifest.folder_columns["k"].to_pylist() == values


def test_a_files_own_column_goes_before_a_folder_of_its_name(tmp_path: Path) -> None:
    written(tmp_path, "city=7/a.parquet", city=["Bonn"])
    manifest = read(tmp_path, "user", "city")
    assert manifest.folder_columns is None
    assert manifest.schema.field("city").type == pa.string()


def test_a_column_that_a_later_file_has_itself_is_no_folders(tmp_path: Path) -> None:
    """It is null where a file lacks it, as any column is; a folder's value beside it would be another meaning."""
    written(tmp_path, "city=7/a.parquet")
    written(tmp_path, "city=8/a.parquet", city=["Bonn"])
    manifest = read(tmp_path, "user", "city")
    assert manifest.folder_columns is None
    assert [(missing.column, missing.files) for missing in manifest.missing()] == [("city", 1)]


def test_a_folders_column_is_missing_in_no_file(tmp_path: Path) -> None:
    written(tmp_path, "k=1/a.parquet")
    manifest = read(tmp_path, "k", "user")
    assert (manifest.missing(), manifest.own_columns) == ([], ["user"])


def test_a_folder_whose_name_differs_by_case_alone_is_no_column_beside_the_files_own(tmp_path: Path) -> None:
    written(tmp_path, "City=7/a.parquet", city=["Bonn"])
    with pytest.raises(SourceColumnError, match="has a column 'city' where other files have 'City'"):
        read(tmp_path, "user", "City")


def test_a_folder_that_only_some_files_lie_in_is_no_column(tmp_path: Path) -> None:
    written(tmp_path, "k=1/a.parquet")
    written(tmp_path, "z/a.parquet")
    with pytest.raises(SourceColumnError, match=r"z/a\.parquet has no column 'k' and lies in no folder k=\.\.\."):
        read(tmp_path, "user", "k")
    assert read(tmp_path, "user").rows == 2, "which does no harm where nobody asks for it"


def test_the_manifest_tells_the_partition(tmp_path: Path) -> None:
    for day in (1, 2):
        written(tmp_path, f"dt={day}/a.parquet")
    (tmp_path / "dt=1/_SUCCESS").touch()
    manifest = read(tmp_path, "user", "dt", wanted=LATEST)
    assert manifest.partition == "dt=1"
    assert manifest.passed_over == ("dt=2: no _SUCCESS, which older ones have",)
    assert [file.path for file in manifest.files] == [str(tmp_path / "dt=1/a.parquet")]


def test_of_a_key_that_stands_twice_the_inner_folder_counts() -> None:
    assert folder_values("/k=1/x/k=2/a=b.parquet") == {"k": "2"}
