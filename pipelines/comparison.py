"""Values of the newest profiles beside what Tencent acknowledged: what is to set, to remove and to report.

Expressions only. One row per account.
"""

import ibis
import ibis.expr.types as ir

from connectors.tencent_push.protocol import AccountType
from pipelines import accounts
from pipelines.accounts import Status
from pipelines.mapping import AccountMapping, NullPolicy, SyncMapping
from pipelines.narrow import CONTENT, content, open_column
from pipelines.source_rows import FILE, ROW
from pipelines.values import ValueExpressions, value_expressions

KNOWN_CONTENT = "known_content"


def newest(rows: ir.Table, superseded: ir.Table, mapping: SyncMapping, kind: AccountType) -> ir.Table:
    """The one profile of every account among the open `rows`."""
    is_candidate = accounts.status(rows, mapping, kind) == Status.CANDIDATE.value
    return rows.filter(rows[open_column(kind)] & is_candidate).anti_join(superseded, [FILE, ROW])


def compared(profiles: ir.Table, mapping: SyncMapping, kind: AccountType, *, known: ir.Table | None) -> ir.Table:
    """One row per account: values, what is reported about them, and which differ from what is acknowledged."""
    mine = mapping.account_types()[kind]
    columns: dict[str, ir.Value] = {
        FILE: profiles[FILE],
        ROW: profiles[ROW],
        "account": accounts.account_text(profiles, mine.column),
    }
    for number, attribute in enumerate(mine.attributes.values()):
        columns |= _value_columns(number, value_expressions(profiles[attribute.column], attribute))
    columns[CONTENT] = content(profiles, mapping, kind)
    values = profiles.select(**columns)
    joined = _with_known(values, mine, known)
    changed = [ibis.ifelse(_differs(joined, number, name), name, None) for number, name in enumerate(mine.attributes)]
    removed = [
        ibis.ifelse(_is_to_remove(joined, number, name), name, None)
        for number, (name, attribute) in enumerate(mine.attributes.items())
        if attribute.null is NullPolicy.REMOVE
    ]
    kept = [name for name in values.columns if not name.startswith("absent_") and name != CONTENT]
    result = joined.select(
        *kept,
        # A digest tells nothing of a profile with something to report: that is looked at every night.
        ibis.ifelse(is_reported(joined, mine), ibis.null("uint64"), joined[CONTENT]).name(CONTENT),
        joined[KNOWN_CONTENT],
        is_uncertain=joined.uncertain.length().fill_null(0) > 0,
        changed=_names(changed),
        removed=_names(removed),
    )
    return result.mutate(is_change=(result.changed.length() > 0) | (result.removed.length() > 0))


def is_reported(rows: ir.Table, mine: AccountMapping) -> ir.BooleanValue:
    return ibis.or_(*(rows[f"reason_{number}"].notnull() for number in range(len(mine.attributes))))


def _value_columns(number: int, expressions: ValueExpressions) -> dict[str, ir.Value]:
    is_reported = expressions.reason.notnull()
    return {
        f"value_{number}": expressions.value,
        f"reason_{number}": expressions.reason,
        f"text_{number}": ibis.ifelse(is_reported, expressions.text, ibis.null(str)),
        f"absent_{number}": expressions.is_absent,
    }


def _with_known(values: ir.Table, mine: AccountMapping, known: ir.Table | None) -> ir.Table:
    """`values` with `known_<n>` (the acknowledged value or null) and `uncertain` (names whose value is not known)."""
    if known is None:
        nothing = {f"known_{number}": ibis.null(str) for number in range(len(mine.attributes))}
        own = {"uncertain": ibis.null("array<string>"), KNOWN_CONTENT: ibis.null("uint64")}
        return values.mutate(**own, **nothing)
    columns: dict[str, ir.Value] = {
        f"known_{number}": known[name] if name in known.columns else ibis.null(str)
        for number, name in enumerate(mine.attributes)
    }
    columns[KNOWN_CONTENT] = known[CONTENT] if CONTENT in known.columns else ibis.null("uint64")
    rows = known.select(known_account=known.account, uncertain=known.uncertain, **columns)
    return values.left_join(rows, values.account == rows.known_account)


def _is_uncertain(joined: ir.Table, name: str) -> ir.BooleanValue:
    return joined.uncertain.contains(name).fill_null(False)


def _differs(joined: ir.Table, number: int, name: str) -> ir.BooleanValue:
    value, known = joined[f"value_{number}"], joined[f"known_{number}"]
    return value.notnull() & ((value != known).fill_null(True) | _is_uncertain(joined, name))


def _is_to_remove(joined: ir.Table, number: int, name: str) -> ir.BooleanValue:
    return joined[f"absent_{number}"] & (joined[f"known_{number}"].notnull() | _is_uncertain(joined, name))


def _names(parts: list[ir.StringValue]) -> ir.ArrayValue:
    if not parts:
        return ibis.literal([], type="array<string>")
    return ibis.array(parts).filter(lambda name: name.notnull())
