"""Everything that validation kept out or changed: one row per profile, attribute and reason.

Expressions over what frames.py has classified and compared; nothing is decided here that is not decided there.
"""

from collections.abc import Mapping
from pathlib import Path

import ibis
import ibis.expr.types as ir

from connectors.tencent_push.protocol import AccountType
from pipelines.accounts import INVALID_STATUSES, Status
from pipelines.engine import Engine
from pipelines.errors import ValuePolicyError
from pipelines.mapping import AttributeMapping, SyncMapping, TooLong
from pipelines.reasons import EXPLAINED, Reason, Severity
from pipelines.source_rows import FILE, ROW
from pipelines.values import utf8_bytes


def invalid_rows(
    classified: ir.Table,
    superseded: Mapping[AccountType, ir.Table],
    near: Mapping[AccountType, ir.Table],
    compared: Mapping[AccountType, ir.Table],
    *,
    mapping: SyncMapping,
) -> ir.Table:
    """One row per (profile, attribute, reason), still with the file's number."""
    parts = [_missing(classified, mapping), _claimed_by_both_or_none(classified, mapping)]
    for kind, mine in mapping.account_types().items():
        parts.append(_invalid_accounts(classified, mapping, kind))
        parts.append(_reported(superseded[kind], Reason.SUPERSEDED.value, kind=kind, column=mine.column))
        parts.append(_near_accounts(near[kind], kind=kind, column=mine.column))
        for number, (name, attribute) in enumerate(mine.attributes.items()):
            parts.append(_invalid_values(compared[kind], number, kind=kind, name=name, attribute=attribute))
    return ibis.union(*parts)


def _reported(
    rows: ir.Table,
    reason: str | ir.StringValue,
    *,
    kind: AccountType | None,
    column: str,
    attribute: str | None = None,
    value: ir.StringValue | None = None,
    sent_value: ir.StringValue | None = None,
) -> ir.Table:
    null = ibis.null(str)
    return rows.select(
        FILE,
        ROW,
        account=rows.account.cast(str) if "account" in rows.columns else null,
        account_type=ibis.literal(kind.value) if kind else null,
        attribute=ibis.literal(attribute) if attribute else null,
        column=ibis.literal(column),
        reason=ibis.literal(reason) if isinstance(reason, str) else reason,
        value=null if value is None else value,
        sent_value=null if sent_value is None else sent_value,
        value_bytes=ibis.null("int32") if value is None else utf8_bytes(value).cast("int32"),
    )


def _missing(classified: ir.Table, mapping: SyncMapping) -> ir.Table:
    columns = dict.fromkeys(mine.column for mine in mapping.account_types().values())
    rows = classified.filter(classified.is_missing)
    return _reported(rows, Reason.ACCOUNT_MISSING.value, kind=None, column=", ".join(columns))


def _claimed_by_both_or_none(classified: ir.Table, mapping: SyncMapping) -> ir.Table:
    """Ambiguity that belongs to no single account type: reported once, not once per type."""
    kinds = list(mapping.account_types())
    first = mapping.account_types()[kinds[0]]
    columns = dict.fromkeys(mine.column for mine in mapping.account_types().values())
    rows = classified.filter(_is_shared(classified, mapping)).mutate(account=classified[f"account_{kinds[0]}"])
    return _reported(
        rows,
        Reason.ACCOUNT_TYPE_AMBIGUOUS.value,
        kind=None,
        column=", ".join(columns) if len(columns) > 1 else first.column,
    )


def _is_shared(classified: ir.Table, mapping: SyncMapping) -> ir.BooleanValue:
    """Whether the ambiguity is one of both account types together."""
    kinds = mapping.account_types()
    ambiguous = [classified[f"status_{kind}"] == Status.ACCOUNT_TYPE_AMBIGUOUS.value for kind in kinds]
    return ibis.and_(*ambiguous) if mapping.is_mixed() else ibis.or_(*ambiguous) & classified.is_claimed_by_both


def _invalid_accounts(classified: ir.Table, mapping: SyncMapping, kind: AccountType) -> ir.Table:
    own = [status.value for status in INVALID_STATUSES]
    status = classified[f"status_{kind}"]
    wanted = status.isin(own)
    is_shared = classified.is_claimed_by_both if not mapping.is_mixed() else ibis.literal(True)
    wanted = wanted & ~((status == Status.ACCOUNT_TYPE_AMBIGUOUS.value) & is_shared)
    rows = classified.filter(wanted).mutate(account=classified[f"account_{kind}"])
    return _reported(rows, rows[f"status_{kind}"], kind=kind, column=mapping.account_types()[kind].column)


def _near_accounts(near: ir.Table, *, kind: AccountType, column: str) -> ir.Table:
    return _reported(near, Reason.ACCOUNT_NEAR_ANOTHER.value, kind=kind, column=column, value=near.near)


def _invalid_values(
    compared: ir.Table, number: int, *, kind: AccountType, name: str, attribute: AttributeMapping
) -> ir.Table:
    rows = compared.filter(compared[f"reason_{number}"].notnull())
    return _reported(
        rows,
        rows[f"reason_{number}"],
        kind=kind,
        column=attribute.column,
        attribute=name,
        value=rows[f"text_{number}"],
        sent_value=rows[f"value_{number}"],
    )


def count_found(
    engine: Engine,
    classified: ir.Table,
    superseded: Mapping[AccountType, ir.Table],
    near: Mapping[AccountType, ir.Table],
    compared: Mapping[AccountType, ir.Table],
    *,
    mapping: SyncMapping,
    missing: int,
) -> int:
    """How many rows there must be, counted where each was found and not from the rows made of it.

    `missing` are the profiles without any account, counted among all that were looked at.
    """
    invalid = [status.value for status in INVALID_STATUSES]
    counts = {f"invalid_{kind}": classified[f"status_{kind}"].isin(invalid).sum() for kind in superseded}
    counts["shared"] = _is_shared(classified, mapping).sum()
    (found,) = engine.rows(classified.aggregate(**counts))
    shared = int(found.pop("shared") or 0)  # stands under both account types, and is one row
    total = missing + sum(int(count or 0) for count in found.values()) - shared
    for kind, mine in mapping.account_types().items():
        (rows,) = engine.rows(superseded[kind].aggregate(rows=superseded[kind].count()))
        (alike,) = engine.rows(near[kind].aggregate(rows=near[kind].count()))
        reasons = {f"n{number}": compared[kind][f"reason_{number}"].count() for number in range(len(mine.attributes))}
        (values,) = engine.rows(compared[kind].aggregate(**reasons))
        total += int(rows["rows"]) + int(alike["rows"]) + sum(int(count) for count in values.values())
    return total


def with_source(rows: ir.Table, files: ir.Table) -> ir.Table:
    """The file's number replaced by its path, and what people need to read the row."""
    joined = rows.join(files, rows[FILE] == files.number)
    explained = {
        "severity": joined.reason.cases(*((r.value, e.severity.value) for r, e in EXPLAINED.items())),
        "explanation": joined.reason.cases(*((r.value, e.explanation) for r, e in EXPLAINED.items())),
        "fix": joined.reason.cases(*((r.value, e.fix) for r, e in EXPLAINED.items())),
    }
    wide = joined.mutate(source_row=joined[ROW], **explained)
    outcome = ibis.ifelse(wide.severity == Severity.ERROR.value, "invalid", ibis.null(str))
    return wide.mutate(outcome=outcome).drop(FILE, ROW, "number")


def stop_on_policy(engine: Engine, invalid: ir.Table, files: ir.Table, *, mapping: SyncMapping, path: Path) -> None:
    """Raise for the first attribute whose YAML says `too_long: fail` and that has such a value."""
    failing = [
        name
        for mine in mapping.account_types().values()
        for name, attribute in mine.attributes.items()
        if attribute.too_long is TooLong.FAIL
    ]
    if not failing:
        return
    hits = invalid.filter(invalid.attribute.isin(failing) & (invalid.reason == Reason.VALUE_TOO_LONG.value))
    located = hits.join(files, hits[FILE] == files.number).order_by(["number", ROW])
    found = engine.rows(located.mutate(total=located.count().over()).limit(1))
    if found:
        first = found[0]
        raise ValuePolicyError(
            f"{first['total']} values are longer than 50 bytes under `too_long: fail`; the first is attribute "
            f"{first['attribute']!r}, column {first['column']!r}, {first['value_bytes']} bytes, in "
            f"{first['source_file']}, row {first[ROW]} (counted from 0). Shorten them in the source, or choose "
            "`too_long: reject` or `truncate`. Nothing was sent; all of them stand in "
            f"{path}"
        )
