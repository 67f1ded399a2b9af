"""Batches of Arrow rows -> the Parquet files of an extract, with bounded memory; whatever the batches come from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.extract_folder import disk_faults

ROWS_PER_FILE = 1_000_000
_ROWS_PER_GROUP = 122_880  # what DuckDB reads best: one of its own row groups
_BYTES_PER_GROUP = 32 * 1024 * 1024  # in memory; what bounds an extract of very wide rows


def write_parts(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    folder: Path,
    *,
    rows_per_file: int,
    on_rows: Callable[[int], object] | None,
) -> None:
    """`part-00000.parquet`, ... in the order of the batches; one without rows when there are none.

    A file ends with the row group that fills `rows_per_file`. `on_rows` hears the number of rows so far after each row
    group. Raises ExtractNotWrittenError, and whatever the batches raise.
    """
    groups = _row_groups(batches, schema, most_rows=min(_ROWS_PER_GROUP, rows_per_file))
    group = next(groups, None)
    rows = part = 0
    while group is not None or part == 0:
        rows_in_file = 0
        with _writer(folder / f"part-{part:05}.parquet", schema) as write:
            while group is not None and rows_in_file < rows_per_file:
                write(group)
                rows_in_file += group.num_rows
                rows += group.num_rows
                if on_rows is not None:
                    on_rows(rows)
                group = next(groups, None)
        part += 1


def _row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema, *, most_rows: int) -> Iterator[pa.Table]:
    """Batches put together to a size that is read well and still held in memory, whatever the driver's batches are."""
    gathered: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        gathered.append(batch)
        rows += batch.num_rows
        size_bytes += batch.nbytes
        if rows >= most_rows or size_bytes >= _BYTES_PER_GROUP:
            yield pa.Table.from_batches(gathered, schema)
            gathered, rows, size_bytes = [], 0, 0
    if rows:
        yield pa.Table.from_batches(gathered, schema)


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    def write(group: pa.Table) -> None:
        with disk_faults(path):
            writer.write_table(group, row_group_size=group.num_rows)

    with disk_faults(path):
        writer = pq.ParquetWriter(path, schema, compression="snappy")
    try:
        yield write
    except BaseException:
        with suppress(Exception):  # the file is thrown away; the first fault is the one to report
            writer.close()
        raise
    with disk_faults(path):
        writer.close()
