"""Joins the parts: changes in, outcomes out, within the quota, each batch on record before it leaves or counts.

One thread, the caller's, reads, batches, records and sends; only the HTTP calls run in threads of their own. What a
reply means is decided in outcomes.py and carried out in settling.py; nothing here knows error codes.
"""

import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from connectors.tencent_push.batching import WRITING_COMMANDS, Backlog, Batch, Operation
from connectors.tencent_push.calls import CallingClient, Calls, RunningCall, ThreadedCalls
from connectors.tencent_push.errors import LedgerError
from connectors.tencent_push.ledger import Ledger, Sent
from connectors.tencent_push.outcomes import Change, Outcome, StopCause, settle
from connectors.tencent_push.pacing import Permit, Quota
from connectors.tencent_push.protocol import Command
from connectors.tencent_push.report import Progress, SinkReport, WaitCause
from connectors.tencent_push.settling import Settler, SinkSettings

__all__ = ["Sink", "SinkSettings"]

_log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 0.5  # another sink of the same quota may free a permit without waking this one
CHUNK = 1000  # changes per list once nothing is sent any more


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    batch: Batch
    body: bytes


@dataclass(frozen=True, slots=True, eq=False)
class _InFlight:
    batch: Batch
    permit: Permit
    usersig_number: int
    call: RunningCall


class Sink:
    """Pushes the changes of one frame, once. Use it as a context manager, so that an interrupted push ends cleanly.

    `quota` is shared by all sinks of the app in this process. The clock, its kind of waiting (`calls`), chance and the
    date come in for tests. `on_progress` is called at most every `progress_seconds`, in the caller's thread.
    """

    def __init__(
        self,
        client: CallingClient,
        ledger: Ledger,
        *,
        quota: Quota,
        settings: SinkSettings | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
        calls: Calls | None = None,
    ) -> None:
        self.report = SinkReport()
        self._settings = settings or SinkSettings()
        self._ledger = ledger
        self._quota = quota
        self._clock = clock
        self._on_progress = on_progress
        self._calls = calls or ThreadedCalls(client, max_in_flight=self._settings.max_in_flight, clock=clock)
        self._backlog = Backlog(
            batch_size=self._settings.batch_size,
            partial_batch_seconds=self._settings.partial_batch_seconds,
            clock=clock,
        )
        self._settler = Settler(
            backlog=self._backlog,
            report=self.report,
            settings=self._settings,
            renew_usersig=client.renew_usersig,
            random=chance,
            now=now,
        )
        self._ahead = max(1, math.ceil(quota.calls_per_second * self._settings.staged_seconds))  # batches, per command
        self._most_unsettled = self._settings.batch_size * 2 * (self._settings.max_in_flight + self._ahead)
        self._staged: dict[Command, deque[_Prepared]] = {command: deque() for command in WRITING_COMMANDS}
        self._recorded: dict[Command, deque[_Prepared]] = {command: deque() for command in WRITING_COMMANDS}
        self._in_flight: list[_InFlight] = []
        self._changes: Iterator[Change] = iter(())
        self._exhausted = False
        self._flushed_at = self._started_at = clock()
        self._told = (self._started_at, 0)  # when progress was last told, and the calls until then
        self._outcomes: Generator[list[Outcome], None, None] | None = None

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends an unfinished push: nothing more is sent, the calls in flight are waited for and recorded."""
        if self._outcomes is not None:
            self._outcomes.close()
        self._calls.close()

    def push(self, changes: Iterable[Change]) -> Iterator[list[Outcome]]:
        """One outcome for each change, in the order in which they settle; each list is durable before it is yielded.

        Changes are read only as far as they can soon be sent; their numbers are distinct within the ledger. Raises
        LedgerError as soon as the record cannot be kept: no call leaves after that. Whatever ends the push early, an
        exception of `changes` or of the taker included, the calls in flight are waited for and recorded first. Rows
        that were sent and not settled then are `uncertain` in the ledger.
        """
        if self._outcomes is not None:
            raise ValueError("a sink pushes once: its ledger and report are of one frame")
        self._changes = iter(changes)
        self._outcomes = self._push()
        return self._outcomes

    def stop(self, cause: StopCause) -> None:
        """For the taker of the outcomes: nothing more is sent, and the rest of the changes is `not_attempted`."""
        self._settler.stop(cause)

    def _push(self) -> Generator[list[Outcome], None, None]:
        self._started_at = self._clock()
        self._told = (self._started_at, 0)
        try:
            while True:
                self._stage()
                if self._is_done():
                    break
                if self._must_commit():
                    yield from self._commit()
                self._send()
                self._stage()
                if not self._must_commit():
                    self._wait()
                self._collect()
                self._tell()
            yield from self._leave()
            self._tell(last=True)
        except BaseException:
            self._land()
            raise
        finally:
            self._calls.close()
            self.report.seconds = self._clock() - self._started_at

    def _is_done(self) -> bool:
        if self._in_flight:
            return False
        return self._settler.stopping or (self._exhausted and not self._backlog.unsettled)

    def _stage(self) -> None:
        """Makes the next batches, as far ahead as they are recorded with one sync."""
        if self._settler.stopping:
            self._withdraw()
            return
        for command in WRITING_COMMANDS:
            while len(self._staged[command]) < self._ahead:
                self._read()
                operations = self._backlog.take(command, partial=self._nothing_can_join(command))
                if not operations:
                    break
                batch = Batch(self._ledger.next_batch_id(), command, tuple(operations))
                self._staged[command].append(_Prepared(batch, batch.body()))

    def _nothing_can_join(self, command: Command) -> bool:
        """Whether waiting would not make a batch of new operations any fuller. Removals follow what is set."""
        if self._backlog.unsettled >= self._most_unsettled:
            return True
        setting = self._staged[Command.SET_ATTR] or self._recorded[Command.SET_ATTR] or self._in_flight
        return self._exhausted and (command is Command.SET_ATTR or not setting)

    def _read(self) -> None:
        started_at = self._clock()
        enough = 2 * self._backlog.batch_size
        while not self._exhausted and self._backlog.fresh < enough and self._backlog.unsettled < self._most_unsettled:
            change = next(self._changes, None)
            if change is None:
                self._exhausted = True
            else:
                self._add(change)
        self._spent(WaitCause.CHANGES, started_at)

    def _add(self, change: Change) -> None:
        operation = Operation.of(change)
        if operation is None:
            self._settler.without_operation(change)
        else:
            self._backlog.add(operation)

    def _must_commit(self) -> bool:
        """When calls could leave but for the record, and when what settled has waited long enough."""
        if any(self._staged[command] and not self._recorded[command] for command in WRITING_COMMANDS):
            return True
        return self._has_settled() and self._clock() - self._flushed_at >= self._settings.flush_seconds

    def _has_settled(self) -> bool:
        return bool(self._settler.settled or self._settler.outcomes)

    def _commit(self) -> Iterator[list[Outcome]]:
        """One write and one sync for all that is new; then the calls may leave and the outcomes count."""
        started_at = self._clock()
        staged = [prepared.batch for command in WRITING_COMMANDS for prepared in self._staged[command]]
        self._ledger.record(
            sent=[Sent(batch.batch_id, batch.command, batch.numbers) for batch in staged],
            settled=self._settler.settled,
        )
        self._settler.settled = []
        for command in WRITING_COMMANDS:
            self._recorded[command] += self._staged[command]
            self._staged[command].clear()
        self._flushed_at = self._spent(WaitCause.LEDGER, started_at)
        outcomes, self._settler.outcomes = self._settler.outcomes, []
        if outcomes:
            self.report.count(outcomes)
            yield outcomes
            self._spent(WaitCause.CONSUMER, self._flushed_at)

    def _send(self) -> None:
        if self._settler.stopping:
            return
        for command in WRITING_COMMANDS:
            pacer, recorded = self._quota.pacer(command), self._recorded[command]
            while recorded and len(self._in_flight) < self._settings.max_in_flight:
                permit = pacer.take()
                if permit is None:
                    break
                prepared = recorded.popleft()
                self._settler.sent(prepared.batch, permit.sent_at)
                call = self._calls.start(command, prepared.body)
                self._in_flight.append(_InFlight(prepared.batch, permit, self._settler.usersig_number, call))

    def _wait(self) -> None:
        """Until a call ends, the next one may leave, rows are due again, or the record has to be flushed."""
        started_at = self._clock()
        wake_at, cause = self._next_event()
        if wake_at == math.inf and not self._in_flight and not any(self._recorded.values()) and self._backlog.unsettled:
            raise RuntimeError(f"{self._backlog.unsettled} changes were lost track of: this is a fault of the program")
        if self._has_settled():
            wake_at = min(wake_at, self._flushed_at + self._settings.flush_seconds)
        self._calls.wait(max(0.0, min(wake_at - started_at, LONGEST_WAIT_SECONDS)))
        self._spent(cause, started_at)

    def _next_event(self) -> tuple[float, WaitCause]:
        wake_at, cause = math.inf, WaitCause.ANSWERS
        if self._settler.stopping:
            return wake_at, cause
        for command in WRITING_COMMANDS:
            if self._recorded[command] and len(self._in_flight) < self._settings.max_in_flight:
                ready_at = self._quota.pacer(command).ready_at()
                wake_at, cause = min((wake_at, cause), (ready_at, WaitCause.QUOTA))
            if len(self._staged[command]) < self._ahead:
                due = self._backlog.next_due(command)
                wake_at, cause = min((wake_at, cause), (due, WaitCause.BACKOFF))
        return (wake_at, cause) if wake_at < math.inf else (wake_at, WaitCause.ANSWERS)

    def _collect(self) -> None:
        """Takes the calls that have ended."""
        for flight in [flight for flight in self._in_flight if flight.call.ended_at is not None]:
            self._take(flight)
            self._in_flight.remove(flight)

    def _take(self, flight: _InFlight) -> None:
        pacer, result = self._quota.pacer(flight.batch.command), flight.call.result
        answered = result is not None and result.fault is None
        pacer.answered(flight.permit, at=flight.call.ended_at, round_trip=answered)
        if result is None:
            if not self._settler.ending and flight.call.error is not None:
                raise flight.call.error
            return
        if answered:
            self.report.latencies.add(result.latency_seconds)
        settlement = settle(flight.batch.accounts, result)
        if settlement.slow_down:
            self.report.slow_downs += 1
            pacer.slow_down()
        self._settler.apply(flight.batch, settlement, at=self._clock(), usersig_number=flight.usersig_number)

    def _leave(self) -> Iterator[list[Outcome]]:
        """Nothing is in flight: what was never sent gets its outcome, the unread changes included."""
        self._withdraw()
        yield from self._commit()
        while self._settler.stopping:
            chunk = list(islice(self._changes, CHUNK))
            if not chunk:
                break
            for change in chunk:
                self._add(change)
            self._withdraw()
            yield from self._commit()
            self._tell()

    def _withdraw(self) -> None:
        """Batches on record whose calls do not leave any more are settled as not written; the rest is given up."""
        for command in WRITING_COMMANDS:
            for prepared in (*self._recorded[command], *self._staged[command]):
                self._settler.never_sent(prepared.batch)
            self._recorded[command].clear()
            self._staged[command].clear()
        for operation in self._backlog.drain():
            self._settler.give_up(operation)

    def _land(self) -> None:
        """After an interruption: waits for the calls in flight, within bounds, and records what they did."""
        self._settler.ending = True
        deadline = self._clock() + self._settings.landing_seconds
        while self._in_flight and self._clock() < deadline:
            self._collect()
            if self._in_flight:
                self._calls.wait(max(0.0, min(deadline - self._clock(), LONGEST_WAIT_SECONDS)))
        self._withdraw()
        try:
            self._ledger.record(settled=self._settler.settled)
        except LedgerError as error:  # the interruption is what the caller must see
            _log.error("The push was interrupted, and its last calls stay unsettled on record: %s", error)

    def _tell(self, *, last: bool = False) -> None:
        now, calls = self._clock(), self.report.calls.total()
        self.report.seconds = now - self._started_at
        told_at, told_calls = self._told
        if self._on_progress is None or (now - told_at < self._settings.progress_seconds and not last):
            return
        self._told = (now, calls)
        self._on_progress(
            Progress(
                seconds=self.report.seconds,
                period_seconds=now - told_at,
                calls=calls,
                calls_per_second=(calls - told_calls) / (now - told_at) if now > told_at else 0.0,
                changes=dict(self.report.changes),
                resent_rows=self.report.resent_rows,
                in_flight=len(self._in_flight),
                quota_share=min(self._quota.pacer(command).share() for command in WRITING_COMMANDS),
            )
        )

    def _spent(self, cause: WaitCause, since: float) -> float:
        now = self._clock()
        self.report.waits_seconds[cause] += now - since
        return now
