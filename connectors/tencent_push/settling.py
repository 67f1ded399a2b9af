"""Carries out what `settle` decided: outcomes, resends, halves, a new signature, and when the run has to stop.

Works on the backlog and on lists that the sink takes from; nothing here sends, waits or writes to disk.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from connectors.tencent_push.batching import Backlog, Batch, Operation
from connectors.tencent_push.errors import Reason, lookup
from connectors.tencent_push.ledger import Settled
from connectors.tencent_push.outcomes import Cause, Change, Outcome, OutcomeKind, Refusal, Settlement, StopCause
from connectors.tencent_push.pacing import Backoff
from connectors.tencent_push.protocol import MAX_ACCOUNTS_PER_CALL
from connectors.tencent_push.report import SinkReport

_BACKOFF = Backoff()
_THROTTLED_BACKOFF = Backoff(attempts=12)

# A call with one of these was too large as a whole; the calls after it are smaller, too.
TOO_LARGE_CODES = frozenset({70206, 80002, 90018, 90056, 93000})


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Bounds of a push. Calls refused for coming too fast have attempts of their own: they are part of normal life.

    `errored_batches_in_a_row` and `all_refused_rows` stop the run: the first many batches given up without the API
    deciding about a single row; the first many rows all rejected with one code that points at the app.
    """

    batch_size: int = MAX_ACCOUNTS_PER_CALL
    max_in_flight: int = 64
    backoff: Backoff = _BACKOFF
    throttled_backoff: Backoff = _THROTTLED_BACKOFF
    errored_batches_in_a_row: int = 20
    all_refused_rows: int = 1000
    staged_seconds: float = 0.05  # batches are recorded this far ahead of their calls, several with one sync
    flush_seconds: float = 0.1  # what settled becomes durable, and is yielded, at least this often
    partial_batch_seconds: float = 1.0  # how long new operations wait for their batch to be full
    landing_seconds: float = 20.0  # how long an interrupted push waits for its calls: longer than their time-outs
    progress_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= MAX_ACCOUNTS_PER_CALL:
            raise ValueError(f"batch_size is {self.batch_size}; a call takes 1 to {MAX_ACCOUNTS_PER_CALL} accounts")
        if self.max_in_flight < 1:
            raise ValueError(f"max_in_flight is {self.max_in_flight}; it must be at least 1")


class Settler:
    """Takes each call's settlement. `outcomes` and `settled` are for the sink to make durable, then to yield."""

    def __init__(
        self,
        *,
        backlog: Backlog,
        report: SinkReport,
        settings: SinkSettings,
        renew_usersig: Callable[[], None],
        random: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._backlog = backlog
        self._report = report
        self._settings = settings
        self._renew_usersig = renew_usersig
        self._random = random
        self._now = now
        self._errored_in_a_row = 0
        self._refused_alike: tuple[int | None, int] = (None, 0)  # the one code that rejected all so far, and how many
        self._refused_unlike = False
        self._usersig_works = False
        self.usersig_number = 0  # of the signature in use; a call remembers the one it began with
        self.outcomes: list[Outcome] = []
        self.settled: list[Settled] = []
        self.ending = False  # the push is being interrupted: nothing is sent again

    @property
    def stopping(self) -> bool:
        return self.ending or self._report.stop is not None

    def stop(self, cause: StopCause) -> None:
        """Nothing more is sent. The first cause is the one that counts."""
        if self._report.stop is None:
            self._report.stop = cause

    def sent(self, batch: Batch, at: float) -> None:
        """The batch's call leaves now."""
        self._report.calls[batch.command] += 1
        for operation in batch.operations:
            if operation.calls:
                self._report.resent_rows += 1
            else:
                operation.first_sent_at = at
            operation.calls += 1
            operation.batch_id = batch.batch_id

    def never_sent(self, batch: Batch) -> None:
        """The batch was recorded, but its call does not leave any more."""
        self.settled.append(Settled(batch.batch_id, batch.command))
        for operation in batch.operations:
            self.give_up(operation)

    def without_operation(self, change: Change) -> None:
        """A change that asks for nothing is as it should be."""
        self.outcomes.append(Outcome.of(change, ()))

    def apply(self, batch: Batch, settlement: Settlement, *, at: float, usersig_number: int) -> None:
        """The batch's call has ended; `usersig_number` is of the signature in use when it began."""
        operations = {operation.change.account: operation for operation in batch.operations}
        self._note(batch, settlement, operations)
        if settlement.stop is not None:
            self.stop(settlement.stop)
        if settlement.answered:
            self._usersig_works = self._usersig_works or usersig_number == self.usersig_number
        for account in settlement.acknowledged:
            self._finish(operations[account], operations[account].refusals)
        for account in settlement.rejected:
            self._refuse(operations[account], OutcomeKind.REJECTED)
        for account in settlement.errored:
            self._refuse(operations[account], OutcomeKind.ERRORED)
        if settlement.split:
            self._split([operations[account] for account in settlement.split], at=at)
        resend = [operations[account] for account in settlement.resend]
        if settlement.renew_usersig:
            kept = self._resend_signed_anew(resend, at=at, usersig_number=usersig_number)
        else:
            kept = self._resend(resend, whole=settlement.whole, at=at, chance=self._random())
        self._watch(settlement, kept=kept)

    def give_up(self, operation: Operation) -> None:
        """The run stops before the operation could be (re)sent."""
        kind = OutcomeKind.ERRORED if operation.cause else OutcomeKind.NOT_ATTEMPTED
        self._refuse(operation, kind)

    def _note(self, batch: Batch, settlement: Settlement, operations: Mapping[str, Operation]) -> None:
        """For the record, and for the refusal that each row may end in."""
        maybe_written = []
        for rows in (settlement.rejected, settlement.errored, settlement.resend, settlement.split):
            for account, cause in rows.items():
                operation = operations[account]
                operation.cause = cause
                if cause.maybe_written:
                    operation.maybe_written = True
                    maybe_written.append(operation.change.number)
        acknowledged = [operations[account].change.number for account in settlement.acknowledged]
        self.settled.append(Settled(batch.batch_id, batch.command, acknowledged, maybe_written))

    def _resend(self, operations: list[Operation], *, whole: bool, at: float, chance: float) -> bool:
        """Sends again what has attempts left, after one wait for all; whether there was any."""
        kept: list[Operation] = []
        wait_seconds = 0.0
        for operation in operations:
            wait = self._wait_seconds(operation, at=at, chance=chance)
            if wait is None:
                self._exhausted(operation)
            else:
                kept.append(operation)
                wait_seconds = max(wait_seconds, wait)
        if self.stopping:
            for operation in kept:
                self.give_up(operation)
        elif kept:
            attempt = None if whole else max(operation.failures + operation.throttled for operation in kept)
            self._backlog.resend(kept, due=at + wait_seconds, attempt=attempt)
        return bool(kept)

    def _wait_seconds(self, operation: Operation, *, at: float, chance: float) -> float | None:
        if operation.cause is not None and operation.cause.reason is Reason.THROTTLED:
            operation.throttled += 1
            backoff, attempt = self._settings.throttled_backoff, operation.throttled
        else:
            operation.failures += 1
            backoff, attempt = self._settings.backoff, operation.failures
        return backoff.wait_seconds(attempt, elapsed_seconds=at - operation.first_sent_at, random=lambda: chance)

    def _resend_signed_anew(self, operations: list[Operation], *, at: float, usersig_number: int) -> bool:
        """A new signature is made; if the API refuses that one as well, and never took it, the run stops.

        Calls that were in flight with an older signature say nothing about the new one.
        """
        in_use = usersig_number == self.usersig_number
        if in_use and self.usersig_number > 0 and not self._usersig_works:
            for operation in operations:
                self._exhausted(operation)
            return False
        if in_use:
            self._renew_usersig()
            self.usersig_number += 1
            self._usersig_works = False
        return self._resend(operations, whole=True, at=at, chance=0.0)

    def _split(self, operations: list[Operation], *, at: float) -> None:
        """Halves go out at once and alone; a call that may not be halved any more ends as its cause says."""
        cause = operations[0].cause
        if cause is not None and cause.code in TOO_LARGE_CODES:
            self._backlog.batch_size = min(self._backlog.batch_size, math.ceil(len(operations) / 2))
        halvings = min(operation.halvings for operation in operations)
        if cause is not None and cause.split_levels is not None and halvings >= cause.split_levels:
            for operation in operations:
                self._exhausted(operation, kind=OutcomeKind.REJECTED)
        elif self.stopping:
            for operation in operations:
                self.give_up(operation)
        else:
            middle = len(operations) // 2
            for half in (operations[:middle], operations[middle:]):
                for operation in half:
                    operation.halvings += 1
                self._backlog.resend(half, due=at, attempt=None)

    def _exhausted(self, operation: Operation, *, kind: OutcomeKind = OutcomeKind.ERRORED) -> None:
        if operation.cause is not None and operation.cause.stops is not None:
            self.stop(operation.cause.stops)
            kind = OutcomeKind.ERRORED
        self._refuse(operation, kind)

    def _refuse(self, operation: Operation, kind: OutcomeKind) -> None:
        cause = operation.cause or _RUN_STOPPED
        refusal = Refusal(
            command=operation.command,
            kind=kind,
            reason=cause.reason,
            code=cause.code,
            info=cause.info,
            http_status=cause.http_status,
            batch_id=operation.batch_id,
            call_attempts=operation.calls,
            failed_at=self._now(),
            maybe_written=operation.maybe_written,
        )
        if kind is OutcomeKind.REJECTED:
            self._watch_refused(cause.code)
        self._finish(operation, (*operation.refusals, refusal))

    def _finish(self, operation: Operation, refusals: tuple[Refusal, ...]) -> None:
        following = operation.after(refusals)
        if following is None:
            self.outcomes.append(Outcome.of(operation.change, refusals))
            self._backlog.finish(operation.change)
        elif self.stopping:
            self.give_up(following)
        else:
            self._backlog.follow(following)

    def _watch(self, settlement: Settlement, *, kept: bool) -> None:
        """Stops after many calls in a row that were given up without the API having decided about any row."""
        if settlement.acknowledged:
            self._refused_unlike = True
        if settlement.answered:
            self._errored_in_a_row = 0
        elif not kept:
            self._errored_in_a_row += 1
        if self._errored_in_a_row >= self._settings.errored_batches_in_a_row:
            self.stop(_errored_in_a_row(self._errored_in_a_row, settlement))

    def _watch_refused(self, code: int | None) -> None:
        """Stops when every row so far, and many of them, was rejected with one code that points at the app."""
        alike, rows = self._refused_alike
        if self._refused_unlike or code is None or (rows and code != alike):
            self._refused_unlike = True
            return
        self._refused_alike = (code, rows + 1)
        entry = lookup(code)
        if entry.stops_when_all_refused and rows + 1 >= self._settings.all_refused_rows:
            text = f"All of the first {rows + 1} rows were refused with code {code}. {entry.meaning} {entry.fix}"
            self.stop(StopCause(code, entry.reason, text))


_RUN_STOPPED = Cause(Reason.RUN_STOPPED, None, None, maybe_written=False)


def _errored_in_a_row(batches: int, settlement: Settlement) -> StopCause:
    cause = next(iter((*settlement.resend.values(), *settlement.errored.values())), _RUN_STOPPED)
    code = "" if cause.code is None else f" (code {cause.code})"
    text = (
        f"{batches} batches in a row were given up after all attempts, the last for {cause.reason}{code}. "
        "Check that the target can be reached and serves the app; the next run goes on from here."
    )
    return StopCause(cause.code, cause.reason, text)
