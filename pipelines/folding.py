"""What a push's ledger says about its frame -> what is acknowledged now, per account that it touched.

Expressions only; where the result is kept stands in acknowledged.py.
"""

from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from connectors.tencent_push.ledger import LedgerContents
from connectors.tencent_push.protocol import Command
from pipelines.engine import ROW_NUMBER, Engine
from pipelines.mapping import FRAME_COLUMNS
from pipelines.narrow import CONTENT, KEY, account_key

# Names that no attribute has, since the mapping reserves the prefix.
IS_SET, MAYBE_SET, IS_REMOVED, MAYBE_REMOVED = "__is_set", "__maybe_set", "__is_removed", "__maybe_removed"
KNOWN = "__known_"
_FLAGS = (IS_SET, MAYBE_SET, IS_REMOVED, MAYBE_REMOVED)
OWN_COLUMNS = ("account", "uncertain", "acknowledged_at", KEY, CONTENT)
_EFFECT_COLUMNS = {*FRAME_COLUMNS, ROW_NUMBER, CONTENT, *_FLAGS}


def effects_of(engine: Engine, contents: LedgerContents, frame_file: Path, *, name: str) -> ir.Table:
    """The frame's rows that the ledger says something about, with what it says."""
    said = engine.numbered_parquet(f"{name}_frame", frame_file)
    numbers = (
        contents.acknowledged[Command.SET_ATTR],
        contents.uncertain[Command.SET_ATTR],
        contents.acknowledged[Command.REMOVE_ATTR],
        contents.uncertain[Command.REMOVE_ATTR],
    )
    for flag, column in zip(_FLAGS, numbers, strict=True):
        listed = engine.register(f"{name}{flag}", pa.table({f"{flag}_number": pa.array(column, pa.int64())}))
        said = said.left_join(listed, said[ROW_NUMBER] == listed[f"{flag}_number"])
    marked = said.mutate(**{flag: said[f"{flag}_number"].notnull() for flag in _FLAGS})
    return marked.filter(ibis.or_(*(marked[flag] for flag in _FLAGS))).drop(*(f"{flag}_number" for flag in _FLAGS))


def answered(effects: ir.Table) -> ir.Table:
    """Account and command of every request that was acknowledged."""
    parts = [
        effects.filter(effects[flag]).select(account=effects.account, command=ibis.literal(command.value))
        for flag, command in ((IS_SET, Command.SET_ATTR), (IS_REMOVED, Command.REMOVE_ATTR))
    ]
    return ibis.union(*parts)


def is_complete(effects: ir.Table) -> ir.BooleanValue:
    """Whether everything that the frame's row asked for was acknowledged."""
    is_set = (effects.changed.length() == 0) | effects[IS_SET]
    return is_set & ((effects.removed.length() == 0) | effects[IS_REMOVED])


def touched(effects: ir.Table, known: ir.Table | None, *, now: datetime) -> ir.Table:
    """The accounts of `effects` as they are known now; `known` is what was known of them before.

    A digest is kept only of a profile whose every attribute is acknowledged: then it says that nothing is to be done.
    """
    named = [name for name in effects.columns if name not in _EFFECT_COLUMNS]
    names = [*named, *attribute_names(known, without=named)]
    before = _before(effects, known, names)
    columns: dict[str, ir.Value] = {"account": before.account}
    for name in names:
        columns[name] = _after(before, name) if name in named else before[f"{KNOWN}{name}"]
    columns["uncertain"] = _uncertain_after(before)
    stamp = ibis.literal(now.replace(tzinfo=None)).cast("timestamp('UTC')")
    columns["acknowledged_at"] = ibis.ifelse(
        before[IS_SET] | before[IS_REMOVED], stamp, before[f"{KNOWN}acknowledged_at"]
    )
    columns[KEY] = account_key(before.account)
    columns[CONTENT] = before[CONTENT] if CONTENT in before.columns else ibis.null("uint64")
    columns["__complete"] = is_complete(before)
    rows = before.select([value.name(name) for name, value in columns.items()])
    is_settled = rows["__complete"] & (rows.uncertain.length() == 0)
    kept = ibis.ifelse(is_settled, rows[CONTENT], ibis.null("uint64"))
    return rows.mutate(**{CONTENT: kept}).drop("__complete")


def attribute_names(known: ir.Table | None, *, without: list[str]) -> list[str]:
    """Those that the mapping has no more stay known."""
    return [name for name in (known.columns if known is not None else ()) if name not in {*OWN_COLUMNS, *without}]


def _before(effects: ir.Table, known: ir.Table | None, names: list[str]) -> ir.Table:
    """`effects` with `__known_<name>`: what was acknowledged before."""
    if known is None:
        kinds = {**dict.fromkeys(names, "string"), "uncertain": "array<string>", "acknowledged_at": "timestamp('UTC')"}
        return effects.mutate(**{f"{KNOWN}{name}": ibis.null(kind) for name, kind in kinds.items()})
    columns = {f"{KNOWN}{name}": known[name] if name in known.columns else ibis.null(str) for name in names}
    own = {f"{KNOWN}{name}": known[name] for name in ("account", "uncertain", "acknowledged_at")}
    rows = known.select(**columns, **own)
    return effects.left_join(rows, effects.account == rows[f"{KNOWN}account"])


def _after(before: ir.Table, name: str) -> ir.StringValue:
    return ibis.cases(
        (before[IS_SET] & before.changed.contains(name), before[name]),
        (before[IS_REMOVED] & before.removed.contains(name), ibis.null(str)),
        else_=before[f"{KNOWN}{name}"],
    )


def _uncertain_after(before: ir.Table) -> ir.ArrayValue:
    """Uncertain before and not settled since, or uncertain now."""
    nothing = ibis.literal([], type="array<string>")
    settled = ibis.ifelse(before[IS_SET], before.changed, nothing).concat(
        ibis.ifelse(before[IS_REMOVED], before.removed, nothing)
    )
    added = ibis.ifelse(before[MAYBE_SET] & ~before[IS_SET], before.changed, nothing).concat(
        ibis.ifelse(before[MAYBE_REMOVED] & ~before[IS_REMOVED], before.removed, nothing)
    )
    still = before[f"{KNOWN}uncertain"].fill_null(nothing).filter(lambda name: ~settled.contains(name))
    return still.concat(added).unique().sort()
