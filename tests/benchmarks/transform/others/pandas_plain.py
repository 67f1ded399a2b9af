"""The same work in pandas as most people write it: the types that it reads by itself, methods of whole columns."""

import pandas as pd

from tests.benchmarks.transform.others.rules import (
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


def main() -> None:
    task = Task.from_command_line()
    meter = Meter()
    profiles = pd.read_parquet(task.source, columns=list(COLUMNS))
    meter.tell({kind.name: write_changes(profiles, kind, task) for kind in KINDS})


def write_changes(profiles: pd.DataFrame, kind: Kind, task: Task) -> int:
    """How many accounts of `kind` change."""
    accounts = newest(profiles, kind)
    values = pd.DataFrame({"account": accounts})
    for name, column in kind.attributes.items():
        values[name] = value(profiles.loc[accounts.index, column], name)
    if task.state is not None:
        known = pd.read_parquet(task.state / f"{kind.name}.parquet", columns=list(values.columns))
        values = values.merge(known, how="left", on="account", suffixes=("", "_known"))
    for name in kind.attributes:
        is_set = values[name].notna()
        values[f"{name}_changed"] = is_set if task.state is None else is_set & (values[name] != values[f"{name}_known"])
    if task.state is not None and REMOVED in kind.attributes:
        values[f"{REMOVED}_removed"] = values[REMOVED].isna() & values[f"{REMOVED}_known"].notna()
    marks = [column for column in values.columns if column.endswith(("_changed", "_removed"))]
    changed = values.loc[values[marks].any(axis=1), ["account", *kind.attributes, *marks]]
    changed.to_parquet(task.folder / f"{kind.name}.parquet", compression="zstd", index=False)
    return len(changed)


def newest(profiles: pd.DataFrame, kind: Kind) -> pd.Series:
    """The valid accounts, each where its newest profile stands."""
    account, is_enabled = profiles[kind.column], profiles[FILTER].eq(True)
    is_valid = account.notna() & (account.str.strip() != "") & ~account.str.contains(CONTROL, regex=True, na=True)
    is_valid &= bytes_of(account) <= kind.most_bytes
    is_valid &= ~((profiles[KINDS[0].column] == profiles[KINDS[1].column]) & is_enabled)
    if kind.name == "registration_id":
        is_valid &= is_enabled
    narrow = profiles.loc[is_valid, [kind.column, ORDER]]
    in_order = narrow.sort_values(ORDER, kind="stable", na_position="first")
    return in_order.drop_duplicates(kind.column, keep="last")[kind.column]


def value(column: pd.Series, name: str) -> pd.Series:
    """Text that may be sent; missing for what may not."""
    if column.name == "level":  # it came as a floating-point number, since some are missing
        return column.astype("Int64").astype("str").where(column.notna())
    if column.name == "score":
        finite = column[column.abs() < float("inf")]
        return finite.map("{:.1f}".format).replace("-0.0", "0.0").astype("str").reindex(column.index)
    if column.name in ("balance", "vip_until"):
        return column.astype("str")
    text = column.where((column != "") & ~column.str.contains(CONTROL, regex=True, na=False))
    is_long = bytes_of(text) > MAX_BYTES
    if name != TRUNCATED:
        return text.mask(is_long)
    short = text.copy()
    short[is_long] = text[is_long].map(truncated)
    return short


def bytes_of(text: pd.Series) -> pd.Series:
    return text.str.encode("utf-8").str.len()  # type: ignore[misc]  # the stubs know no length of bytes


if __name__ == "__main__":
    main()
