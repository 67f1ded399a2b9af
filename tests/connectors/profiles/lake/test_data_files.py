"""Rows of one data file: without the deleted ones, and never much of the file in memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.lake import data_files
from connectors.profiles.lake.data_files import live_rows, open_data_file

ROWS = 1_000_000


def test_a_batch_without_columns_has_its_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(10)}), tmp_path / "f.parquet", row_group_size=4)
    with pa.OSFile(str(tmp_path / "f.parquet")) as handle:
        batches = list(live_rows(open_data_file(handle), [], deleted=np.array([0, 3, 9])))
    assert [batch.num_rows for batch in batches] == [2, 4, 1]
    assert {batch.num_columns for batch in batches} == {0}


@pytest.fixture(scope="module")
def one_group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 48 MB in one row group that no compression makes smaller."""
    path = tmp_path_factory.mktemp("large") / "f.parquet"
    draws = np.random.default_rng(1)
    columns = {name: draws.integers(0, 2**62, ROWS) for name in "abcdef"}
    pq.write_table(pa.table(columns), path, row_group_size=ROWS, use_dictionary=False, compression="none")
    return path


def most_in_memory(path: Path) -> int:
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    with pa.OSFile(str(path)) as handle:
        for batch in live_rows(open_data_file(handle), list("abcdef"), deleted=None):
            rows += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before)
    assert rows == ROWS
    return most


def test_a_large_row_group_is_never_in_memory_as_a_whole(one_group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "_BYTES_PER_PIECE", 1024 * 1024)
    fetched_ahead = most_in_memory(one_group)
    monkeypatch.setattr(data_files, "_BYTES_AHEAD", 1024 * 1024)
    assert most_in_memory(one_group) < 20_000_000
    assert fetched_ahead > 40_000_000
