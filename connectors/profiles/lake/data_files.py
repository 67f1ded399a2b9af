"""The rows of one Parquet data file of a table, without those that the table says are deleted, in bounded memory."""

from collections.abc import Generator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

_ROWS_PER_BATCH = 65_536
_BYTES_AHEAD = (
    160 * 1024 * 1024
)  # of a row group, uncompressed: fetched in few requests; of larger ones a piece at a time
_BYTES_PER_PIECE = 4 * 1024 * 1024  # of each column

Positions = npt.NDArray[np.int64]


def open_data_file(handle: pa.NativeFile) -> pq.ParquetFile:
    """Reads the footer. INT96 times, which Spark writes, are read as microseconds: nanoseconds end in 2262."""
    metadata = pq.read_metadata(handle)
    largest = max((metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)), default=0)
    return pq.ParquetFile(
        handle,
        metadata=metadata,
        pre_buffer=largest <= _BYTES_AHEAD,
        buffer_size=0 if largest <= _BYTES_AHEAD else _BYTES_PER_PIECE,
        coerce_int96_timestamp_unit="us",
    )


def live_rows(
    file: pq.ParquetFile, columns: Sequence[str], *, deleted: Positions | None
) -> Generator[pa.RecordBatch, None, None]:
    """The columns of every row whose position in the file is not among `deleted` (sorted), in the file's order.

    A batch without columns still has its number of rows.
    """
    begin = 0
    for group in range(file.metadata.num_row_groups):  # one at a time: reading ahead would go over all of them
        for batch in file.iter_batches(_ROWS_PER_BATCH, row_groups=[group], columns=list(columns)):
            end = begin + batch.num_rows
            yield batch if deleted is None else _without(batch, deleted, begin, end)
            begin = end


def _without(batch: pa.RecordBatch, deleted: Positions, begin: int, end: int) -> pa.RecordBatch:
    here = deleted[np.searchsorted(deleted, begin) : np.searchsorted(deleted, end)] - begin
    if not len(here):
        return batch
    is_live = np.ones(end - begin, bool)
    is_live[here] = False
    return batch.take(np.flatnonzero(is_live)) if batch.num_columns else batch.slice(0, int(is_live.sum()))
