"""The same work in polars: one lazy plan over all files, run by the streaming engine, both account types at once."""

import polars as pl

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


def main() -> None:
    task = Task.from_command_line()
    meter = Meter()
    profiles = pl.scan_parquet(task.files).select(COLUMNS).with_row_index("row")
    sinks = [
        changes(profiles, kind, task).sink_parquet(file_of(task, kind), compression="zstd", lazy=True) for kind in KINDS
    ]
    pl.collect_all(sinks, engine="streaming")
    meter.tell({kind.name: pl.scan_parquet(file_of(task, kind)).select(pl.len()).collect().item() for kind in KINDS})


def changes(profiles: pl.LazyFrame, kind: Kind, task: Task) -> pl.LazyFrame:
    """The accounts of `kind` that change, with a mark for each attribute that does."""
    schema = profiles.collect_schema()
    newest = profiles.filter(is_wanted(kind)).sort(ORDER, "row", nulls_last=False).unique(kind.column, keep="last")
    values = newest.select(
        pl.col(kind.column).alias("account"),
        *(value(column, schema[column], name).alias(name) for name, column in kind.attributes.items()),
    )
    if task.state is None:
        marks = [pl.col(name).is_not_null().alias(f"{name}_changed") for name in kind.attributes]
    else:
        known = pl.scan_parquet(task.state / f"{kind.name}.parquet").select("account", *kind.attributes)
        values = values.join(known, on="account", how="left", suffix="_known")
        marks = [
            (pl.col(name).is_not_null() & pl.col(name).ne_missing(pl.col(f"{name}_known"))).alias(f"{name}_changed")
            for name in kind.attributes
        ]
        if REMOVED in kind.attributes:
            is_gone = pl.col(REMOVED).is_null() & pl.col(f"{REMOVED}_known").is_not_null()
            marks.append(is_gone.alias(f"{REMOVED}_removed"))
    marked = values.select("account", *kind.attributes, *marks)
    return marked.filter(pl.any_horizontal(mark.meta.output_name() for mark in marks))


def is_wanted(kind: Kind) -> pl.Expr:
    """Null where the account is."""
    account, enabled = pl.col(kind.column), pl.col(FILTER).fill_null(False)
    is_valid = ~account.str.contains(BLANK) & ~account.str.contains(CONTROL)
    is_ambiguous = pl.col(KINDS[0].column).eq(pl.col(KINDS[1].column)).fill_null(False) & enabled
    wanted = is_valid & (account.str.len_bytes() <= kind.most_bytes) & ~is_ambiguous
    return wanted & enabled if kind.name == "registration_id" else wanted


def value(column: str, kind: pl.DataType, name: str) -> pl.Expr:
    """Text that may be sent; null for what may not."""
    found = pl.col(column)
    if kind.is_float():
        text = pl.when(found.is_finite()).then(found.round(1)).cast(pl.String)
        return text.replace("-0.0", "0.0")
    if kind != pl.String:
        return found.cast(pl.String)
    is_valid = (found != "") & ~found.str.contains(CONTROL)
    fits = found.str.len_bytes() <= MAX_BYTES
    if name != TRUNCATED:
        return pl.when(is_valid & fits).then(found)
    return pl.when(is_valid & fits).then(found).when(is_valid).then(found.map_batches(_shortened, pl.String))


def _shortened(texts: pl.Series) -> pl.Series:
    """Python looks at what is too long alone."""
    is_long = (texts.str.len_bytes() > MAX_BYTES).fill_null(False)
    places = is_long.arg_true()
    return texts.scatter(places, [truncated(text) for text in texts.gather(places)])


def file_of(task: Task, kind: Kind) -> str:
    return str(task.folder / f"{kind.name}.parquet")


if __name__ == "__main__":
    main()
