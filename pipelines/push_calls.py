"""Every call of a push as one Parquet row: when it left, how long it took, what came back. For people and dashboards.

Counts, codes and batch ids only: no account and no value stands here. Adding a column is allowed, changing one is not.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.tencent_push.protocol import AccountType
from connectors.tencent_push.report import PushCall
from pipelines.errors import DataFolderError
from pipelines.store import disk_errors, whole_file

SCHEMA_VERSION = "1"
CHUNK_ROWS = 10_000  # rows in memory at most: 100 seconds of calls at the documented quota

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("sync", pa.string()),
        ("account_type", pa.string()),
        ("command", pa.string()),
        ("batch_id", pa.string()),
        ("rows", pa.int32()),
        ("attempt", pa.int32()),
        ("sent_at", pa.timestamp("us", "UTC")),
        ("latency_ms", pa.float64()),
        ("http_status", pa.int32()),
        ("fault", pa.string()),
        ("code", pa.int32()),
        ("refused_rows", pa.int32()),
    ]
)


class PushCallWriter:
    """Collects a run's calls in columns, a chunk at a time; `rows` is how many.

    The file gets its name at the end, however the push ended: what was called is worth most when something went wrong.
    """

    def __init__(self, path: Path, *, run_id: str, sync: str) -> None:
        self.path = path
        self.rows = 0
        self._of_run = {"run_id": run_id, "sync": sync}
        self._pending: list[tuple[Any, ...]] = []
        self._opened = ExitStack()

    def __enter__(self) -> "PushCallWriter":
        facts = {"schema_version": SCHEMA_VERSION, **self._of_run}
        with ExitStack() as opened:
            beside = opened.enter_context(whole_file(self.path))
            self._writer = opened.enter_context(pq.ParquetWriter(beside, SCHEMA.with_metadata(facts)))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._opened:
                self._flush()
        except DataFolderError:
            if error is None:  # else the first error is the one to tell
                raise

    def add(self, call: PushCall, account_type: AccountType) -> None:
        """Raises DataFolderError when the disk takes no more."""
        self.rows += 1
        self._pending.append(_row(call, account_type))
        if len(self._pending) >= CHUNK_ROWS:
            with disk_errors(self.path):
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(_table(self._pending, self._of_run))
            self._pending.clear()


def _row(call: PushCall, account_type: AccountType) -> tuple[Any, ...]:
    """The columns after those of the run, in the schema's order."""
    return (
        account_type.value,
        call.command.value,
        call.batch_id,
        call.rows,
        call.attempt,
        call.sent_at,
        round(call.latency_seconds * 1000, 3),
        call.http_status,
        call.fault,
        call.code,
        call.refused_rows,
    )


def _table(rows: Sequence[tuple[Any, ...]], of_run: dict[str, str]) -> pa.Table:
    constant = [[value] * len(rows) for value in of_run.values()]
    columns = [*constant, *zip(*rows, strict=True)]
    return pa.table(
        [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
