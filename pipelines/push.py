"""Frames -> calls -> acknowledged attributes and failed rows, for one run; knows nothing of Dagster.

The order makes it safe: lock the app, fold what a dead run left, refuse frames that are out of date, send, fold,
write the failed rows, count everything again from what is on disk. Only then is a stopped push raised.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from connectors.tencent_push.client import Client
from connectors.tencent_push.ledger import Ledger
from connectors.tencent_push.outcomes import Change, OutcomeKind, StopCause
from connectors.tencent_push.pacing import Quota
from connectors.tencent_push.protocol import AccountType
from connectors.tencent_push.report import Progress, SinkReport
from connectors.tencent_push.sink import Sink
from pipelines.acknowledged import KNOWN, AcknowledgedAttributes, Folded, Generation, Owner
from pipelines.engine import ROW_NUMBER, Engine
from pipelines.errors import AppBusyError, DataFolderError
from pipelines.failed_rows import RefusalWriter, RunFacts, latest_before, write_failed_rows
from pipelines.frames import Frame
from pipelines.mapping import SyncMapping
from pipelines.store import Store, disk_error_text, disk_errors, make_folder
from pipelines.target import Target

CHUNK_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class FrameSet:
    """The frames of one run, as they are handed from the step that computed them to the step that pushes them."""

    run_id: str
    target: str
    computed_at: datetime
    frames: tuple[Frame, ...]
    invalid_rows: Path
    invalid_by_reason: Mapping[str, int]
    invalid_found: int
    generations: Mapping[AccountType, Generation]


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of one account type's changes. Conservation: the first is the sum of the others."""

    changed: int
    acknowledged: int
    rejected: int
    errored: int
    not_attempted: int

    @property
    def is_conserved(self) -> bool:
        return self.changed == self.acknowledged + self.rejected + self.errored + self.not_attempted


@dataclass(slots=True)
class PushResult:
    """All of one push, counted from the files that it left. `stop` says why it ended early, if it did."""

    frames: FrameSet
    tallies: dict[AccountType, Tally] = field(default_factory=dict)
    reports: dict[AccountType, SinkReport] = field(default_factory=dict)
    passed_over: dict[AccountType, int] = field(default_factory=dict)
    unsettled_calls: int = 0
    failed_rows: Path = Path()
    failed_row_count: int = 0
    invalid_row_count: int = 0
    refusal_count: int = 0
    stop: StopCause | None = None

    @property
    def is_conserved(self) -> bool:
        """Whether every change has its outcome, and every failed row reached the file."""
        whole = self.failed_row_count == self.invalid_row_count + self.refusal_count
        return whole and all(tally.is_conserved for tally in self.tallies.values())

    def tally_counts(self) -> dict[str, int]:
        """Every number of the tallies by a name of its own, for metadata."""
        return {
            f"{kind}_{name}": count for kind, tally in self.tallies.items() for name, count in asdict(tally).items()
        }


@dataclass(frozen=True, slots=True)
class Push:
    """One sync's push in one run. `report` is called with a line for people, every few seconds at most."""

    store: Store
    target: Target
    memory_limit: str
    sync: str
    mapping: SyncMapping
    run_id: str
    run_started_at: datetime
    report: Callable[[str], None]
    patience_seconds: float = 0.0  # how long to wait while another run holds the app

    def acknowledged(self, kind: AccountType) -> AcknowledgedAttributes:
        owner = Owner(self.target.host, self.target.sdkappid, self.sync, kind)
        return AcknowledgedAttributes(self.store.acknowledged(self.target.name, self.sync, kind), owner)

    def locked(self) -> AbstractContextManager[None]:
        """The app's lock, waited for as long as this run has patience."""
        return locked(self.store, self.target, patience_seconds=self.patience_seconds)

    def require_emulator(self) -> None:
        """Raise when the embedded emulator's app is gone while this sync remembers what it acknowledged."""
        file = self.store.emulator_file(self.sync)
        known = [self.acknowledged(kind) for kind in self.mapping.account_types()]
        if self.target.is_emulator and not file.exists() and any(each.current().number for each in known):
            raise DataFolderError(
                f"{file} is gone, but what the emulator acknowledged is still on record: restore it, or remove "
                f"{known[0].folder.parent} as well to begin anew"
            )

    def fold_leftovers(self, engine: Engine) -> list[Folded]:
        """Take over what runs recorded that died in their push, so that nothing acknowledged is forgotten."""
        folded = []
        for kind in self.mapping.account_types():
            acknowledged = self.acknowledged(kind)
            for ledger in acknowledged.leftover_ledgers():
                folded.append(acknowledged.fold(engine, ledger, root=self.store.root))
                self.report(
                    f"A push that was cut off had {folded[-1].acknowledged:,} changes acknowledged and "
                    f"{folded[-1].unsettled_calls} calls in flight; both are taken over"
                )
        return folded

    def run(self, frames: FrameSet, client: Client) -> PushResult:
        """Push the frames' changes. Raises before the first call if they are out of date or for another target."""
        self._require_same_target(frames)
        result = PushResult(frames)
        with (
            self.locked(),
            self.store.temporary(self.run_id) as folder,
            Engine(folder, memory_limit=self.memory_limit) as engine,
        ):
            for folded in self.fold_leftovers(engine):
                result.unsettled_calls += folded.unsettled_calls
            for frame in frames.frames:
                self._require_current(frames, frame)
            self._push_all(engine, frames, client, folder=folder, result=result)
            self._write_failed_rows(engine, frames, folder=folder, result=result)
        return result

    def _push_all(self, engine: Engine, frames: FrameSet, client: Client, *, folder: Path, result: PushResult) -> None:
        quota = Quota(self.target.calls_per_second)
        with RefusalWriter(folder / "refusals.parquet") as refusals:
            for frame in frames.frames:
                self._push_frame(engine, frames, frame, client=client, quota=quota, refusals=refusals, result=result)
        refused = engine.parquet("refusals", folder / "refusals.parquet")
        result.refusal_count = int(engine.rows(refused.aggregate(rows=refused.count()))[0]["rows"])
        for kind, tally in result.tallies.items():
            result.tallies[kind] = _with_refusals(engine, refused, tally, kind=kind)

    def _push_frame(
        self,
        engine: Engine,
        frames: FrameSet,
        frame: Frame,
        *,
        client: Client,
        quota: Quota,
        refusals: RefusalWriter,
        result: PushResult,
    ) -> None:
        kind = frame.account_type
        acknowledged = self.acknowledged(kind)
        passed_over = self._already_acknowledged(engine, frames, frame)
        result.passed_over[kind] = len(passed_over)
        ledger_file = acknowledged.ledger_file(frames.run_id)
        header = {"frame": frames.run_id, "frame_file": str(frame.path.relative_to(self.store.root))}
        with (
            closing(Ledger.open(ledger_file, header)) as ledger,
            Sink(client, ledger, quota=quota, on_progress=self._on_progress(frame)) as sink,
        ):
            if result.stop is not None:  # nothing more is sent, but every change gets its outcome
                sink.stop(result.stop)
            for outcomes in sink.push(changes_of(frame, passed_over)):
                refusals.add([outcome for outcome in outcomes if outcome.refusals], kind)
        result.reports[kind] = sink.report
        result.stop = result.stop or sink.report.stop
        folded = acknowledged.fold(engine, ledger_file, root=self.store.root)
        result.tallies[kind] = Tally(
            changed=frame.counts.changed,
            acknowledged=folded.acknowledged + len(passed_over),
            rejected=0,
            errored=0,
            not_attempted=0,
        )

    def _on_progress(self, frame: Frame) -> Callable[[Progress], None]:
        def say(progress: Progress) -> None:
            self.report(progress_text(progress, frame))

        return say

    def _write_failed_rows(self, engine: Engine, frames: FrameSet, *, folder: Path, result: PushResult) -> None:
        path = self.store.failed_rows_of(self.sync, self.run_started_at.date(), self.run_id)
        invalid = engine.parquet("counted_invalid", frames.invalid_rows)
        result.invalid_row_count = int(engine.rows(invalid.aggregate(rows=invalid.count()))[0]["rows"])
        result.failed_rows = path
        result.failed_row_count = write_failed_rows(
            engine,
            path,
            facts=RunFacts(
                run_id=self.run_id,
                sync=self.sync,
                target=self.target.host,
                app=self.target.name,
                run_started_at=self.run_started_at,
                validated_at=frames.computed_at,
            ),
            mapping=self.mapping,
            invalid_rows=frames.invalid_rows,
            refusals=folder / "refusals.parquet",
            frames={frame.account_type: frame.path for frame in frames.frames},
            history=latest_before(self.store.failed_rows(self.sync), run_id=self.run_id, app=self.target.name),
        )

    def _require_same_target(self, frames: FrameSet) -> None:
        if frames.target != self.target.name:
            raise DataFolderError(
                f"the frames were computed against {frames.target}, the target is now {self.target.name}; "
                "run the whole sync, so that they are compared with what this target acknowledged"
            )

    def _require_current(self, frames: FrameSet, frame: Frame) -> None:
        """No older value overtakes a newer one: frames are pushed only onto the state that they were compared with."""
        since = frames.generations[frame.account_type]
        generation = self.acknowledged(frame.account_type).current()
        if not generation.came_only_from(frames.run_id, since=since):
            raise DataFolderError(
                "another run has pushed since these frames were computed, so they may hold older values; "
                "run the whole sync instead of its push alone"
            )

    def _already_acknowledged(self, engine: Engine, frames: FrameSet, frame: Frame) -> npt.NDArray[np.int64]:
        """Numbers of the frame's rows that an earlier push of the same frame had acknowledged in whole."""
        acknowledged = self.acknowledged(frame.account_type)
        known = acknowledged.table(engine)
        if known is None or acknowledged.current().number == frames.generations[frame.account_type].number:
            return np.empty(0, dtype=np.int64)
        rows = engine.numbered_parquet(f"again_{frame.account_type}", frame.path)
        done = _acknowledged_rows(rows, known, list(frame.changed_attributes))
        return engine.numbers(done)


def changes_of(frame: Frame, passed_over: npt.NDArray[np.int64]) -> Iterator[Change]:
    """The frame's changes in the order of its rows, a chunk at a time; not its unchanged rows, nor `passed_over`."""
    names = list(frame.changed_attributes)
    number = 0
    with disk_errors(frame.path), pq.ParquetFile(frame.path) as file:
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=["account", "changed", "removed", *names]):
            chunk = batch.to_pandas()
            chunk.index = pd.RangeIndex(number, number + len(chunk))
            number += len(chunk)
            yield from _changes_in(chunk[~chunk.index.isin(passed_over)], names)


def _changes_in(chunk: pd.DataFrame, names: list[str]) -> Iterator[Change]:
    values = zip(*(chunk[name] for name in names), strict=True)
    for number, account, changed, removed, row in zip(
        chunk.index, chunk["account"], chunk["changed"], chunk["removed"], values, strict=True
    ):
        if len(changed) or len(removed):
            by_name = dict(zip(names, row, strict=True))
            yield Change(number, account, {name: by_name[name] for name in changed}, tuple(removed))


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


def _with_refusals(engine: Engine, refused: ir.Table, tally: Tally, *, kind: AccountType) -> Tally:
    """Every refused change counts once, in its worst outcome, as read back from the file."""
    rank = {outcome.value: place for place, outcome in enumerate(_WORST_FIRST)}
    mine = refused.filter(refused.account_type == kind.value)
    ranked = mine.mutate(rank=mine.outcome.cases(*rank.items(), else_=len(rank)))
    worst = ranked.group_by("number").agg(rank=ranked["rank"].min())
    counted = {row["rank"]: int(row["rows"]) for row in engine.rows(worst.group_by("rank").agg(rows=worst.count()))}
    return Tally(
        changed=tally.changed,
        acknowledged=tally.acknowledged,
        rejected=counted.get(rank[OutcomeKind.REJECTED], 0),
        errored=counted.get(rank[OutcomeKind.ERRORED], 0),
        not_attempted=counted.get(rank[OutcomeKind.NOT_ATTEMPTED], 0),
    )


_WORST_FIRST = (OutcomeKind.REJECTED, OutcomeKind.ERRORED, OutcomeKind.NOT_ATTEMPTED)


@contextmanager
def locked(store: Store, target: Target, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """One pusher per app on this machine; the kernel frees the lock when its holder dies.

    Raises AppBusyError when another holder keeps it for `patience_seconds`.
    """
    path = target.lock_file(store)
    make_folder(path.parent)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience_seconds, poll_interval=1.0)
    except Timeout:  # an OSError itself, so it comes first
        raise AppBusyError(
            f"another run pushes to app {target.sdkappid} at {target.host} right now ({_holder(path)}); "
            "start again when it has ended"
        ) from None
    except OSError as error:
        raise DataFolderError(disk_error_text(path, error)) from error
    try:
        path.with_suffix(".holder").write_text(
            f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", encoding="utf-8"
        )
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.with_suffix(".holder").read_text(encoding="utf-8")
    except OSError:
        return "its process is not known"


def progress_text(progress: Progress, frame: Frame) -> str:
    """Counts and rates; no account and no value."""
    acknowledged = progress.changes.get(OutcomeKind.ACKNOWLEDGED, 0)
    settled = sum(progress.changes.values())
    left_seconds = (frame.counts.changed - settled) * progress.seconds / settled if settled else 0.0
    left = f", about {left_seconds:.0f} s left" if left_seconds >= 1 else ""
    # Over less than a second, a rate says nothing about the quota.
    rate = f", {progress.calls_per_second:.0f} calls/s" if progress.calls and progress.period_seconds >= 1 else ""
    slowed = f", slowed down to {progress.quota_share:.0%} of the quota" if progress.quota_share < 1 else ""
    return (
        f"{frame.account_type}: {acknowledged:,} of {frame.counts.changed:,} acknowledged, "
        f"{settled - acknowledged:,} failed{rate}{slowed}{left}"
    )
