"""The push's refusals of one run, a row per change and command, with their explanations but without account or value.

Rows of a frame are numbers here; failed_rows.py joins them with the frame. Refusals that the sink gave are collected
one by one; those that are alike and may be many (not sent any more, refused before) are expressions.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.tencent_push.errors import Reason, lookup
from connectors.tencent_push.outcomes import Outcome, OutcomeKind, Refusal
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.reasons import EXPLAINED_REFUSALS
from pipelines.store import disk_errors, make_folder

REFUSAL_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),  # of the change's row in its frame
        ("account_type", pa.string()),
        ("stage", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("error_code", pa.int32()),
        ("error_info", pa.string()),
        ("explanation", pa.string()),
        ("fix", pa.string()),
        ("retryable", pa.bool_()),
        ("batch_id", pa.string()),
        ("call_attempts", pa.int32()),
        ("http_status", pa.int32()),
        ("failed_at", pa.timestamp("us", "UTC")),
    ]
)
_IBIS_TYPES = ibis.Schema.from_pyarrow(REFUSAL_SCHEMA)
_STAGES = {Command.SET_ATTR: "push", Command.REMOVE_ATTR: "remove"}


class RefusalWriter:
    """Collects the refusals of a push in a temporary Parquet file, a chunk at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, Any]] = []
        make_folder(path.parent)
        with disk_errors(path):
            self._writer = pq.ParquetWriter(path, REFUSAL_SCHEMA)

    def __enter__(self) -> "RefusalWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with disk_errors(self.path):
            self._flush()
            self._writer.close()

    def add(self, outcomes: Sequence[Outcome], account_type: AccountType) -> None:
        for outcome in outcomes:
            self._rows += [refusal_row(outcome.change.number, refusal, account_type) for refusal in outcome.refusals]
        if len(self._rows) >= 10_000:
            with disk_errors(self.path):
                self._flush()

    def _flush(self) -> None:
        if self._rows:
            chunk = pd.DataFrame.from_records(self._rows, columns=REFUSAL_SCHEMA.names)
            self._writer.write_table(pa.Table.from_pandas(chunk, schema=REFUSAL_SCHEMA, preserve_index=False))
            self._rows.clear()


def refusal_row(number: int, refusal: Refusal, account_type: AccountType) -> dict[str, Any]:
    """One refusal in the words of the failed rows. `number` is the change's row in its frame."""
    if refusal.code is None:
        explained = EXPLAINED_REFUSALS[refusal.reason]
        explanation, fix, retryable = explained.explanation, explained.fix, True
    else:
        entry = lookup(refusal.code)
        explanation, fix, retryable = entry.meaning, entry.fix, entry.retryable
    return {
        "number": number,
        "account_type": account_type.value,
        "stage": _STAGES[refusal.command],
        "outcome": refusal.kind.value,
        "reason": refusal.reason.value,
        "error_code": refusal.code,
        "error_info": refusal.info,
        "explanation": explanation,
        "fix": fix,
        "retryable": retryable,
        "batch_id": refusal.batch_id,
        "call_attempts": refusal.call_attempts,
        "http_status": refusal.http_status,
        "failed_at": refusal.failed_at,
    }


def not_attempted(numbers: ir.Table, kind: AccountType, command: Command, *, now: datetime) -> ir.Table:
    """What the run stopped before sending. `numbers` has one column, `number`."""
    explained = EXPLAINED_REFUSALS[Reason.RUN_STOPPED]
    return _alike(
        numbers,
        now=now,
        account_type=kind.value,
        stage=_STAGES[command],
        outcome=OutcomeKind.NOT_ATTEMPTED.value,
        reason=Reason.RUN_STOPPED.value,
        explanation=explained.explanation,
        fix=explained.fix,
        retryable=True,
        call_attempts=0,
    )


def refused_before(
    numbers: ir.Table, kind: AccountType, command: Command, *, code: int, sync: str, now: datetime
) -> ir.Table:
    """What is not sent, since the very same was refused with `code` before. `numbers` has one column, `number`."""
    entry = lookup(code)
    return _alike(
        numbers,
        now=now,
        account_type=kind.value,
        stage=_STAGES[command],
        outcome=OutcomeKind.REJECTED.value,
        reason=entry.reason.value,
        error_code=code,
        explanation=f"{entry.meaning} The same was refused in an earlier run, so it was not sent again.",
        fix=f"{entry.fix} A changed value, mapping or declaration is sent by itself; "
        f"`python -m pipelines replay {sync}` sends the same once more.",
        retryable=entry.retryable,
        call_attempts=0,
    )


def _alike(numbers: ir.Table, *, now: datetime, **same: str | int | bool) -> ir.Table:
    """A refusal for each number; what `same` does not name is null."""
    columns = {name: ibis.literal(same.get(name)).cast(kind) for name, kind in _IBIS_TYPES.items() if name != "number"}
    return numbers.select("number", **columns | {"failed_at": moment_of(now)})


def moment_of(moment: datetime) -> ir.TimestampValue:
    """The moment as a constant, in UTC."""
    return ibis.literal(moment.astimezone(UTC).replace(tzinfo=None)).cast("timestamp('UTC', 6)")
