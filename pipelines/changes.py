"""A frame's rows as changes for the sink: which rows ask for something, and which of them need not be sent (again).

Rows are numbers of the frame's Parquet file. Nothing here sends, or decides what a reply means.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.tencent_push.outcomes import Change
from connectors.tencent_push.protocol import MAX_ACCOUNTS_PER_CALL, Command
from pipelines.acknowledged import AcknowledgedAttributes, Generation
from pipelines.engine import ROW_NUMBER, Engine
from pipelines.folding import KNOWN
from pipelines.frames import Frame
from pipelines.refusal_memory import Withheld, lonely_rows, withheld_rows
from pipelines.store import disk_errors

CHUNK_ROWS = 2_000  # small, since nothing is sent while a chunk is made
_ASKED = {Command.SET_ATTR: "changed", Command.REMOVE_ATTR: "removed"}


def _no_numbers() -> npt.NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Exceptions:
    """Rows that are not sent as they stand: acknowledged since the frame was computed, or withheld.

    All numbers are in ascending order.
    """

    acknowledged: npt.NDArray[np.int64] = field(default_factory=_no_numbers)
    withheld: Withheld = field(default_factory=Withheld)


@dataclass(frozen=True, slots=True)
class PlannedCalls:
    """The calls that a frame's changes take when no call has to be made again."""

    set_calls: int = 0
    remove_calls: int = 0

    @property
    def total(self) -> int:
        return self.set_calls + self.remove_calls

    def seconds(self, calls_per_second: float) -> float:
        """At the quota, which each command has for itself."""
        return max(self.set_calls, self.remove_calls) / calls_per_second


class FrameChanges:
    """The frame's changes in the order of its rows, a chunk at a time; not its unchanged rows, nor the exceptions.

    `last_number` is that of the last change that was handed out, -1 before the first: what comes after it was not
    attempted when a push stops.
    """

    def __init__(self, frame: Frame, exceptions: Exceptions) -> None:
        self.last_number = -1
        self._frame = frame
        self._exceptions = exceptions
        self._names = list(frame.changed_attributes)

    def __iter__(self) -> Iterator[Change]:
        number = 0
        columns = ["account", "changed", "removed", *self._names]
        with disk_errors(self._frame.path), pq.ParquetFile(self._frame.path) as file:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=columns):
                chunk = batch.to_pandas()
                chunk.index = pd.RangeIndex(number, number + len(chunk))
                number += len(chunk)
                for change in self._changes_in(chunk):
                    self.last_number = change.number
                    yield change

    def _changes_in(self, chunk: pd.DataFrame) -> Iterator[Change]:
        withheld, first, count = self._exceptions.withheld, int(chunk.index[0]), len(chunk)
        done = marked(self._exceptions.acknowledged, first, count)
        flags = (
            done | marked(withheld.of(Command.SET_ATTR), first, count),
            done | marked(withheld.of(Command.REMOVE_ATTR), first, count),
            marked(withheld.alone, first, count),
        )
        values = zip(*(chunk[name] for name in self._names), strict=True)
        for number, account, changed, removed, row, not_set, not_removed, alone in zip(
            chunk.index, chunk["account"], chunk["changed"], chunk["removed"], values, *flags, strict=True
        ):
            to_set = () if not_set else changed
            to_remove = () if not_removed else tuple(removed)
            if len(to_set) or to_remove:
                by_name = dict(zip(self._names, row, strict=True))
                yield Change(number, account, {name: by_name[name] for name in to_set}, to_remove, alone=bool(alone))


def marked(numbers: npt.NDArray[np.int64], first: int, count: int) -> npt.NDArray[np.bool_]:
    """Which of the `count` rows from `first` on stand in `numbers`, which are in ascending order."""
    begin, end = np.searchsorted(numbers, [first, first + count])
    flags = np.zeros(count, dtype=np.bool_)
    flags[numbers[begin:end] - first] = True
    return flags


def acknowledged_since(
    engine: Engine, frame: Frame, acknowledged: AcknowledgedAttributes, since: Generation
) -> npt.NDArray[np.int64]:
    """Numbers of the frame's rows that an earlier push of the same frame had acknowledged in whole."""
    known = acknowledged.table(engine)
    if known is None or acknowledged.current().number == since.number:
        return _no_numbers()
    rows = engine.numbered_parquet(f"again_{frame.account_type}", frame.path)
    return engine.numbers(_acknowledged_rows(rows, known, list(frame.changed_attributes)))


def withheld_in(engine: Engine, frame: Frame, memory: ir.Table | None, *, rules: str, replay: bool) -> ir.Table | None:
    """Number, command and code of what is not sent, as it was refused before; None where nothing is remembered."""
    if memory is None or replay or not frame.counts.changed:
        return None
    rows = engine.numbered_parquet(f"withheld_frame_{frame.account_type}", frame.path)
    found = withheld_rows(rows, memory, rules=rules, now=datetime.now(UTC))
    return engine.materialize(f"withheld_{frame.account_type}", found)


def lonely_in(engine: Engine, frame: Frame, memory: ir.Table | None) -> npt.NDArray[np.int64]:
    """Numbers of the frame's rows that are sent in calls of their own, in ascending order."""
    if memory is None or not frame.counts.changed:
        return _no_numbers()
    rows = engine.numbered_parquet(f"lonely_frame_{frame.account_type}", frame.path)
    return np.sort(engine.numbers(lonely_rows(rows, memory)))


def planned_calls(engine: Engine, frame: Frame, exceptions: Exceptions) -> PlannedCalls:
    """What is withheld or acknowledged already takes no call, what goes alone takes one of its own."""
    asked = {Command.SET_ATTR: frame.set_accounts, Command.REMOVE_ATTR: frame.remove_accounts}
    calls = {}
    for command, requests in asked.items():
        done = _asking(engine, frame, command, among=exceptions.acknowledged)
        unsent = np.union1d(done, exceptions.withheld.of(command))
        alone = len(np.setdiff1d(_asking(engine, frame, command, among=exceptions.withheld.alone), unsent))
        together = requests - len(unsent) - alone
        calls[command] = -(-together // MAX_ACCOUNTS_PER_CALL) + alone
    return PlannedCalls(calls[Command.SET_ATTR], calls[Command.REMOVE_ATTR])


def _asking(engine: Engine, frame: Frame, command: Command, *, among: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows `among` those numbers that ask something of the command."""
    if not len(among):
        return _no_numbers()
    rows = engine.numbered_parquet(f"planned_frame_{frame.account_type}", frame.path)
    listed = engine.register(f"planned_among_{frame.account_type}", pa.table({"number": among}))
    mine = rows.filter(rows[_ASKED[command]].length() > 0).semi_join(listed, rows[ROW_NUMBER] == listed.number)
    return engine.numbers(mine.select(ROW_NUMBER))


def numbers_by_command(engine: Engine, withheld: ir.Table | None) -> dict[Command, npt.NDArray[np.int64]]:
    """In ascending order."""
    if withheld is None:
        return {}
    return {
        command: np.sort(engine.numbers(withheld.filter(withheld.command == command.value).select("number")))
        for command in _ASKED
    }


def unread_rows(
    rows: ir.Table, command: Command, *, after: int, withheld: ir.Table | None, acknowledged: ir.Table
) -> ir.Table:
    """`number` of every request of `command` in `rows` that the sink never read."""
    asked = rows.filter((rows[ROW_NUMBER] > after) & (rows[_ASKED[command]].length() > 0))
    unread = asked.select(number=asked[ROW_NUMBER]).anti_join(acknowledged, "number")
    if withheld is None:
        return unread
    return unread.anti_join(withheld.filter(withheld.command == command.value), "number")


def _acknowledged_rows(rows: ir.Table, known: ir.Table, names: list[str]) -> ir.Table:
    """Numbers of the rows whose every request is what `known` holds for certain."""
    columns = {f"{KNOWN}{name}": known[name] if name in known.columns else ibis.null(str) for name in names}
    own = {f"{KNOWN}account": known.account, f"{KNOWN}uncertain": known.uncertain}
    renamed = known.select(**columns, **own)
    joined = rows.inner_join(renamed, rows.account == renamed[f"{KNOWN}account"])
    conditions = [joined.changed.concat(joined.removed).length() > 0]
    for name in names:
        is_changed, is_removed = joined.changed.contains(name), joined.removed.contains(name)
        is_set = (joined[name] == joined[f"{KNOWN}{name}"]).fill_null(False)
        is_certain = ~joined[f"{KNOWN}uncertain"].contains(name)
        conditions += [
            ~is_changed | (is_set & is_certain),
            ~is_removed | (joined[f"{KNOWN}{name}"].isnull() & is_certain),
        ]
    return joined.filter(*conditions).select(number=joined[ROW_NUMBER]).order_by("number")
