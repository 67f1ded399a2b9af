"""Profiles -> attribute frames and invalid rows: classify, keep the newest, validate, compare with the acknowledged.

One narrow pass decides whom every profile is for, a narrow window finds superseded profiles, one wide pass validates
the values and compares them with what Tencent acknowledged. No step holds all rows in Python. Nothing is sent here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir

from connectors.profiles.parquet import Manifest
from connectors.tencent_push.protocol import AccountType
from pipelines import accounts
from pipelines.accounts import INVALID_STATUSES, Status
from pipelines.engine import Engine
from pipelines.invalid_rows import count_found, invalid_rows, stop_on_policy, with_source
from pipelines.mapping import AccountMapping, NullPolicy, SyncMapping
from pipelines.source_rows import FILE, ROW, file_table, numbered_profiles
from pipelines.values import ValueExpressions, orderable, utf8_bytes, value_expressions


@dataclass(frozen=True, slots=True)
class Counts:
    """Where every profile of one account type went, each number counted in its own place.

    Conservation: all were classified, and they are the sum of the five kinds that follow.
    """

    profiles: int
    classified: int
    without_account: int
    superseded: int
    invalid: int
    unchanged: int
    changed: int

    @property
    def is_conserved(self) -> bool:
        placed = self.without_account + self.superseded + self.invalid + self.unchanged + self.changed
        return self.profiles == self.classified == placed


@dataclass(frozen=True, slots=True)
class Frame:
    """One account type's frame on disk: of the `chosen_rows`, `rows` are in it; `counts.changed` are changes."""

    account_type: AccountType
    path: Path
    rows: int
    chosen_rows: int
    accounts: int
    set_accounts: int
    remove_accounts: int
    changed_attributes: Mapping[str, int]
    largest_value_bytes: int
    smallest_value_bytes: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class Frames:
    """What one pass over the profiles gave. `invalid_by_reason` is read back from the file; `invalid_found` is not."""

    frames: tuple[Frame, ...]
    invalid_rows: Path
    invalid_by_reason: Mapping[str, int]
    invalid_found: int


def compute_frames(
    engine: Engine,
    manifest: Manifest,
    *,
    mapping: SyncMapping,
    acknowledged: Mapping[AccountType, ir.Table | None],
    folder: Path,
    metadata: Mapping[str, str],
) -> Frames:
    """Write `<folder>/<account type>.parquet` and `<folder>/invalid_rows.parquet`.

    `acknowledged` holds per account type what Tencent confirmed, or None on the first run. Raises ValuePolicyError
    for a value that is too long under `too_long: fail`; the invalid rows are written first.
    """
    profiles = numbered_profiles(engine, manifest, mapping)
    classified = engine.materialize("classified", _classified(profiles, mapping))
    compared: dict[AccountType, ir.Table] = {}
    superseded: dict[AccountType, ir.Table] = {}
    for kind in mapping.account_types():
        superseded[kind] = engine.materialize(f"superseded_{kind}", _superseded(classified, mapping, kind))
        rows = _newest(profiles, mapping, kind).anti_join(superseded[kind], [FILE, ROW])
        compared[kind] = engine.materialize(
            f"compared_{kind}", _compared(rows, mapping.account_types()[kind], acknowledged.get(kind))
        )
    files = engine.register("source_files", file_table(manifest))
    invalid = engine.materialize("invalid_rows", invalid_rows(classified, superseded, compared, mapping=mapping))
    path = folder / "invalid_rows.parquet"
    engine.write_parquet(with_source(invalid, files), path, metadata=metadata)
    stop_on_policy(engine, invalid, files, mapping=mapping, path=path)
    frames = tuple(
        _write_frame(
            engine,
            compared[kind],
            files,
            kind=kind,
            mapping=mapping,
            path=folder / f"{kind}.parquet",
            metadata=metadata,
            outside=_count_outside(engine, classified, superseded[kind], kind=kind, profiles=manifest.rows),
        )
        for kind in mapping.account_types()
    )
    written = engine.parquet("written_invalid_rows", path)
    by_reason = engine.rows(written.group_by("reason").agg(rows=written.count()).order_by("reason"))
    return Frames(
        frames=frames,
        invalid_rows=path,
        invalid_by_reason={row["reason"]: row["rows"] for row in by_reason},
        invalid_found=count_found(engine, classified, superseded, compared, mapping=mapping),
    )


def _classified(profiles: ir.Table, mapping: SyncMapping) -> ir.Table:
    """Whom every profile is for: one row per profile, one account and status per account type."""
    types = mapping.account_types()
    columns: dict[str, ir.Value] = {FILE: profiles[FILE], ROW: profiles[ROW]}
    if mapping.updated_at:
        columns["updated_at"] = orderable(profiles[mapping.updated_at])
    for kind, mine in types.items():
        columns[f"account_{kind}"] = accounts.account_text(profiles, mine.column)
        columns[f"status_{kind}"] = accounts.status(profiles, mapping, kind)
    blank = [accounts.is_blank(accounts.account_text(profiles, mine.column)) for mine in types.values()]
    columns["is_missing"] = ibis.and_(*blank)
    columns["is_claimed_by_both"] = accounts.is_claimed_by_both(profiles, mapping)
    return profiles.select(**columns)


def _superseded(classified: ir.Table, mapping: SyncMapping, kind: AccountType) -> ir.Table:
    """Profiles that a newer one of the same account replaces: `updated_at`, nulls oldest, then the later source row."""
    candidates = classified.filter(classified[f"status_{kind}"] == Status.CANDIDATE.value)
    newest_first = [ibis.desc(candidates[FILE]), ibis.desc(candidates[ROW])]
    if mapping.updated_at:
        newest_first.insert(0, ibis.desc(candidates.updated_at, nulls_first=False))
    rank = ibis.row_number().over(group_by=candidates[f"account_{kind}"], order_by=newest_first)
    ranked = candidates.select(FILE, ROW, account=candidates[f"account_{kind}"], rank=rank)
    return ranked.filter(ranked["rank"] > 0).drop("rank")


def _newest(profiles: ir.Table, mapping: SyncMapping, kind: AccountType) -> ir.Table:
    return profiles.filter(accounts.status(profiles, mapping, kind) == Status.CANDIDATE.value)


def _compared(profiles: ir.Table, mine: AccountMapping, acknowledged: ir.Table | None) -> ir.Table:
    """One row per account: values, what is reported about them, and which differ from what is acknowledged."""
    columns: dict[str, ir.Value] = {
        FILE: profiles[FILE],
        ROW: profiles[ROW],
        "account": accounts.account_text(profiles, mine.column),
    }
    for number, attribute in enumerate(mine.attributes.values()):
        expressions = value_expressions(profiles[attribute.column], attribute)
        columns |= _value_columns(number, expressions)
    values = profiles.select(**columns)
    joined = _with_acknowledged(values, mine, acknowledged)
    changed = [ibis.ifelse(_differs(joined, number, name), name, None) for number, name in enumerate(mine.attributes)]
    removed = [
        ibis.ifelse(_is_to_remove(joined, number, name), name, None)
        for number, (name, attribute) in enumerate(mine.attributes.items())
        if attribute.null is NullPolicy.REMOVE
    ]
    return joined.select(
        *values.columns,
        changed=_names(changed),
        removed=_names(removed),
    ).drop(*(f"absent_{number}" for number in range(len(mine.attributes))))


def _value_columns(number: int, expressions: ValueExpressions) -> dict[str, ir.Value]:
    is_reported = expressions.reason.notnull()
    return {
        f"value_{number}": expressions.value,
        f"reason_{number}": expressions.reason,
        f"text_{number}": ibis.ifelse(is_reported, expressions.text, ibis.null(str)),
        f"absent_{number}": expressions.is_absent,
    }


def _with_acknowledged(values: ir.Table, mine: AccountMapping, acknowledged: ir.Table | None) -> ir.Table:
    """`values` with `known_<n>` (the acknowledged value or null) and `uncertain` (names whose value is not known)."""
    if acknowledged is None:
        nothing = {f"known_{number}": ibis.null(str) for number in range(len(mine.attributes))}
        return values.mutate(uncertain=ibis.null("array<string>"), **nothing)
    known = {
        f"known_{number}": acknowledged[name] if name in acknowledged.columns else ibis.null(str)
        for number, name in enumerate(mine.attributes)
    }
    known_rows = acknowledged.select(known_account=acknowledged.account, uncertain=acknowledged.uncertain, **known)
    return values.left_join(known_rows, values.account == known_rows.known_account)


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


def _count_outside(
    engine: Engine, classified: ir.Table, superseded: ir.Table, *, kind: AccountType, profiles: int
) -> dict[str, int]:
    """Counts of the profiles that are in no frame, each from its own place."""
    status = classified[f"status_{kind}"]
    counted = engine.rows(
        classified.aggregate(
            classified=classified.count(),
            without_account=(status == Status.WITHOUT_ACCOUNT.value).sum().fill_null(0),
            invalid=status.isin([each.value for each in INVALID_STATUSES]).sum().fill_null(0),
        )
    )[0]
    gone = engine.rows(superseded.aggregate(superseded=superseded.count()))[0]
    return {
        "profiles": profiles,
        "classified": int(counted["classified"]),
        "without_account": int(counted["without_account"]),
        "invalid": int(counted["invalid"]),
        "superseded": int(gone["superseded"]),
    }


def _write_frame(
    engine: Engine,
    compared: ir.Table,
    files: ir.Table,
    *,
    kind: AccountType,
    mapping: SyncMapping,
    path: Path,
    metadata: Mapping[str, str],
    outside: Mapping[str, int],
) -> Frame:
    names = list(mapping.account_types()[kind].attributes)
    is_change = (compared.changed.length() > 0) | (compared.removed.length() > 0)
    wanted = compared if mapping.frames == "all" else compared.filter(is_change)
    joined = wanted.join(files, wanted[FILE] == files.number)
    values = [joined[f"value_{number}"].name(name) for number, name in enumerate(names)]
    engine.write_parquet(
        joined.select(
            joined.account,
            *values,
            joined.changed,
            joined.removed,
            joined.source_file,
            joined[ROW].name("source_row"),
        ),
        path,
        metadata=metadata,
    )
    unchanged = engine.rows(compared.aggregate(unchanged=(~is_change).sum().fill_null(0)))[0]["unchanged"]
    chosen = engine.rows(wanted.aggregate(rows=wanted.count()))[0]["rows"]
    return measure_frame(
        engine, path, kind=kind, names=names, chosen_rows=int(chosen), counts=dict(outside, unchanged=int(unchanged))
    )


def measure_frame(
    engine: Engine, path: Path, *, kind: AccountType, names: list[str], chosen_rows: int, counts: dict[str, int]
) -> Frame:
    """Counts of the frame as it stands on disk, so that a row lost while writing is seen by the checks."""
    written = engine.parquet(f"frame_{kind}", path)
    lengths = [utf8_bytes(written[name]) for name in names]
    measures: dict[str, ir.Value] = {
        "rows": written.count(),
        "accounts": written.account.nunique(),
        "changed": ((written.changed.length() > 0) | (written.removed.length() > 0)).sum().fill_null(0),
        "set_accounts": (written.changed.length() > 0).sum().fill_null(0),
        "remove_accounts": (written.removed.length() > 0).sum().fill_null(0),
        "largest": ibis.greatest(*(length.max().fill_null(0) for length in lengths), 0),
        "smallest": ibis.least(*(length.min().fill_null(1) for length in lengths), 1),
    }
    measures |= {f"changed_{n}": written.changed.contains(name).sum().fill_null(0) for n, name in enumerate(names)}
    found = engine.rows(written.aggregate(**measures))[0]
    return Frame(
        account_type=kind,
        path=path,
        rows=int(found["rows"]),
        chosen_rows=chosen_rows,
        accounts=int(found["accounts"]),
        set_accounts=int(found["set_accounts"]),
        remove_accounts=int(found["remove_accounts"]),
        changed_attributes={name: int(found[f"changed_{n}"]) for n, name in enumerate(names)},
        largest_value_bytes=int(found["largest"]),
        smallest_value_bytes=int(found["smallest"]),
        counts=Counts(changed=int(found["changed"]), **counts),
    )


def frame_columns(mapping: SyncMapping, kind: AccountType) -> Iterator[tuple[str, str]]:
    """(frame column, source column) of every column that comes from the source, for lineage."""
    mine = mapping.account_types()[kind]
    yield "account", mine.column
    for name, attribute in mine.attributes.items():
        yield name, attribute.column
