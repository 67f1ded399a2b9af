"""Everything that was not acknowledged, as one Parquet file per run that people can read without asking.

The columns are a contract (see README): adding one is allowed, changing or dropping one is not. Validation's part
comes from the invalid rows, the push's part from refusals.py; both are joined here with the row's history. A row of an
account that no profile has any more has no source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.tencent_push.errors import Reason as RefusalReason
from connectors.tencent_push.protocol import AccountType
from pipelines.engine import ROW_NUMBER, Engine
from pipelines.mapping import SyncMapping
from pipelines.reasons import DEPARTED_EXPLANATION, DEPARTED_UNKNOWN_FIX, Severity
from pipelines.refusals import moment_of

SCHEMA_VERSION = "1"
_TIME = pa.timestamp("us", "UTC")

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("sync", pa.string()),
        ("target", pa.string()),
        ("run_started_at", _TIME),
        ("failed_at", _TIME),
        ("stage", pa.string()),
        ("severity", pa.string()),
        ("outcome", pa.string()),
        ("account", pa.string()),
        ("account_type", pa.string()),
        ("attribute", pa.string()),
        ("column", pa.string()),
        ("reason", pa.string()),
        ("error_code", pa.int32()),
        ("error_info", pa.string()),
        ("explanation", pa.string()),
        ("fix", pa.string()),
        ("retryable", pa.bool_()),
        ("value", pa.string()),
        ("sent_value", pa.string()),
        ("value_bytes", pa.int32()),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("batch_id", pa.string()),
        ("call_attempts", pa.int32()),
        ("http_status", pa.int32()),
        ("first_failed_at", _TIME),
        ("failed_runs", pa.int32()),
    ]
)

_KEY = ("account", "account_type", "attribute", "reason")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What every failed row says of its run. `target` is the host; `app` tells apps at one host apart."""

    run_id: str
    sync: str
    target: str
    app: str
    run_started_at: datetime
    validated_at: datetime

    def file_metadata(self) -> dict[str, str]:
        """What the next run needs to find the file again, whatever became of its name and times."""
        return {
            "schema_version": SCHEMA_VERSION,
            "app": self.app,
            "run_id": self.run_id,
            "run_started_at": self.run_started_at.astimezone(UTC).isoformat(),
        }


def write_failed_rows(
    engine: Engine,
    path: Path,
    *,
    facts: RunFacts,
    mapping: SyncMapping,
    invalid_rows: Path,
    refused: ir.Table,
    frames: Mapping[AccountType, Path],
    history: Path | None,
) -> int:
    """Write the run's failed rows to `path`, also when there are none; returns how many.

    `refused` has a row per change and command that was not acknowledged (refusals.REFUSAL_SCHEMA). `history` is the
    failed-rows file of the sync's run before, which tells since when a row has been failing.
    """
    invalid = engine.parquet("failed_invalid", invalid_rows)
    parts = [_of_validation(invalid, facts)]
    for kind, frame in frames.items():
        rows = engine.numbered_parquet(f"failed_frame_{kind}", frame)
        parts.append(_of_push(refused, rows, kind=kind, column=mapping.account_types()[kind].column))
    failed = ibis.union(*parts).mutate(
        run_id=ibis.literal(facts.run_id),
        sync=ibis.literal(facts.sync),
        target=ibis.literal(facts.target),
        run_started_at=moment_of(facts.run_started_at),
    )
    before = None if history is None else engine.parquet("failed_before", history)
    with_history = _with_history(failed, before, facts)
    return engine.write_parquet(with_history.select(*SCHEMA.names), path, metadata=facts.file_metadata())


def latest_before(folder: Path, *, run_id: str, app: str) -> Path | None:
    """The failed-rows file of the newest other run against the same app; what cannot be read is passed over.

    People open, copy and spoil files here: a file is known by what it says of itself, not by its name or time.
    """
    newest: tuple[str, Path] | None = None
    for file in folder.glob("date=*/*.parquet"):
        facts = _facts_of(file)
        if facts.get("run_id", run_id) != run_id and facts.get("app") == app:
            newest = max(newest or ("", file), (facts["run_started_at"], file))
    return newest[1] if newest else None


def _facts_of(file: Path) -> dict[str, str]:
    try:
        metadata = pq.read_metadata(file).metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    return {key.decode(): value.decode(errors="replace") for key, value in metadata.items() if key != b"ARROW:schema"}


def _of_validation(invalid: ir.Table, facts: RunFacts) -> ir.Table:
    null, number = ibis.null(str), ibis.null("int32")
    return invalid.select(
        *(name for name in invalid.columns if name in SCHEMA.names),
        failed_at=moment_of(facts.validated_at),
        stage=ibis.literal("validate"),
        error_code=number,
        error_info=null,
        retryable=ibis.literal(False),
        batch_id=null,
        call_attempts=number,
        http_status=number,
    ).select(*_COMMON)


def _of_push(refused: ir.Table, frame: ir.Table, *, kind: AccountType, column: str) -> ir.Table:
    null = ibis.null(str)
    mine = refused.filter(refused.account_type == kind.value)
    rows = frame.select(frame_number=frame[ROW_NUMBER], account=frame.account, source_file=frame.source_file,
                        source_row=frame.source_row)  # fmt: skip
    joined = mine.join(rows, mine.number == rows.frame_number)
    has_departed = joined.source_file.isnull()
    is_unknown = joined.reason == RefusalReason.ACCOUNT_UNKNOWN.value
    return joined.mutate(
        explanation=ibis.ifelse(has_departed, joined.explanation + DEPARTED_EXPLANATION, joined.explanation),
        fix=ibis.ifelse(has_departed & is_unknown, DEPARTED_UNKNOWN_FIX, joined.fix),
        severity=ibis.literal(Severity.ERROR.value),
        attribute=null,
        column=ibis.literal(column),
        value=null,
        sent_value=null,
        value_bytes=ibis.null("int32"),
    ).select(*_COMMON)


_OF_RUN = ("run_id", "sync", "target", "run_started_at", "first_failed_at", "failed_runs")
_COMMON = [name for name in SCHEMA.names if name not in _OF_RUN]


def _with_history(failed: ir.Table, before: ir.Table | None, facts: RunFacts) -> ir.Table:
    """`first_failed_at` and `failed_runs` go on from the run before for the same account, attribute and reason."""
    if before is None:
        return failed.mutate(first_failed_at=failed.failed_at, failed_runs=ibis.literal(1, type="int32"))
    same_target = before.filter((before.target == facts.target) & before.account.notnull())
    known = same_target.group_by(*_KEY).agg(
        known_since=same_target.first_failed_at.min(), known_runs=same_target.failed_runs.max()
    )
    known = known.rename({f"known_{name}": name for name in _KEY})
    same = [failed[name].identical_to(known[f"known_{name}"]) for name in _KEY]
    joined = failed.left_join(known, same)
    return joined.mutate(
        first_failed_at=joined.known_since.fill_null(joined.failed_at),
        failed_runs=(joined.known_runs.fill_null(0) + 1).cast("int32"),
    )
