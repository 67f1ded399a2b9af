"""pandas with the types that it reads by itself, as most people use it: NaN and null are one to it."""

from pathlib import Path

import pandas as pd

from tests.benchmarks.transform.others.pandas_way import Types, work
from tests.benchmarks.transform.others.rules import CONTROL


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    return pd.read_parquet(path, columns=columns)


def is_blank(text: pd.Series) -> pd.Series:
    return text.isna() | (text.str.strip() == "")


def has_control(text: pd.Series) -> pd.Series:
    return text.str.contains(CONTROL, regex=True, na=False)


def is_true(column: pd.Series) -> pd.Series:
    return column.eq(True)


def is_infinite(column: pd.Series) -> pd.Series:
    return column.abs() == float("inf")


def bytes_of(text: pd.Series) -> pd.Series:
    return text.str.encode("utf-8").str.len()  # type: ignore[misc]  # the stubs know no length of bytes


def as_text(column: pd.Series) -> pd.Series:
    if column.name == "level":  # it came as a floating-point number, since some are missing
        return column.astype("Int64").astype("str").where(column.notna())
    if column.name == "score":
        finite = column[column.abs() < float("inf")]
        return finite.map("{:.1f}".format).replace("-0.0", "0.0").astype("str").reindex(column.index)
    return column.astype("str")


if __name__ == "__main__":
    work(Types(read, is_blank, has_control, is_true, is_infinite, bytes_of, as_text))
