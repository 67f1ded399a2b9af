"""Frames -> calls -> acknowledged attributes and failed rows, for one run; knows nothing of Dagster.

The order makes it safe: lock the app, fold what a dead run left, refuse frames that are out of date, send, fold,
write the failed rows, count everything again from what is on disk. Only then is a stopped push raised.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from connectors.tencent_push.batching import WRITING_COMMANDS
from connectors.tencent_push.client import Client
from connectors.tencent_push.errors import Reason
from connectors.tencent_push.ledger import Ledger
from connectors.tencent_push.outcomes import StopCause
from connectors.tencent_push.pacing import Quota
from connectors.tencent_push.protocol import AccountType, Command
from connectors.tencent_push.published_ledger import STAGED_SECONDS, PublishedLedger
from connectors.tencent_push.report import Progress, SinkReport
from connectors.tencent_push.sink import Sink, SinkSettings
from pipelines.acknowledged import AcknowledgedAttributes, Folded, Owner, frame_files
from pipelines.app_lock import idle_here, locked, sending
from pipelines.cancellation import deferred_signals
from pipelines.changes import (
    Exceptions,
    FrameChanges,
    acknowledged_since,
    lonely_in,
    numbers_by_command,
    planned_calls,
    unread_rows,
    withheld_in,
)
from pipelines.engine import Engine
from pipelines.errors import DataFolderError
from pipelines.failed_rows import RunFacts, latest_before, write_failed_rows
from pipelines.frames import Frame
from pipelines.lease import Holding
from pipelines.mapping import SyncMapping
from pipelines.push_calls import PushCallWriter
from pipelines.push_progress import PROGRESS_SECONDS, Bar, ProgressTeller
from pipelines.push_result import FrameSet, PushResult
from pipelines.refusal_memory import Withheld
from pipelines.refusals import RefusalWriter, not_attempted, refused_before
from pipelines.remote_state import RemoteState
from pipelines.store import Store
from pipelines.tally import tally_of
from pipelines.target import Target

_CANCELLED = StopCause(None, Reason.RUN_STOPPED, "The run was cancelled.")


@dataclass(slots=True)
class _Stop:
    """Ends the push in good order, whichever frame it is at."""

    cause: StopCause | None = None
    sink: Sink | None = None

    def now(self, cause: StopCause) -> None:
        self.cause = self.cause or cause
        if self.sink is not None:
            self.sink.stop(cause)

    def watch(self, sink: Sink) -> None:
        self.sink = sink
        if self.cause is not None:  # nothing more is sent, but every change gets its outcome
            sink.stop(self.cause)


@dataclass(slots=True)
class _Sending:
    """What one push has at hand while it sends, and what it collects. `unsent` are refusals that no reply gave."""

    engine: Engine
    client: Client
    quota: Quota
    refusals: RefusalWriter
    calls: PushCallWriter
    stop: _Stop
    unsent: list[ir.Table] = field(default_factory=list)
    acknowledged: dict[AccountType, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Push:
    """One sync's push in one run. `report` is called with a line for people now and then, `bar` often."""

    store: Store
    target: Target
    memory_limit: str
    sync: str
    mapping: SyncMapping
    run_id: str
    run_started_at: datetime
    report: Callable[[str], None]
    bar: Bar | None = None
    patience_seconds: float = 0.0  # how long to wait while another run holds the app
    replay: bool = False  # what was refused for good before is sent once more
    without_guards: bool = False  # somebody lets this run pass, whatever its guards find
    holding: Holding = field(default_factory=Holding)

    def acknowledged(self, kind: AccountType) -> AcknowledgedAttributes:
        owner = Owner(self.target.host, self.target.sdkappid, self.sync, kind)
        folder = self.store.acknowledged(self.target.name, self.sync, kind)
        return AcknowledgedAttributes(folder, owner, remote=self._remote(folder))

    def _remote(self, folder: Path) -> RemoteState | None:
        if self.store.objects is None:
            return None
        holding = self.holding
        return RemoteState(
            self.store.objects,
            self.store.key(folder),
            folder,
            require_held=holding.require_held,
            writer=holding.token,
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The app's lock, waited for as long as this run has patience; what is acknowledged is up to date then."""
        with locked(self.store, self.target, patience_seconds=self.patience_seconds) as lease:
            self.holding.lease = lease
            try:
                self._pull()
                yield
            finally:
                self.holding.lease = None

    def refresh(self) -> None:
        """For who only reads: what is acknowledged is up to date, unless a run of this machine is at work on it."""
        if self.store.objects is not None:
            with idle_here(self.store, self.target) as is_idle:
                if is_idle:
                    self._pull()

    def _pull(self) -> None:
        for kind in self.mapping.account_types():
            remote = self.acknowledged(kind).remote
            if remote is not None:
                remote.pull()

    def failed_before(self) -> Path | None:
        """The failed rows of the newest other run against the same app."""
        folder = self.store.failed_rows(self.sync)
        find = partial(latest_before, folder, run_id=self.run_id, app=self.target.name)
        return self.store.fetch_days(folder, until=find)

    def require_emulator(self) -> None:
        """Raise when the embedded emulator's app is gone while this sync remembers what it acknowledged."""
        file = self.store.emulator_file(self.sync)
        if self.target.is_emulator:
            self.refresh()
            self.store.fetch(file)
        known = [self.acknowledged(kind) for kind in self.mapping.account_types()]
        if self.target.is_emulator and not file.exists() and any(each.current().number for each in known):
            raise DataFolderError(
                f"{file} is gone, but what the emulator acknowledged is still on record: restore it, or remove "
                f"{known[0].folder.parent} as well to begin anew"
            )

    def publish_emulator(self) -> None:
        """So that the embedded emulator's app goes on elsewhere, too; what a killed push sent it is not in it there."""
        if self.target.is_emulator:
            self.store.publish(self.store.emulator_file(self.sync))

    def fold_leftovers(self, engine: Engine) -> list[Folded]:
        """Take over what runs recorded that died in their push, so that nothing acknowledged is forgotten."""
        folded = []
        for kind in self.mapping.account_types():
            acknowledged = self.acknowledged(kind)
            for ledger in acknowledged.leftover_ledgers():
                self.store.fetch(*frame_files(ledger, root=self.store.root))
                folded.append(acknowledged.fold(engine, ledger, root=self.store.root))
                self.report(
                    f"{kind}: an earlier push was cut off; {folded[-1].acknowledged:,} changes that it had "
                    f"acknowledged are kept, and the rows of {folded[-1].unsettled_calls} calls without an answer on "
                    "record are sent again"
                )
        return folded

    def run(self, frames: FrameSet, client: Client) -> PushResult:
        """Push the frames' changes. Raises before the first call if they are out of date or for another target.

        SIGINT and SIGTERM stop it in good order: the calls in flight are settled, what was not sent is written down.
        """
        self._require_same_target(frames)
        self.store.fetch(frames.invalid_rows, *(frame.path for frame in frames.frames))
        result, stop = PushResult(frames, unsettled_calls=frames.unsettled_calls), _Stop()
        with (
            self.locked(),
            self.store.temporary(self.run_id) as folder,
            Engine(folder, memory_limit=self.memory_limit) as engine,
            deferred_signals(lambda: stop.now(_CANCELLED)) as cancellation,
        ):
            for folded in self.fold_leftovers(engine):
                result.unsettled_calls += folded.unsettled_calls
            for frame in frames.frames:
                self._require_current(frames, frame)
            # Others may have removed them as old while this run waited; no ledger is of use without its frame.
            self.store.publish_missing(*(frame.path for frame in frames.frames))
            refused = self._push_all(engine, frames, client, folder=folder, result=result, stop=stop)
            self._write_failed_rows(engine, frames, refused, result=result)
        result.stop, result.cancellation = stop.cause, cancellation
        return result

    def _push_all(
        self, engine: Engine, frames: FrameSet, client: Client, *, folder: Path, result: PushResult, stop: _Stop
    ) -> ir.Table:
        """All refusals of the push, as refusals.REFUSAL_SCHEMA."""
        file = folder / "refusals.parquet"
        result.push_calls = self.store.push_calls_of(self.sync, self.run_started_at.date(), self.run_id)
        with (
            sending(self.store, self.target),
            RefusalWriter(file) as refusals,
            PushCallWriter(result.push_calls, run_id=self.run_id, sync=self.sync) as calls,
        ):
            work = _Sending(engine, client, Quota(self.target.calls_per_second), refusals, calls, stop)
            for frame in frames.frames:
                self._push_frame(work, frames, frame, result=result)
        result.push_call_count = calls.rows
        refused = engine.materialize("all_refusals", ibis.union(engine.parquet("refusals", file), *work.unsent))
        result.refusal_count = int(engine.rows(refused.aggregate(rows=refused.count()))[0]["rows"])
        for frame in frames.frames:
            kind, done = frame.account_type, work.acknowledged[frame.account_type]
            result.tallies[kind] = tally_of(engine, refused, kind, changed=frame.counts.changed, acknowledged=done)
        return refused

    def _push_frame(self, work: _Sending, frames: FrameSet, frame: Frame, *, result: PushResult) -> None:
        kind, acknowledged = frame.account_type, self.acknowledged(frame.account_type)
        withheld, exceptional = self.exceptional(work.engine, frames, frame)
        exceptions = Exceptions(
            acknowledged_since(work.engine, frame, acknowledged, frames.generations[kind]), exceptional
        )
        result.passed_over[kind], result.withheld[kind] = len(exceptions.acknowledged), exceptions.withheld.requests
        result.planned[kind] = planned_calls(work.engine, frame, exceptions)
        self._tell_withheld(exceptions.withheld.requests, kind)
        changes, ledger_file = FrameChanges(frame, exceptions), acknowledged.ledger_file(frames.run_id)
        teller = ProgressTeller(self.report, self.bar)
        with teller.of(frame, passed_over=result.passed_over[kind], withheld=result.withheld[kind]) as tell:
            result.reports[kind] = self._send(work, frames, frame, changes=changes, ledger=ledger_file, tell=tell)
        folded = acknowledged.fold(work.engine, ledger_file, root=self.store.root)
        work.acknowledged[kind] = folded.acknowledged + len(exceptions.acknowledged)
        if withheld is not None:
            work.unsent += self._refused_before(work.engine, withheld, kind)
        if work.stop.cause is not None:
            rows = work.engine.numbered_parquet(f"unsent_frame_{kind}", frame.path)
            done = work.engine.register(f"passed_over_{kind}", pa.table({"number": exceptions.acknowledged}))
            work.unsent += [
                not_attempted(
                    unread_rows(rows, command, after=changes.last_number, withheld=withheld, acknowledged=done),
                    kind,
                    command,
                    now=datetime.now(UTC),
                )
                for command in WRITING_COMMANDS
            ]

    def exceptional(self, engine: Engine, frames: FrameSet, frame: Frame) -> tuple[ir.Table | None, Withheld]:
        """What the memory of refusals says about a frame: the withheld requests as a table, and all as numbers."""
        memory = self.acknowledged(frame.account_type).refused(engine)
        withheld = withheld_in(engine, frame, memory, rules=frames.rules[frame.account_type], replay=self.replay)
        return withheld, Withheld(numbers_by_command(engine, withheld), lonely_in(engine, frame, memory))

    def _send(
        self,
        work: _Sending,
        frames: FrameSet,
        frame: Frame,
        *,
        changes: FrameChanges,
        ledger: Path,
        tell: Callable[[Progress], None],
    ) -> SinkReport:
        header = {
            "frame": frames.run_id,
            "frame_file": str(frame.path.relative_to(self.store.root)),
            "rules": frames.rules[frame.account_type],
        }
        with (
            closing(self._opened(ledger, header, kind=frame.account_type)) as opened,
            Sink(
                work.client,
                opened,
                quota=work.quota,
                settings=self._settings(frames, frame.account_type),
                on_progress=tell,
                on_call=lambda call: work.calls.add(call, frame.account_type),
            ) as sink,
        ):
            work.stop.watch(sink)
            for outcomes in sink.push(changes):
                work.refusals.add([outcome for outcome in outcomes if outcome.refusals], frame.account_type)
        if sink.report.stop is not None:
            work.stop.now(sink.report.stop)
        return sink.report

    def _opened(self, path: Path, header: Mapping[str, str], *, kind: AccountType) -> Ledger | PublishedLedger:
        """A ledger that is published while it grows, where the data folder is in object storage."""
        ledger, remote = Ledger.open(path, header), self.acknowledged(kind).remote
        if remote is None:
            return ledger
        publish = partial(remote.publish_segment, path.name)
        return PublishedLedger(ledger, publish, may_send=self.holding.may_act)

    def _settings(self, frames: FrameSet, kind: AccountType) -> SinkSettings:
        """The guard on failures does not apply to a first run, where everything is new, nor to one that is let pass."""
        is_exempt = self.without_guards or frames.generations[kind].number == 0
        fraction = None if is_exempt else self.mapping.guards.max_failed_fraction
        settings = SinkSettings(max_failed_fraction=fraction, progress_seconds=PROGRESS_SECONDS)
        return settings if self.store.objects is None else replace(settings, staged_seconds=STAGED_SECONDS)

    def _tell_withheld(self, requests: int, kind: AccountType) -> None:
        if requests:
            self.report(
                f"{kind}: {requests:,} changes are not sent, since the very same were refused before; "
                f"`python -m pipelines replay {self.sync}` sends them once more"
            )

    def _refused_before(self, engine: Engine, withheld: ir.Table, kind: AccountType) -> list[ir.Table]:
        """A part for each command and code, of which there are few."""
        now = datetime.now(UTC)
        parts = []
        for group in engine.rows(withheld.group_by("command", "code").agg(rows=withheld.count())):
            command, code = Command(group["command"]), int(group["code"])
            mine = withheld.filter((withheld.command == command.value) & (withheld.code == code))
            parts.append(refused_before(mine.select("number"), kind, command, code=code, sync=self.sync, now=now))
        return parts

    def _write_failed_rows(self, engine: Engine, frames: FrameSet, refused: ir.Table, *, result: PushResult) -> None:
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
            refused=refused,
            frames={frame.account_type: frame.path for frame in frames.frames},
            history=self.failed_before(),
        )
        self.store.publish(path, result.push_calls)

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
