"""What the footers of a manifest's files say of a column's values, without reading a row.

Parquet's statistics are believed only where they are complete and cannot be shortened or rounded: of times and dates.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.parquet import Manifest


def newest_in_footers(manifest: Manifest, column: str) -> datetime | None:
    """The greatest time of the column, in UTC; None where the statistics do not tell it for every row.

    Times without a zone are taken as UTC, a date as its beginning.
    """
    if manifest.folder_columns is not None and column in manifest.folder_columns.column_names:
        days = [day for day in manifest.folder_columns[column].to_pylist() if isinstance(day, date)]
        return max(map(_in_utc, days), default=None)
    newest: datetime | None = None
    for file in manifest.files:
        if column not in file.schema.names:  # null in all its rows
            continue
        try:
            for value in _greatest(pq.read_metadata(file.local_path), column):
                newest = value if newest is None else max(newest, value)
        except (_UnknownError, pa.ArrowException, OSError, OverflowError, ValueError):  # a year that Python lacks
            return None
    return newest


class _UnknownError(Exception):
    """The statistics leave something open."""


def _greatest(footer: pq.FileMetaData, column: str) -> Iterator[datetime]:
    """One per row group that has a value at all."""
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        if not group.num_rows:
            continue
        chunk = next(each for each in map(group.column, range(group.num_columns)) if each.path_in_schema == column)
        found = chunk.statistics
        if found is not None and found.has_null_count and found.null_count == group.num_rows:
            continue
        if found is None or not isinstance(found.max, date):  # of which a datetime is one
            raise _UnknownError
        yield _in_utc(found.max)


def _in_utc(value: date) -> datetime:
    if not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    # pandas' own type, for nanoseconds, is a datetime too
    whole = datetime.combine(value.date(), value.time(), value.tzinfo)
    return whole.astimezone(UTC) if whole.tzinfo else whole.replace(tzinfo=UTC)
