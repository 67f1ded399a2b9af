"""The newest time of a column by Parquet's statistics, and no answer where they do not tell it for every row."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.footers import newest_in_footers
from connectors.profiles.partitions import read_partitions

OLD, NEW = datetime(2026, 11, 20, 2), datetime(2026, 11, 21, 3, 4, 5)
IN_UTC = NEW.replace(tzinfo=UTC)


def newest(folder: Path, *, column: str = "at") -> datetime | None:
    return newest_in_footers(read_partitions(str(folder), columns=["user", column], base=folder), column)


def write(folder: Path, values: Sequence[Any], kind: pa.DataType, *, name: str = "a", **options: Any) -> None:
    columns = {
        "user": pa.array([f"用户{number}" for number in range(len(values))], pa.string()),
        "at": pa.array(values, kind),
    }
    pq.write_table(pa.table(columns), folder / f"{name}.parquet", **options)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Shanghai"])
def test_times_of_every_unit_are_told_in_utc(tmp_path: Path, unit: str, zone: str | None) -> None:
    write(tmp_path, [NEW.replace(tzinfo=UTC if zone else None), None, OLD], pa.timestamp(unit, zone), row_group_size=1)
    found = newest(tmp_path)
    assert found == IN_UTC
    assert found.utcoffset() == timedelta()


def test_a_zone_in_the_values_is_reckoned_with(tmp_path: Path) -> None:
    shanghai = timezone(timedelta(hours=8))
    write(tmp_path, [NEW.replace(tzinfo=shanghai)], pa.timestamp("us", "+08:00"))
    assert newest(tmp_path) == IN_UTC - timedelta(hours=8)


def test_a_date_counts_as_its_beginning(tmp_path: Path) -> None:
    write(tmp_path, [date(2026, 11, 20), date(2026, 11, 21)], pa.date32())
    assert newest(tmp_path) == datetime(2026, 11, 21, tzinfo=UTC)


def test_the_newest_of_all_files_and_row_groups_counts(tmp_path: Path) -> None:
    write(tmp_path, [OLD, NEW, OLD], pa.timestamp("us"), name="a", row_group_size=1)
    write(tmp_path, [OLD], pa.timestamp("us"), name="b")
    write(tmp_path, [None], pa.timestamp("us"), name="c")
    write(tmp_path, [], pa.timestamp("us"), name="d")
    assert newest(tmp_path) == IN_UTC


@pytest.mark.parametrize(
    ("values", "kind", "options"),
    [
        ([NEW], pa.timestamp("us"), {"write_statistics": False}),
        ([NEW], pa.timestamp("us"), {"write_statistics": ["user"]}),
        ([NEW], pa.timestamp("ns"), {"use_deprecated_int96_timestamps": True}),
        (["2026-11-21T03:04:05Z"], pa.string(), {}),
        ([1_795_000_000], pa.int64(), {}),
        ([300_000_000_000_000_000], pa.timestamp("us"), {}),
        ([None], pa.timestamp("us"), {}),
        ([], pa.timestamp("us"), {}),
    ],
    ids=[
        "none",
        "of another column",
        "int96",
        "text, which is shortened",
        "a number",
        "year 11476",
        "nulls",
        "no rows",
    ],
)
def test_nothing_is_told_where_something_is_open(
    tmp_path: Path, values: list[Any], kind: pa.DataType, options: dict[str, Any]
) -> None:
    write(tmp_path, values, kind, **options)
    assert newest(tmp_path) is None


def test_one_file_without_statistics_leaves_all_open(tmp_path: Path) -> None:
    write(tmp_path, [OLD], pa.timestamp("us"), name="a")
    write(tmp_path, [NEW], pa.timestamp("us"), name="b", write_statistics=False)
    assert newest(tmp_path) is None


def test_a_file_that_lacks_the_column_leaves_nothing_open(tmp_path: Path) -> None:
    write(tmp_path, [NEW], pa.timestamp("us"), name="a")
    pq.write_table(pa.table({"user": ["u"]}), tmp_path / "b.parquet")
    assert newest(tmp_path) == IN_UTC


def test_a_column_behind_a_nested_one_is_found(tmp_path: Path) -> None:
    """Statistics stand per leaf: the place in the schema is another one."""
    table = pa.table({"user": ["u"], "tags": [{"at": OLD, "b": 1}], "at": pa.array([NEW], pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert newest(tmp_path) == IN_UTC


def test_a_partitions_date_is_told_by_its_folder(tmp_path: Path) -> None:
    for day in (20, 21):
        (tmp_path / f"at=2026-11-{day}").mkdir()
        pq.write_table(pa.table({"user": ["u"]}), tmp_path / f"at=2026-11-{day}" / "a.parquet")
    assert newest(tmp_path) == datetime(2026, 11, 21, tzinfo=UTC)
