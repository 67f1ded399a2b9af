"""pandas with Arrow's types, whose functions work on whole columns without a Python object per value."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tests.benchmarks.transform.others.pandas_way import Types, work
from tests.benchmarks.transform.others.rules import BLANK, CONTROL

TEXT = pd.ArrowDtype(pa.string())


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    return pd.read_parquet(path, columns=columns, dtype_backend="pyarrow")


def is_blank(text: pd.Series) -> pd.Series:
    return text.str.contains(BLANK, regex=True).fillna(True)


def has_control(text: pd.Series) -> pd.Series:
    return text.str.contains(CONTROL, regex=True).fillna(False)


def is_true(column: pd.Series) -> pd.Series:
    return column.fillna(False)


def is_not_finite(column: pd.Series) -> pd.Series:
    return ~arrow(pc.is_finite, column).fillna(True)


def bytes_of(text: pd.Series) -> pd.Series:
    return arrow(pc.binary_length, text)


def as_text(column: pd.Series) -> pd.Series:
    if column.name != "score":
        return column.astype(TEXT)
    digits = column.mask(is_not_finite(column)).round(1).astype(TEXT).replace("-0", "0")
    return digits.mask(~digits.str.contains(".", regex=False).fillna(True), digits + ".0")


def arrow(function: Callable[[pa.ChunkedArray], pa.ChunkedArray], column: pd.Series) -> pd.Series:
    """A function of Arrow over a column of Arrow's."""
    found = function(pa.chunked_array(pa.array(column)))
    return pd.Series(pd.array(found, dtype=pd.ArrowDtype(found.type)), index=column.index)


if __name__ == "__main__":
    work(Types(read, is_blank, has_control, is_true, is_not_finite, bytes_of, as_text))
