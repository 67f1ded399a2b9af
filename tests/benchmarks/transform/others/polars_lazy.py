"""The same work in polars: one lazy plan over all files, run by the streaming engine, all results at once."""

from collections.abc import Iterator

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

USER, DEVICE = (pl.col(kind.column) for kind in KINDS)
VALID = "valid"


def main() -> None:
    task = Task.from_command_line()
    meter = Meter()
    profiles = pl.scan_parquet(task.files).select(COLUMNS).with_row_index("source_row")
    is_missing, is_shared = is_blank(USER) & is_blank(DEVICE), is_claimed_by_both()
    notes = [
        noted(profiles.filter(is_missing), "account_missing", account=USER),
        noted(profiles.filter(is_shared), "account_type_ambiguous", account=USER),
    ]
    results = {}
    for kind in KINDS:
        candidates = profiles.with_columns(account_status(kind).alias("status"))
        valid = candidates.filter(pl.col("status") == VALID)
        narrow = valid.select("source_row", kind.column, ORDER).sort(ORDER, "source_row", nulls_last=False)
        newest = valid.join(narrow.unique(kind.column, keep="last"), on="source_row", how="semi")
        values = with_values(newest, kind)
        notes += account_notes(candidates, valid, newest, kind)
        notes += value_notes(values, kind)
        results[kind.name] = changes(values, kind, task)
    results["invalid_rows"] = pl.concat(notes)
    sinks = [rows.sink_parquet(file_of(task, name), compression="zstd", lazy=True) for name, rows in results.items()]
    pl.collect_all(sinks, engine="streaming")
    counts = {name: pl.scan_parquet(file_of(task, name)).select(pl.len()).collect().item() for name in results}
    invalid_rows = counts.pop("invalid_rows")
    meter.tell(counts, invalid_rows=invalid_rows)


def is_blank(account: pl.Expr) -> pl.Expr:
    return account.str.contains(BLANK).fill_null(True)


def is_claimed_by_both() -> pl.Expr:
    return USER.eq(DEVICE).fill_null(False) & ~is_blank(USER) & pl.col(FILTER).fill_null(False)


def account_status(kind: Kind) -> pl.Expr:
    """VALID, why it is not, or null where there is no account of this kind."""
    account = pl.col(kind.column)
    there = ~is_blank(account) & ~is_claimed_by_both()
    if kind.name == "registration_id":
        there &= pl.col(FILTER).fill_null(False)
    return (
        pl.when(there & account.str.contains(CONTROL))
        .then(pl.lit("account_invalid"))
        .when(there & (account.str.len_bytes() > kind.most_bytes))
        .then(pl.lit("account_too_long"))
        .when(there)
        .then(pl.lit(VALID))
    )


def with_values(newest: pl.LazyFrame, kind: Kind) -> pl.LazyFrame:
    """Each attribute as it is sent, with `<attribute>_reason` and, of texts, `<attribute>_text`."""
    schema = newest.collect_schema()
    columns = [pl.col("source_row"), pl.col(kind.column).alias("account")]
    for name, column in kind.attributes.items():
        columns += value(pl.col(column), schema[column], name)
    return newest.select(columns)


def value(found: pl.Expr, kind: pl.DataType, name: str) -> Iterator[pl.Expr]:
    if kind.is_float():
        text = pl.when(found.is_finite()).then(found.round(1)).cast(pl.String)
        yield text.replace("-0.0", "0.0").alias(name)
        yield pl.when(~found.is_finite()).then(pl.lit("value_invalid")).alias(f"{name}_reason")
    elif kind != pl.String:
        yield found.cast(pl.String).alias(name)
    else:
        is_invalid, is_long = found.str.contains(CONTROL), found.str.len_bytes() > MAX_BYTES
        sent = pl.when(~is_invalid & ~is_long & (found != "")).then(found)
        long_reason = pl.lit("value_too_long")
        if name == TRUNCATED:
            short = found.map_batches(_shortened, pl.String)
            sent = sent.when(~is_invalid & is_long).then(short)
            long_reason = pl.when(short.is_not_null()).then(pl.lit("value_truncated")).otherwise(long_reason)
        yield sent.alias(name)
        reason = pl.when(is_invalid).then(pl.lit("value_invalid")).when(is_long).then(long_reason)
        yield reason.alias(f"{name}_reason")
        yield found.alias(f"{name}_text")


def _shortened(texts: pl.Series) -> pl.Series:
    """Python looks at what is too long alone."""
    is_long = (texts.str.len_bytes() > MAX_BYTES).fill_null(False)
    places = is_long.arg_true()
    return texts.scatter(places, [truncated(text) for text in texts.gather(places)])


def account_notes(
    candidates: pl.LazyFrame, valid: pl.LazyFrame, newest: pl.LazyFrame, kind: Kind
) -> Iterator[pl.LazyFrame]:
    account, status = pl.col(kind.column), pl.col("status")
    yield noted(candidates.filter(status != VALID), status, account=account, kind=kind.name)
    older = valid.join(newest, on="source_row", how="anti")
    yield noted(older, "superseded", account=account, kind=kind.name)


def value_notes(values: pl.LazyFrame, kind: Kind) -> Iterator[pl.LazyFrame]:
    names = values.collect_schema().names()
    for name in kind.attributes:
        if f"{name}_reason" in names:
            reason = pl.col(f"{name}_reason")
            text = pl.col(f"{name}_text") if f"{name}_text" in names else None
            rows = values.filter(reason.is_not_null())
            yield noted(rows, reason, account=pl.col("account"), kind=kind.name, attribute=name, text=text)


def noted(
    rows: pl.LazyFrame,
    reason: str | pl.Expr,
    *,
    account: pl.Expr,
    kind: str | None = None,
    attribute: str | None = None,
    text: pl.Expr | None = None,
) -> pl.LazyFrame:
    return rows.select(
        "source_row",
        account.alias("account"),
        pl.lit(kind, pl.String).alias("account_type"),
        pl.lit(attribute, pl.String).alias("attribute"),
        (pl.lit(reason) if isinstance(reason, str) else reason).alias("reason"),
        (pl.lit(None, pl.String) if text is None else text).alias("value"),
    )


def changes(values: pl.LazyFrame, kind: Kind, task: Task) -> pl.LazyFrame:
    """The accounts that change, with a mark for each attribute that does."""
    marks = [pl.col(name).is_not_null().alias(f"{name}_changed") for name in kind.attributes]
    if task.state is not None:
        known = pl.scan_parquet(task.state / f"{kind.name}.parquet").select("account", *kind.attributes)
        values = values.join(known, on="account", how="left", suffix="_known")
        differs = {name: pl.col(name).ne_missing(pl.col(f"{name}_known")) for name in kind.attributes}
        marks = [(pl.col(name).is_not_null() & is_other).alias(f"{name}_changed") for name, is_other in differs.items()]
        if REMOVED in kind.attributes:
            is_gone = pl.col(REMOVED).is_null() & pl.col(f"{REMOVED}_known").is_not_null()
            marks.append(is_gone.alias(f"{REMOVED}_removed"))
    marked = values.select("account", *kind.attributes, *marks)
    return marked.filter(pl.any_horizontal(mark.meta.output_name() for mark in marks))


def file_of(task: Task, name: str) -> str:
    return str(task.folder / f"{name}.parquet")


if __name__ == "__main__":
    main()
