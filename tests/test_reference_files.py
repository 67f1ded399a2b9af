"""Files that differ, and what tells the newest, in the reference: hand-computed cases."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.reference import Expected, expect

SYNC: dict[str, Any] = {
    "updated_at": "moment",
    "accounts": {
        "user_id": {"column": "user", "attributes": {"city": "city"}},
        "registration_id": {"column": "device", "attributes": {"device_city": "city"}},
    },
}


def expect_files(folder: Path, *files: dict[str, Any]) -> Expected:
    paths = []
    for number, columns in enumerate(files):
        paths.append(folder / f"{number}.parquet")
        pq.write_table(pa.table(columns), paths[-1])
    return expect(paths, SYNC)


def test_a_column_that_a_file_lacks_is_null_there(tmp_path: Path) -> None:
    moment = [datetime(2026, 1, 1, tzinfo=UTC)]
    expected = expect_files(
        tmp_path,
        {"user": ["u1"], "city": ["Bonn"], "moment": moment, "new": [1]},
        {"device": ["d1"], "moment": moment},
    )
    assert expected.attributes == {"u1": {"city": "Bonn"}}
    assert [counts.without_account for counts in expected.counts.values()] == [1, 1]
    assert expected.failed_rows == []


@pytest.mark.parametrize(("other", "newest"), [(pa.timestamp("ns", "UTC"), "a"), (pa.timestamp("us", "UTC"), "b")])
def test_nanoseconds_count_where_every_file_has_them(tmp_path: Path, other: pa.DataType, newest: str) -> None:
    fine = pa.array([1_000_000_999, 1_000_000_001], pa.timestamp("ns", "UTC"))
    coarse = pa.array([1], other)
    two = {"user": ["u1", "u1"], "city": ["a", "b"], "device": [None, None], "moment": fine}
    expected = expect_files(tmp_path, two, {"user": ["u2"], "city": ["c"], "device": ["d2"], "moment": coarse})
    assert expected.attributes["u1"] == {"city": newest}


def test_what_is_no_finite_number_is_older_than_all_numbers(tmp_path: Path) -> None:
    moments = [float("nan"), -5.0, float("inf")]
    expected = expect_files(
        tmp_path, {"user": ["u1"] * 3, "city": ["a", "b", "c"], "device": [None] * 3, "moment": moments}
    )
    assert expected.attributes["u1"] == {"city": "b"}
