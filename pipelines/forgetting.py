"""What need not stay known of accounts that no profile has any more: what Tencent does not know, and empty rows.

A departed account whose removal is refused since Tencent does not know the account has nothing left to remove. Without
this it would be tried, and reported, every night for ever.
"""

from dataclasses import replace
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.tencent_push.errors import Reason, lookup
from connectors.tencent_push.ledger import LedgerContents
from connectors.tencent_push.protocol import Command
from pipelines.engine import ROW_NUMBER, Engine
from pipelines.folding import OWN_COLUMNS
from pipelines.narrow import CONTENT

Numbers = npt.NDArray[np.int64]


def unknown_departed(engine: Engine, contents: LedgerContents, frame_file: Path, *, name: str) -> Numbers:
    """Numbers of the frame's rows from no source whose removal was refused since Tencent does not know the account."""
    unknown = [
        numbers
        for (code, _), numbers in contents.refused[Command.REMOVE_ATTR].items()
        if lookup(code).reason is Reason.ACCOUNT_UNKNOWN
    ]
    if not sum(map(len, unknown)):
        return np.empty(0, dtype=np.int64)
    listed = engine.register(f"{name}_numbers", pa.table({"number": np.concatenate(unknown)}))
    rows = engine.numbered_parquet(f"{name}_frame", frame_file)
    departed = rows.filter(rows.source_file.isnull()).semi_join(listed, rows[ROW_NUMBER] == listed.number)
    return np.sort(engine.numbers(departed.select(ROW_NUMBER)))


def with_removed(contents: LedgerContents, numbers: Numbers) -> LedgerContents:
    """`contents` as if the removals of these rows had been acknowledged."""
    command = Command.REMOVE_ATTR
    removed = np.union1d(contents.acknowledged[command], numbers)
    uncertain = np.setdiff1d(contents.uncertain[command], numbers)
    return replace(
        contents,
        acknowledged={**contents.acknowledged, command: removed},
        uncertain={**contents.uncertain, command: uncertain},
    )


def without_empty(rows: ir.Table) -> ir.Table:
    """The state's rows that tell something: a value, an attribute that is uncertain, or a profile's digest."""
    names = [name for name in rows.columns if name not in OWN_COLUMNS]
    told = [rows[name].notnull() for name in names]
    if CONTENT in rows.columns:
        told.append(rows[CONTENT].notnull())
    return rows.filter(ibis.or_(rows.uncertain.length() > 0, *told))
