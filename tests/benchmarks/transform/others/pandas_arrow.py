"""The same work in pandas, on Arrow's types and column by column; everything is in memory at once."""

from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tests.benchmarks.transform.others.rules import (
    BLANK,
    COLUMNS,
    CONTROL,
    FILTER,
    KINDS,
    MAX_BYTES,
    ORDER,
    REMOVED,
    TRUNCATED,
    Kind,
    truncated,
)
from tests.benchmarks.transform.task import Meter, Task

TEXT = pd.ArrowDtype(pa.string())


def main() -> None:
    task = Task.from_command_line()
    meter = Meter()
    profiles = pd.read_parquet(task.source, columns=list(COLUMNS), dtype_backend="pyarrow")
    meter.tell({kind.name: write_changes(profiles, kind, task) for kind in KINDS})


def write_changes(profiles: pd.DataFrame, kind: Kind, task: Task) -> int:
    """How many accounts of `kind` change."""
    accounts = newest(profiles, kind)
    values = pd.DataFrame(
        {name: value(profiles.loc[accounts.index, column], name) for name, column in kind.attributes.items()}
    )
    values.insert(0, "account", accounts)
    if task.state is not None:
        known = pd.read_parquet(
            task.state / f"{kind.name}.parquet", columns=list(values.columns), dtype_backend="pyarrow"
        )
        values = values.merge(known, how="left", on="account", suffixes=("", "_known"))
    for name in kind.attributes:
        if task.state is None:
            values[f"{name}_changed"] = values[name].notna()
            continue
        before = values.pop(f"{name}_known")
        values[f"{name}_changed"] = values[name].notna() & (values[name] != before).fillna(True)
        if name == REMOVED:
            values[f"{name}_removed"] = values[name].isna() & before.notna()
    marks = [column for column in values.columns if column.endswith(("_changed", "_removed"))]
    changed = values[values[marks].any(axis=1)]
    changed.to_parquet(task.folder / f"{kind.name}.parquet", compression="zstd", index=False)
    return len(changed)


def newest(profiles: pd.DataFrame, kind: Kind) -> pd.Series:
    """The valid accounts, each where its newest profile stands."""
    account, enabled = profiles[kind.column], profiles[FILTER].fillna(False)
    is_wanted = account.notna() & ~account.str.contains(BLANK, regex=True).fillna(True)
    is_wanted &= ~account.str.contains(CONTROL, regex=True).fillna(True)
    is_wanted &= bytes_of(account) <= kind.most_bytes
    is_wanted &= ~((profiles[KINDS[0].column] == profiles[KINDS[1].column]).fillna(False) & enabled)
    if kind.name == "registration_id":
        is_wanted &= enabled
    narrow = profiles.loc[is_wanted, [kind.column, ORDER]]
    in_order = narrow.sort_values(ORDER, kind="stable", na_position="first")
    return in_order.drop_duplicates(kind.column, keep="last")[kind.column]


def value(column: pd.Series, name: str) -> pd.Series:
    """Text that may be sent; null for what may not."""
    kind = pa.array(column.head(0)).type
    if pa.types.is_floating(kind):
        finite = column.where(pc_series(pc.is_finite, column))
        digits = finite.round(1).astype(TEXT).replace("-0", "0")
        return digits.mask(~digits.str.contains(".", regex=False).fillna(True), digits + ".0")
    if not pa.types.is_string(kind):
        return column.astype(TEXT)
    text = column.mask((column == "") | column.str.contains(CONTROL, regex=True))
    is_long = (bytes_of(text) > MAX_BYTES).fillna(False)
    if name != TRUNCATED:
        return text.mask(is_long)
    short = text.copy()
    short[is_long] = text[is_long].map(truncated).astype(TEXT)
    return short


def bytes_of(text: pd.Series) -> pd.Series:
    return pc_series(pc.binary_length, text)


def pc_series(function: Callable[[pa.ChunkedArray], pa.ChunkedArray], column: pd.Series) -> pd.Series:
    """A function of Arrow over a column of Arrow's."""
    found = function(pa.chunked_array(pa.array(column)))
    return pd.Series(pd.array(found, dtype=pd.ArrowDtype(found.type)), index=column.index)


if __name__ == "__main__":
    main()
