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

from connectors.tencent_push.batching import WRITING_COMMANDS, Backlog, Batch, Operation
from connectors.tencent_push.calls import CallingClient, Calls, RunningCall, ThreadedCalls
from connectors.tencent_push.errors import LedgerError
from connectors.tencent_push.ledger import Record, Sent
from connectors.tencent_push.outcomes import Change, Outcome, StopCause, settle
from connectors.tencent_push.pacing import Permit, Quota
from connectors.tencent_push.protocol import Command
from connectors.tencent_push.report import Progress, PushCall, SinkReport, WaitCause
from connectors.tencent_push.settling import Settler, SinkSettings
from connectors.tencent_push.telling import Telling

__all__ = ["Sink", "SinkSettings"]

_log = logging.getLogger(__name__)

# Another sink of the same quota may free a permit, and a signal's handler may stop this one, without waking it.
LONGEST_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    batch: Batch
    body: bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    prepared: _Prepared
    position: int  # in the record: where its line ends


@dataclass(frozen=True, slots=True, eq=False)
class _InFlight:
    batch: Batch
    permit: Permit
    sent_at: datetime
    usersig_number: int
    call: RunningCall


class Sink:
    """Pushes the changes of one frame, once. Use it as a context manager, so that an interrupted push ends cleanly.

    `quota` is shared by all sinks of the app in this process. The clock, its kind of waiting (`calls`), chance and the
    date come in for tests. `on_progress` is called at most every `progress_seconds`, and `on_call` for each call that
    has ended, after it was settled; both in the caller's thread.
    """

    def __init__(
        self,
        client: CallingClient,
        ledger: Record,
        *,
        quota: Quota,
        settings: SinkSettings | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_call: Callable[[PushCall], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
        calls: Calls | None = None,
    ) -> None:
        self.report = SinkReport(quota=quota.calls_per_second)
        self._settings = settings or SinkSettings()
        self._ledger = ledger
        self._quota = quota
        self._clock = clock
        self._now = now
        self._calls = calls or ThreadedCalls(client, max_in_flight=self._settings.max_in_flight, clock=clock)
        ledger.on_confirmed(self._calls.wake)
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
        self._telling = Telling(
            self.report,
            quota,
            on_call=on_call,
            on_progress=on_progress,
            progress_seconds=self._settings.progress_seconds,
        )
        ahead = math.ceil(quota.calls_per_second * self._settings.staged_seconds)
        self._ahead = max(1, min(self._settings.max_in_flight, ahead))  # batches, per command
        self._most_unsettled = self._settings.batch_size * 2 * (self._settings.max_in_flight + self._ahead)
        self._staged: dict[Command, deque[_Prepared]] = {command: deque() for command in WRITING_COMMANDS}
        self._recorded: dict[Command, deque[_Recorded]] = {command: deque() for command in WRITING_COMMANDS}
        self._in_flight: list[_InFlight] = []
        self._changes: Iterator[Change] = iter(())
        self._exhausted = False
        self._flushed_at = self._started_at = clock()
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
        """One outcome for each change read, in the order in which they settle; each list is durable when it is yielded.

        Changes are read only as far as they can soon be sent; their numbers are distinct within the ledger. When the
        run stops, no more are read: the rest stays in `changes`, for the caller to account for. Raises LedgerError as
        soon as the record cannot be kept: no call leaves after that. Whatever else ends the push early, an exception of
        `changes` or of the taker included, the calls in flight are waited for and recorded first. Rows that were sent
        and not settled then are `uncertain` in the ledger.
        """
        if self._outcomes is not None:
            raise ValueError("a sink pushes once: its ledger and report are of one frame")
        self._changes = iter(changes)
        self._outcomes = self._push()
        return self._outcomes

    def stop(self, cause: StopCause) -> None:
        """For the taker of the outcomes, or for a signal's handler: nothing more is sent and nothing more is read.

        The calls in flight are settled, and every change that was read has its outcome. Noticed within
        LONGEST_WAIT_SECONDS, as long as the taker and the changes come back to the push.
        """
        self._settler.stop(cause)

    def _push(self) -> Generator[list[Outcome], None, None]:
        self._started_at = self._clock()
        self._telling.begin(self._started_at)
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
            self._withdraw()
            yield from self._commit()
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
            while self._may_stage(command):
                self._read()
                operations = self._backlog.take(command, partial=self._nothing_can_join(command))
                if not operations:
                    break
                batch = Batch(self._ledger.next_batch_id(), command, tuple(operations))
                self._staged[command].append(_Prepared(batch, batch.body()))

    def _may_stage(self, command: Command) -> bool:
        """What is on record and was not sent counts as sent, should this process be killed: it is kept to what leaves
        soon.
        """
        return len(self._staged[command]) + len(self._recorded[command]) < self._ahead

    def _nothing_can_join(self, command: Command) -> bool:
        """Whether waiting would not make a batch of new operations any fuller. Removals follow what is set."""
        if self._backlog.unsettled >= self._most_unsettled:
            return not self._backlog.alone  # else each of those that ends makes room for one more to join
        setting = self._staged[Command.SET_ATTR] or self._recorded[Command.SET_ATTR] or self._in_flight
        return self._exhausted and (command is Command.SET_ATTR or not setting)

    def _read(self) -> None:
        started_at = self._clock()
        enough = 2 * self._backlog.batch_size
        while not (self._exhausted or self._settler.stopping) and self._has_room(enough):
            change = next(self._changes, None)
            if change is None:
                self._exhausted = True
            else:
                self._add(change)
        self._spent(WaitCause.CHANGES, started_at)

    def _has_room(self, enough: int) -> bool:
        """For one more change; those that ask for nothing are outcomes at once, and have to be taken first."""
        if len(self._settler.outcomes) >= self._most_unsettled:
            return False
        return self._backlog.fresh < enough and self._backlog.unsettled < self._most_unsettled

    def _add(self, change: Change) -> None:
        operation = Operation.of(change)
        if operation is None:
            self._settler.without_operation(change)
        else:
            self._backlog.add(operation)

    def _must_commit(self) -> bool:
        """When calls could leave but for the record, and when what settled is much or has waited long enough."""
        if len(self._settler.outcomes) >= self._most_unsettled:
            return True
        if any(self._staged[command] and not self._recorded[command] for command in WRITING_COMMANDS):
            return True
        return self._has_news() and self._clock() - self._flushed_at >= self._settings.flush_seconds

    def _has_news(self) -> bool:
        return bool(self._settler.settled or self._settler.outcomes or any(self._staged.values()))

    def _commit(self) -> Iterator[list[Outcome]]:
        """One write and one sync for all that is new; then the calls may leave and the outcomes count."""
        started_at = self._clock()
        staged = [prepared.batch for command in WRITING_COMMANDS for prepared in self._staged[command]]
        position = self._ledger.record(
            sent=[Sent(batch.batch_id, batch.command, batch.numbers) for batch in staged],
            settled=self._settler.settled,
        )
        self._settler.settled = []
        for command in WRITING_COMMANDS:
            self._recorded[command] += [_Recorded(prepared, position) for prepared in self._staged[command]]
            self._staged[command].clear()
        self._flushed_at = self._spent(WaitCause.LEDGER, started_at)
        outcomes, self._settler.outcomes = self._settler.outcomes, []
        if outcomes:
            self.report.count(outcomes)
            yield outcomes
            self._spent(WaitCause.CONSUMER, self._flushed_at)

    def _send(self) -> None:
        confirmed = self._ledger.confirmed
        for command in WRITING_COMMANDS:
            pacer, recorded = self._quota.pacer(command), self._recorded[command]
            while self._may_leave(recorded, confirmed) and not self._settler.stopping:
                permit = pacer.take()
                if permit is None:
                    break
                self._start(recorded.popleft().prepared, permit)

    def _may_leave(self, recorded: deque[_Recorded], confirmed: int) -> bool:
        is_confirmed = bool(recorded) and recorded[0].position <= confirmed
        return is_confirmed and len(self._in_flight) < self._settings.max_in_flight

    def _start(self, prepared: _Prepared, permit: Permit) -> None:
        self._settler.sent(prepared.batch, permit.sent_at)
        call = self._calls.start(prepared.batch.command, prepared.body)
        self._in_flight.append(_InFlight(prepared.batch, permit, self._now(), self._settler.usersig_number, call))

    def _wait(self) -> None:
        """Until a call ends, the next one may leave, rows are due again, or the record has to be flushed."""
        started_at = self._clock()
        wake_at, cause = self._next_event()
        if wake_at == math.inf and not self._in_flight and not any(self._recorded.values()) and self._backlog.unsettled:
            raise RuntimeError(f"{self._backlog.unsettled} changes were lost track of: this is a fault of the program")
        if self._has_news():
            wake_at = min(wake_at, self._flushed_at + self._settings.flush_seconds)
        self._calls.wait(max(0.0, min(wake_at - started_at, LONGEST_WAIT_SECONDS)))
        self._spent(cause, started_at)

    def _next_event(self) -> tuple[float, WaitCause]:
        wake_at, cause = math.inf, WaitCause.ANSWERS
        if self._settler.stopping:
            return wake_at, cause
        confirmed = self._ledger.confirmed
        for command in WRITING_COMMANDS:
            if self._may_leave(self._recorded[command], confirmed):
                ready_at = self._quota.pacer(command).ready_at()
                wake_at, cause = min((wake_at, cause), (ready_at, WaitCause.QUOTA))
            if self._may_stage(command):
                due = self._backlog.next_due(command)
                wake_at, cause = min((wake_at, cause), (due, WaitCause.BACKOFF))
        has_room = len(self._in_flight) < self._settings.max_in_flight
        if wake_at == math.inf and has_room and any(self._recorded.values()):
            cause = WaitCause.LEDGER
        return wake_at, cause

    def _collect(self) -> None:
        """Takes the calls that have ended."""
        for flight in [flight for flight in self._in_flight if flight.call.ended_at is not None]:
            self._in_flight.remove(flight)  # first: whatever is raised, nothing is settled twice
            self._take(flight)

    def _take(self, flight: _InFlight) -> None:
        pacer, result = self._quota.pacer(flight.batch.command), flight.call.result
        answered = result is not None and result.fault is None
        waited_seconds = result.waited_seconds if result is not None else None
        pacer.answered(flight.permit, at=flight.call.ended_at, waited_seconds=waited_seconds)
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
        self._telling.call_ended(flight.batch, result, settlement, sent_at=flight.sent_at, landing=self._settler.ending)

    def _withdraw(self) -> None:
        """Batches on record whose calls do not leave any more are settled as not written; the rest is given up."""
        for command in WRITING_COMMANDS:
            for prepared in (*(each.prepared for each in self._recorded[command]), *self._staged[command]):
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
        self._telling.progress(self._clock(), in_flight=len(self._in_flight), last=last)

    def _spent(self, cause: WaitCause, since: float) -> float:
        now = self._clock()
        self.report.waits_seconds[cause] += now - since
        return now
