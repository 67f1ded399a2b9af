"""The parts of what is acknowledged, read as one table, and when they are made one or added to.

A part is a whole Parquet file that is never changed; in which order they count is told by the caller.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from pipelines.engine import Engine, quoted_file
from pipelines.narrow import CONTENT, KEY, account_key

MOST_PARTS = 16
MOST_DELTA_FRACTION = 0.25  # of the base's rows: then all parts are written as one
LEAST_LEARNED_FRACTION = 0.02  # of the state's rows: fewer cost less each night than a file for them
_PART = "__part"


def part_name(parts: Sequence[Path]) -> str:
    """The name of the part after these. Numbers rise, and chance tells apart what two hosts write: no name ever stands
    for two contents.
    """
    last = max((int(part.stem.split("-")[1]) for part in parts), default=0)
    return f"part-{last + 1:08d}-{secrets.token_hex(4)}.parquet"


def read_parts(engine: Engine, name: str, parts: Sequence[Path], *, believed: bool) -> ir.Table:
    """One row per account, of the last part that has it.

    Not `believed`: keys are computed anew and digests are unknown.
    """
    base, *deltas = parts
    whole = engine.parquet(f"{name}_base", base)
    if deltas:
        whole = _with_deltas(engine, name, whole, deltas)
    if believed and KEY in whole.columns:
        return whole
    return whole.mutate(**{KEY: account_key(whole.account), CONTENT: ibis.null("uint64")})


def _with_deltas(engine: Engine, name: str, base: ir.Table, deltas: Sequence[Path]) -> ir.Table:
    """The base's rows that no delta has, and of the deltas the last row of each account."""
    selects = " UNION ALL BY NAME ".join(
        f"SELECT *, {number} AS {_PART} FROM read_parquet({quoted_file(str(file))}, hive_partitioning = false)"
        for number, file in enumerate(deltas)
    )
    added = engine.define(f"{name}_deltas", selects)
    last = ibis.row_number().over(group_by=added.account, order_by=ibis.desc(added[_PART]))
    ranked = added.mutate(__rank=last)
    newest = engine.materialize(f"{name}_newest", ranked.filter(ranked["__rank"] == 0).drop("__rank", _PART))
    columns = [*newest.columns, *(column for column in base.columns if column not in newest.columns)]
    others = _as_columns(base.anti_join(newest, base.account == newest.account), columns)
    return others.union(_as_columns(newest, columns))


def _as_columns(rows: ir.Table, columns: Sequence[str]) -> ir.Table:
    kinds = {KEY: "uint64", CONTENT: "uint64"}
    missing = {column: ibis.null(kinds.get(column, "string")) for column in columns if column not in rows.columns}
    return rows.mutate(**missing).select(*columns)


def is_worth_compacting(parts: Sequence[Path]) -> bool:
    base, *deltas = (pq.read_metadata(part).num_rows for part in parts)
    return len(parts) > MOST_PARTS or sum(deltas) > MOST_DELTA_FRACTION * base


def learned_rows(engine: Engine, known: ir.Table | None, learned: ir.Table, *, kind: str) -> ir.Table | None:
    """The state's rows of the `learned` accounts, with their digests; None where that does not pay.

    An account of which nothing was ever acknowledged has no row that could keep a digest.
    """
    if known is None:
        return None
    least = LEAST_LEARNED_FRACTION * _count(engine, known)
    if _count(engine, learned) <= least:
        return None
    news = learned.select(learned_account=learned.account, learned_content=learned[CONTENT])
    joined = known.drop(CONTENT).inner_join(news, known.account == news.learned_account)
    rows = joined.mutate(**{CONTENT: joined.learned_content}).select(*known.columns)
    kept = engine.materialize(f"learned_{kind}", rows)
    return kept if _count(engine, kept) > least else None


def _count(engine: Engine, rows: ir.Table) -> int:
    return int(engine.rows(rows.aggregate(rows=rows.count()))[0]["rows"])
