"""Values of the newest profiles beside what Tencent acknowledged: what is to set, to remove and to report.

Expressions only. One row per account.
"""

import ibis
import ibis.expr.types as ir

from connectors.tencent_push.protocol import AccountType
from pipelines import accounts
from pipelines.accounts import Status
from pipelines.mapping import AccountMapping, NullPolicy, SyncMapping
from pipelines.narrow import CONTENT, account_column, content, open_column, status_column
from pipelines.source_rows import FILE, ROW
from pipelines.values import ValueExpressions, value_expressions

KNOWN_CONTENT = "known_content"
IS_SETTLED = "__is_settled"
# Beside the source's columns, whose names are the source's own.
_ACCOUNT, _KNOWN, _KNOWN_ACCOUNT = "__account", "__known_", "__known_account"
_UNCERTAIN, _KNOWN_CONTENT = "__uncertain", "__known_content"


def newest(rows: ir.Table, superseded: ir.Table, kind: AccountType) -> ir.Table:
    """The one profile of every account among the open `rows`."""
    is_candidate = rows[status_column(kind)] == Status.CANDIDATE.value
    return rows.filter(rows[open_column(kind)] & is_candidate).anti_join(superseded, [FILE, ROW])


def beside_known(profiles: ir.Table, mapping: SyncMapping, kind: AccountType, *, known: ir.Table | None) -> ir.Table:
    """`profiles` with their account, their digest and what is known of the account, in columns of our own.

    `IS_SETTLED` tells, never null, that the digest is the one that was acknowledged as a whole.
    """
    mine = mapping.account_types()[kind]
    columns = {_ACCOUNT: profiles[account_column(kind)], CONTENT: content(profiles, mapping, kind)}
    joined = _with_known(profiles.mutate(**columns), mine, known)
    return joined.mutate(**{IS_SETTLED: (joined[CONTENT] == joined[_KNOWN_CONTENT]).fill_null(False)})


def compared(
    beside: ir.Table, mapping: SyncMapping, kind: AccountType, *, is_first: bool, is_slim: bool = False
) -> ir.Table:
    """One row per account of beside_known(): values, what is reported about them, and which differ.

    `is_first`: nothing is known. `is_slim`: the values of accounts that neither change nor are reported are left out.
    `is_note` tells of accounts that do not change or have something to report.
    """
    mine = mapping.account_types()[kind]
    columns: dict[str, ir.Value] = {FILE: beside[FILE], ROW: beside[ROW], "account": beside[_ACCOUNT]}
    for number, attribute in enumerate(mine.attributes.values()):
        columns |= _value_columns(number, value_expressions(beside[attribute.column], attribute))
        columns[f"known_{number}"] = beside[f"{_KNOWN}{number}"]
    columns |= {"uncertain": beside[_UNCERTAIN], KNOWN_CONTENT: beside[_KNOWN_CONTENT], CONTENT: beside[CONTENT]}
    values = beside.select(**columns)
    differs = [_differs(values, number, name) for number, name in enumerate(mine.attributes)]
    to_remove = {
        name: _is_to_remove(values, number, name)
        for number, (name, attribute) in enumerate(mine.attributes.items())
        if attribute.null is NullPolicy.REMOVE
    }
    is_change = ibis.or_(*differs, *to_remove.values())
    nothing_there = ibis.and_(*(values[f"absent_{number}"] for number in range(len(mine.attributes))))
    kept = {name: values[name] for name in values.columns if name.startswith(("value_", "reason_", "text_"))}
    if is_slim:
        is_needed = is_change | is_reported(values, mine)
        kept = {name: ibis.ifelse(is_needed, value, ibis.null(str)) for name, value in kept.items()}
    return values.select(
        FILE,
        ROW,
        "account",
        *(value.name(name) for name, value in kept.items()),
        # A digest tells nothing of a profile with something to report: that is looked at every night.
        ibis.ifelse(is_reported(values, mine), ibis.null("uint64"), values[CONTENT]).name(CONTENT),
        values[KNOWN_CONTENT],
        is_uncertain=values.uncertain.length().fill_null(0) > 0,
        changed=_names([ibis.ifelse(each, name, None) for each, name in zip(differs, mine.attributes, strict=True)]),
        removed=_names([ibis.ifelse(each, name, None) for name, each in to_remove.items()]),
        # Told without the lists, which are dear where only this is asked for.
        is_change=is_change,
        # Without a value and without a report there was nothing there, which is cheaper to see.
        is_note=is_reported(values, mine) | (nothing_there if is_first else ~is_change),
    )


def settled_rows(profiles: ir.Table, mapping: SyncMapping, kind: AccountType) -> ir.Table:
    """Profiles that were settled before: as much of them as of compared() ones stands in a frame."""
    mine = mapping.account_types()[kind]
    values = [value_expressions(profiles[attribute.column], attribute).value for attribute in mine.attributes.values()]
    return profiles.select(
        FILE,
        ROW,
        accounts.account_text(profiles, mine.column).name("account"),
        *(value.name(f"value_{number}") for number, value in enumerate(values)),
        content(profiles, mapping, kind).name(CONTENT),
        changed=_names([]),
        removed=_names([]),
    )


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


def _with_known(profiles: ir.Table, mine: AccountMapping, known: ir.Table | None) -> ir.Table:
    """`profiles` with the acknowledged value of every attribute, or null, and the names whose value is not known."""
    if known is None:
        nothing = {f"{_KNOWN}{number}": ibis.null(str) for number in range(len(mine.attributes))}
        return profiles.mutate(
            **nothing, **{_UNCERTAIN: ibis.null("array<string>"), _KNOWN_CONTENT: ibis.null("uint64")}
        )
    columns: dict[str, ir.Value] = {
        f"{_KNOWN}{number}": known[name] if name in known.columns else ibis.null(str)
        for number, name in enumerate(mine.attributes)
    }
    columns[_KNOWN_CONTENT] = known[CONTENT] if CONTENT in known.columns else ibis.null("uint64")
    rows = known.select(**{_KNOWN_ACCOUNT: known.account, _UNCERTAIN: known.uncertain}, **columns)
    return profiles.left_join(rows, profiles[_ACCOUNT] == rows[_KNOWN_ACCOUNT])


def _is_uncertain(joined: ir.Table, name: str) -> ir.BooleanValue:
    return joined.uncertain.contains(name).fill_null(False)


def _differs(joined: ir.Table, number: int, name: str) -> ir.BooleanValue:
    value, known = joined[f"value_{number}"], joined[f"known_{number}"]
    return value.notnull() & ((value != known).fill_null(True) | _is_uncertain(joined, name))


def _is_to_remove(joined: ir.Table, number: int, name: str) -> ir.BooleanValue:
    return joined[f"absent_{number}"] & (joined[f"known_{number}"].notnull() | _is_uncertain(joined, name))


def _names(parts: list[ir.StringValue]) -> ir.ArrayValue:
    # An empty list alone would have no type for the engine.
    return ibis.array(parts or [ibis.null(str)]).filter(lambda name: name.notnull())
