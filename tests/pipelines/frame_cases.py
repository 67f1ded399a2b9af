"""Small sources through the engine, in the words of `tests/reference.py`, so that both can be compared row by row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.parquet import read_manifest
from connectors.tencent_push.protocol import AccountType
from pipelines.engine import Engine
from pipelines.frames import Frames, compute_frames
from pipelines.mapping import SyncMapping, mapping_from
from tests.reference import FAILED_ROW_COLUMNS, Change, Expected, FailedRow, expect

Row = Mapping[str, Any]
Attributes = Mapping[str, Mapping[str, str]]  # account -> attribute -> value
Names = Mapping[str, Sequence[str]]  # account -> attributes
METADATA = {"sync": "small", "run_id": "run-1", "target": "emulator-1"}
UNCERTAIN = "\x00"  # acknowledged as this, in the reference, an attribute differs from whatever could be sent
_COMPARED = [name for name in FAILED_ROW_COLUMNS if name not in ("stage", "error_code")]


@dataclass(frozen=True, slots=True)
class Computed:
    """What the engine made of a source. `changes` by account type and account, as the reference gives them."""

    frames: Frames
    changes: dict[str, dict[str, Change]]
    counts: dict[str, dict[str, int]]
    invalid_rows: list[FailedRow]

    def rows(self, kind: str) -> list[dict[str, Any]]:
        (frame,) = (frame for frame in self.frames.frames if frame.account_type == kind)
        rows: list[dict[str, Any]] = pq.read_table(frame.path).to_pylist()
        return rows

    def reasons(self) -> list[tuple[str, str | None]]:
        return sorted((row["reason"], row["account_type"]) for row in self.invalid_rows)


def write_source(folder: Path, *files: Sequence[Row], schema: pa.Schema) -> list[Path]:
    """Each of `files` as `0.parquet`, ... in row groups of three, so that small files have several as well."""
    paths = []
    for number, rows in enumerate(files):
        path = folder / f"{number}.parquet"
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path, row_group_size=3)
        paths.append(path)
    return paths


def sync_of(sync: Mapping[str, Any]) -> SyncMapping:
    return mapping_from({"source": {"parquet": "unused"}, **sync})


def compute(
    engine: Engine,
    files: Iterable[Path],
    sync: Mapping[str, Any],
    *,
    acknowledged: Attributes | None = None,
    uncertain: Names | None = None,
    folder: Path | None = None,
) -> Computed:
    """The frames of `files` in the order given, beside the first of them unless `folder` says where."""
    paths = [str(file) for file in files]
    mapping = sync_of(sync)
    frames = compute_frames(
        engine,
        read_manifest(paths, columns=mapping.columns(), base=Path("/")),
        mapping=mapping,
        acknowledged=_acknowledged_tables(engine, mapping, acknowledged, uncertain or {}),
        folder=folder or Path(paths[0]).parent / "frames",
        metadata=METADATA,
    )
    return as_computed(frames)


def as_computed(frames: Frames) -> Computed:
    return Computed(
        frames=frames,
        changes={frame.account_type.value: _changes(frame.path) for frame in frames.frames},
        counts={frame.account_type.value: asdict(frame.counts) for frame in frames.frames},
        invalid_rows=_in_order(pq.read_table(frames.invalid_rows).to_pylist()),
    )


def expected(
    files: Iterable[Path],
    sync: Mapping[str, Any],
    *,
    acknowledged: Attributes | None = None,
    uncertain: Names | None = None,
) -> Expected:
    """What the reference says, its failed rows reduced to those of validation and to the columns of invalid rows."""
    before = {account: dict(attributes) for account, attributes in (acknowledged or {}).items()}
    for account, names in (uncertain or {}).items():
        before.setdefault(account, {}).update(dict.fromkeys(names, UNCERTAIN))
    found = expect(list(files), sync, acknowledged=before)
    found.failed_rows = _in_order([row for row in found.failed_rows if row["stage"] == "validate"])
    return found


def require_agreement(computed: Computed, reference: Expected) -> None:
    """Frames, counts and invalid rows are the reference's, one by one."""
    assert computed.changes == reference.changes
    assert computed.invalid_rows == reference.failed_rows
    for kind, counts in computed.counts.items():
        asked = asdict(reference.counts[kind]) | {"classified": reference.counts[kind].profiles}
        assert counts == {name: asked[name] for name in counts}
    assert all(frame.counts.is_conserved for frame in computed.frames.frames)


def _acknowledged_tables(
    engine: Engine, mapping: SyncMapping, acknowledged: Attributes | None, uncertain: Names
) -> dict[AccountType, ir.Table | None]:
    """As `AcknowledgedAttributes.table` would give them."""
    if acknowledged is None and not uncertain:
        return dict.fromkeys(mapping.account_types())
    known = acknowledged or {}
    tables: dict[AccountType, ir.Table | None] = {}
    for kind, mine in mapping.account_types().items():
        accounts = sorted({*known, *uncertain})
        columns = {"account": pa.array(accounts, pa.string())}
        for name in mine.attributes:
            columns[name] = pa.array([known.get(account, {}).get(name) for account in accounts], pa.string())
        columns["uncertain"] = pa.array(
            [[name for name in mine.attributes if name in uncertain.get(account, ())] for account in accounts],
            pa.list_(pa.string()),
        )
        tables[kind] = engine.register(f"known_before_{kind}", pa.table(columns))
    return tables


def _changes(frame: Path) -> dict[str, Change]:
    changes = {}
    for row in pq.read_table(frame).to_pylist():
        if row["changed"] or row["removed"]:
            assert row["account"] not in changes
            changes[row["account"]] = Change({name: row[name] for name in row["changed"]}, row["removed"])
    return changes


def _in_order(rows: Iterable[FailedRow]) -> list[FailedRow]:
    compared = [{name: row[name] for name in _COMPARED} for row in rows]
    return sorted(compared, key=lambda row: repr(list(row.values())))
