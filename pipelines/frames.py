"""Profiles -> attribute frames and invalid rows: what is open, the newest of it, validated, compared, written.

A narrow pass (narrow.py) leaves aside what is settled; everything that follows looks at open profiles alone: who is
irregular, who is superseded (duplicates.py), what differs (comparison.py). Few open profiles are kept as a table of
the engine; where all are open they are read again where they lie. No step holds all rows in Python, and nothing is
sent here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import ibis
import ibis.expr.types as ir

from connectors.profiles.parquet import Manifest
from connectors.tencent_push.protocol import AccountType
from pipelines import accounts
from pipelines.accounts import INVALID_STATUSES, Status
from pipelines.comparison import IS_SETTLED, KNOWN_CONTENT, beside_known, compared, newest, settled_rows
from pipelines.departed import departed, require_accounts
from pipelines.duplicates import near, rivals, superseded
from pipelines.engine import Engine
from pipelines.invalid_rows import count_found, invalid_rows, stop_on_policy, with_source
from pipelines.mapping import Departed, SyncMapping
from pipelines.narrow import (
    CONTENT,
    Narrowed,
    account_column,
    account_key,
    is_missing,
    narrowed,
    open_column,
    status_column,
)
from pipelines.source_rows import FILE, ROW, file_table, numbered_profiles
from pipelines.values import utf8_bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """Where every profile of one account type went, each number counted in its own place.

    Conservation: all were classified, and they are the sum of the five kinds that follow. Of the changed,
    `departed` have no profile: their attributes are removed since no profile has the account any more.
    """

    profiles: int
    classified: int
    without_account: int
    superseded: int
    invalid: int
    unchanged: int
    changed: int
    departed: int = 0

    @property
    def is_conserved(self) -> bool:
        placed = self.without_account + self.superseded + self.invalid + self.unchanged + self.changed - self.departed
        return self.profiles == self.classified == placed


@dataclass(frozen=True, slots=True)
class Frame:
    """One account type's frame on disk: of the `chosen_rows`, `rows` are in it; `counts.changed` are changes.

    `departed` accounts have no profile any more; whether they are among the changes says the mapping.
    """

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
    departed: int = 0


@dataclass(frozen=True, slots=True)
class Frames:
    """What the profiles gave. `invalid_by_reason` is read back from the file; `invalid_found` is not.

    `learned` names, per account type, accounts that are as Tencent acknowledged them, and the digest of their profile.
    It is a table of the engine.
    """

    frames: tuple[Frame, ...]
    invalid_rows: Path
    invalid_by_reason: Mapping[str, int]
    invalid_found: int
    learned: Mapping[AccountType, ir.Table]


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
    found = narrowed(engine, numbered_profiles(engine, manifest, mapping), mapping, acknowledged)
    irregular = engine.materialize("irregular", _irregular(found.rows, mapping))
    looks = {kind: _look(engine, found, mapping, kind) for kind in mapping.account_types()}
    older = {kind: look.older for kind, look in looks.items()}
    alike = {kind: look.alike for kind, look in looks.items()}
    noted = {kind: look.noted for kind, look in looks.items()}
    files = engine.register("source_files", file_table(manifest))
    invalid = engine.materialize("invalid_rows", invalid_rows(irregular, older, alike, noted, mapping=mapping))
    path = folder / "invalid_rows.parquet"
    engine.write_parquet(with_source(invalid, files), path, metadata=metadata)
    stop_on_policy(engine, invalid, files, mapping=mapping, path=path)
    frames = tuple(
        _write_frame(
            engine,
            look,
            files,
            aside=found.aside.get(kind),
            mapping=mapping,
            path=folder / f"{kind}.parquet",
            metadata=metadata,
            counted=_count(engine, found, irregular, look, profiles=manifest.rows),
        )
        for kind, look in looks.items()
    )
    written = engine.parquet("written_invalid_rows", path)
    by_reason = engine.rows(written.group_by("reason").agg(rows=written.count()).order_by("reason"))
    return Frames(
        frames=frames,
        invalid_rows=path,
        invalid_by_reason={row["reason"]: row["rows"] for row in by_reason},
        invalid_found=count_found(engine, irregular, older, alike, noted, mapping=mapping, missing=found.missing),
        learned={kind: _learned(noted[kind]) for kind in looks},
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """What the open profiles of one account type are, as tables of the engine or expressions over them.

    `older` are superseded, `alike` have a near account. `rows` are the newest, compared, without the `settled` ones
    that need not be; `noted` are of these the ones that do not change or have something to report. `gone` are the
    departed accounts.
    """

    kind: AccountType
    older: ir.Table
    alike: ir.Table
    rows: ir.Table
    noted: ir.Table
    settled: int
    gone: ir.Table | None


def _look(engine: Engine, found: Narrowed, mapping: SyncMapping, kind: AccountType) -> _Look:
    """Compared rows are kept where most of them are no changes; on a first run, they are computed twice instead."""
    crowded = rivals(engine, found.rows, mapping, kind)
    older = superseded(engine, crowded, kind)
    alike = near(engine, crowded, older, kind)
    beside = beside_known(newest(found.rows, older, kind), mapping, kind, known=found.known[kind])
    gone = departed(engine, found, mapping, kind)
    if found.known[kind] is None:
        rows = compared(beside, mapping, kind, is_first=True)
        noted = engine.materialize(f"noted_{kind}", _noted(rows))
        return _Look(kind, older, alike, rows, noted, settled=0, gone=gone)
    settled = 0
    if found.is_copy and mapping.frames == "changed":
        (counted,) = engine.rows(beside.aggregate(settled=beside[IS_SETTLED].sum()))
        settled = int(counted["settled"] or 0)
        beside = beside.filter(~beside[IS_SETTLED])
    wanted = compared(beside, mapping, kind, is_first=False, is_slim=mapping.frames == "changed")
    rows = engine.materialize(f"compared_{kind}", wanted)
    return _Look(kind, older, alike, rows, _noted(rows), settled=settled, gone=gone)


def _irregular(rows: ir.Table, mapping: SyncMapping) -> ir.Table:
    """Profiles with something to tell about their accounts: one account and status per account type."""
    columns: dict[str, ir.Value] = {FILE: rows[FILE], ROW: rows[ROW]}
    is_open = []
    for kind in mapping.account_types():
        columns[open_column(kind)] = rows[open_column(kind)]
        columns[f"account_{kind}"] = rows[account_column(kind)]
        columns[f"status_{kind}"] = rows[status_column(kind)]
        is_open.append(columns[open_column(kind)] & (columns[f"status_{kind}"] != Status.CANDIDATE.value))
    columns["is_missing"] = is_missing(rows, mapping)
    columns["is_claimed_by_both"] = accounts.is_claimed_by_both(rows, mapping)
    return rows.filter(ibis.or_(columns["is_missing"], *is_open)).select(**columns)


def _noted(rows: ir.Table) -> ir.Table:
    return rows.filter(rows.is_note).drop("changed", "removed", "is_note")


def _learned(noted: ir.Table) -> ir.Table:
    """Account and digest of what turned out to be settled although its digest was not known."""
    is_new = (noted[KNOWN_CONTENT] != noted[CONTENT]).fill_null(True)
    rows = noted.filter(~noted.is_change & ~noted.is_uncertain & noted[CONTENT].notnull() & is_new)
    return rows.select("account", CONTENT)


def _count(engine: Engine, found: Narrowed, irregular: ir.Table, look: _Look, *, profiles: int) -> dict[str, int]:
    """Counts of the profiles that are no changes, each from its own place."""
    kind, noted = look.kind, look.noted
    status = irregular[f"status_{kind}"]
    is_open = irregular[open_column(kind)]
    (counted,) = engine.rows(
        irregular.aggregate(
            without_account=(is_open & (status == Status.WITHOUT_ACCOUNT.value)).sum(),
            invalid=(is_open & status.isin([each.value for each in INVALID_STATUSES])).sum(),
        )
    )
    (older,) = engine.rows(look.older.aggregate(superseded=look.older.count()))
    (same,) = engine.rows(noted.aggregate(unchanged=(~noted.is_change).sum()))
    return {
        "profiles": profiles,
        "classified": found.settled[kind] + found.without[kind] + found.open[kind],
        "without_account": found.without[kind] + int(counted["without_account"] or 0),
        "invalid": int(counted["invalid"] or 0),
        "superseded": int(older["superseded"]),
        "unchanged": found.settled[kind] + look.settled + int(same["unchanged"] or 0),
    }


def _write_frame(
    engine: Engine,
    look: _Look,
    files: ir.Table,
    *,
    aside: ir.Table | None,
    mapping: SyncMapping,
    path: Path,
    metadata: Mapping[str, str],
    counted: Mapping[str, int],
) -> Frame:
    kind, rows, gone = look.kind, look.rows, look.gone
    names = list(mapping.account_types()[kind].attributes)
    wanted = rows if mapping.frames == "all" else rows.filter(rows.is_change)
    if aside is not None and mapping.frames == "all":
        others = settled_rows(aside, mapping, kind)
        wanted = wanted.select(others.columns).union(others)
    joined = wanted.join(files, wanted[FILE] == files.number)
    values = [joined[f"value_{number}"].name(name) for number, name in enumerate(names)]
    contents = joined.select(
        joined.account,
        *values,
        joined.changed,
        joined.removed,
        joined.source_file,
        joined[ROW].name("source_row"),
        joined[CONTENT],
    )
    departed_accounts = 0 if gone is None else int(engine.rows(gone.aggregate(rows=gone.count()))[0]["rows"])
    removed = departed_accounts if mapping.departed is Departed.REMOVE else 0
    if gone is not None and removed:
        contents = contents.union(_cleared(gone, contents))
    chosen = counted["classified"] - counted["without_account"] - counted["invalid"] - counted["superseded"]
    require_accounts(mapping, mapping.account_types()[kind], accounts_left=chosen, gone=departed_accounts)
    engine.write_parquet(contents, path, metadata=metadata)
    if mapping.frames == "changed":
        chosen -= counted["unchanged"]
    frame = measure_frame(
        engine, path, kind=kind, names=names, chosen_rows=chosen + removed, counts=dict(counted, departed=removed)
    )
    return replace(frame, departed=departed_accounts)


def _cleared(gone: ir.Table, frame: ir.Table) -> ir.Table:
    """Departed accounts as rows of `frame`, from no source."""
    columns = {name: ibis.null(kind) for name, kind in frame.schema().items()}
    columns |= {"changed": ibis.literal([], type="array<string>"), "removed": gone.removed.cast("array<string>")}
    return gone.select("account", **{name: columns[name] for name in frame.columns if name != "account"})


def measure_frame(
    engine: Engine, path: Path, *, kind: AccountType, names: list[str], chosen_rows: int, counts: dict[str, int]
) -> Frame:
    """Counts of the frame as it stands on disk, so that a row lost while writing is seen by the checks."""
    written = engine.parquet(f"frame_{kind}", path)
    lengths = [utf8_bytes(written[name]) for name in names]
    measures: dict[str, ir.Value] = {
        "rows": written.count(),
        "keys": account_key(written.account).nunique(),
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
        accounts=_distinct_accounts(engine, written, rows=int(found["rows"]), keys=int(found["keys"])),
        set_accounts=int(found["set_accounts"]),
        remove_accounts=int(found["remove_accounts"]),
        changed_attributes={name: int(found[f"changed_{n}"]) for n, name in enumerate(names)},
        largest_value_bytes=int(found["largest"]),
        smallest_value_bytes=int(found["smallest"]),
        counts=Counts(changed=int(found["changed"]), **counts),
    )


def _distinct_accounts(engine: Engine, written: ir.Table, *, rows: int, keys: int) -> int:
    """As many keys as rows are as many accounts; only where keys coincide are the accounts themselves compared."""
    if keys == rows:
        return rows
    return int(engine.rows(written.aggregate(accounts=written.account.nunique()))[0]["accounts"])


def frame_columns(mapping: SyncMapping, kind: AccountType) -> Iterator[tuple[str, str]]:
    """(frame column, source column) of every column that comes from the source, for lineage."""
    mine = mapping.account_types()[kind]
    yield "account", mine.column
    for name, attribute in mine.attributes.items():
        yield name, attribute.column
