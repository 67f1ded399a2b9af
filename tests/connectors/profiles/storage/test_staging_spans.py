"""Which bytes of a remote file are wanted: all but the pages of columns that nobody asked for."""

import itertools
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.storage import staging
from connectors.profiles.storage.staging import wanted_spans
from tests.object_storage import parquet_bytes
from tests.staged_columns import ASKED, COLUMNS, staged_file


@pytest.fixture(scope="module")
def large() -> bytes:
    return staged_file()


def spans(content: bytes, *columns: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    monkeypatch.setattr(staging, "_BYTES_WORTH_A_REQUEST", 0)
    return wanted_spans(pq.read_metadata(pa.BufferReader(content)), columns=columns, size_bytes=len(content))


def test_everything_but_other_columns_pages_is_wanted(large: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = spans(large, *COLUMNS, monkeypatch=monkeypatch)
    assert everything == [(0, len(large))]
    asked = spans(large, *ASKED, monkeypatch=monkeypatch)
    rest = spans(large, "blob", "nested", monkeypatch=monkeypatch)
    assert asked[0][0] == 0, "the magic bytes"
    assert asked[-1][1] == rest[-1][1] == len(large), "the footer, and what stands before it"
    assert asked == sorted(asked)
    covered = sum(stop - start for start, stop in asked) + sum(stop - start for start, stop in rest)
    assert len(large) < covered < len(large) + 20_000, "every byte is wanted by one of the two, and few by both"


def test_a_footer_whose_sizes_overlap_never_costs_an_asked_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old writers left page headers out of a chunk's size, or gave a wrong start."""
    monkeypatch.setattr(staging, "_BYTES_WORTH_A_REQUEST", 0)

    def chunk(name: str, start: int, length: int) -> SimpleNamespace:
        return SimpleNamespace(
            path_in_schema=name, data_page_offset=start, has_dictionary_page=False, total_compressed_size=length
        )

    chunks = [chunk("other", 4, 600), chunk("asked", 500, 300), chunk("other.two", 790, 100)]
    group = SimpleNamespace(num_columns=3, column=chunks.__getitem__)
    metadata = SimpleNamespace(num_row_groups=1, row_group=lambda _number: group)
    assert wanted_spans(metadata, columns=["asked"], size_bytes=1000) == [(0, 4), (500, 800), (890, 1000)]


def test_short_holes_are_read_over(large: bytes) -> None:
    metadata = pq.read_metadata(pa.BufferReader(large))
    few = wanted_spans(metadata, columns=["user", "level"], size_bytes=len(large))
    for (_, stop), (start, _) in itertools.pairwise(few):
        assert start - stop > 256 * 1024


def test_a_column_whose_name_has_a_point_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    content = parquet_bytes({"a": list(range(9000)), "a.b": list(range(9000)), "c": list(range(9000))})
    wanted = spans(content, "a.b", monkeypatch=monkeypatch)
    chunk = pq.read_metadata(pa.BufferReader(content)).row_group(0).column(1)
    assert chunk.path_in_schema == "a.b"
    assert any(start <= chunk.dictionary_page_offset and chunk.data_page_offset < stop for start, stop in wanted)
