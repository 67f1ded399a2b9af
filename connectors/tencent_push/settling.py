"""Carries out what `settle` decided: outcomes, resends, halves, a new signature, and when the run has to stop.

Works on the backlog and on lists that the sink takes from; nothing here sends, waits or writes to disk.
"""

import math
from collections import defaultdict
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
from connectors.tencent_push.stop_rules import AllRefused, ErroredInARow, TooManyFailed

_BACKOFF = Backoff()
_THROTTLED_BACKOFF = Backoff(attempts=12)
_NARROWED_BACKOFF = Backoff(attempts=2)
BLIND_LEVELS = 2  # of halves, where no other call is left to show whether the API works


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Bounds of a push. Calls refused for coming too fast have attempts of their own: they are part of normal life.
    So have the halves of a call whose attempts were used up while others passed.

    These stop the run: so many batches in a row given up without the API deciding about a single row; the first many
    rows all rejected with one code that points at the app; a larger share of rejected and errored changes than
    `max_failed_fraction` (None: any share is taken), once that many have settled.
    """

    batch_size: int = MAX_ACCOUNTS_PER_CALL
    max_in_flight: int = (
        256  # two commands at 100 calls/s each and a second's round trip fit; threads are made as needed
    )
    backoff: Backoff = _BACKOFF
    throttled_backoff: Backoff = _THROTTLED_BACKOFF
    narrowed_backoff: Backoff = _NARROWED_BACKOFF
    narrowed_batches: int = 50  # more than these are not a few odd rows, and halving them all would only cost calls
    errored_batches_in_a_row: int = 20
    all_refused_rows: int = 1000
    max_failed_fraction: float | None = None
    max_failed_fraction_rows: int = 1000
    staged_seconds: float = 0.05  # batches are recorded this far ahead of their calls, several with one sync
    flush_seconds: float = 0.1  # what settled becomes durable, and is yielded, at least this often
    partial_batch_seconds: float = 1.0  # how long new operations wait for their batch to be full
    landing_seconds: float = 35.0  # how long an interrupted push waits for its calls: longer than their time-outs
    progress_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= MAX_ACCOUNTS_PER_CALL:
            raise ValueError(f"batch_size is {self.batch_size}; a call takes 1 to {MAX_ACCOUNTS_PER_CALL} accounts")
        if self.max_in_flight < 1:
            raise ValueError(f"max_in_flight is {self.max_in_flight}; it must be at least 1")
        if self.max_failed_fraction is not None and not 0 <= self.max_failed_fraction <= 1:
            raise ValueError(f"max_failed_fraction is {self.max_failed_fraction}; it is a share, from 0 to 1")


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
        self._errored_in_a_row = ErroredInARow(settings.errored_batches_in_a_row)
        self._all_refused = AllRefused(settings.all_refused_rows)
        self._too_many_failed = TooManyFailed(settings.max_failed_fraction, rows=settings.max_failed_fraction_rows)
        self._refused: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)  # by the call that is being settled
        self._answered_at = -math.inf  # when the API last decided about a row
        self._narrowed_batches = 0
        self._usersig_works = False
        self.usersig_number = 0  # of the signature in use; a call remembers the one it began with
        self.outcomes: list[Outcome] = []
        self.settled: list[Settled] = []
        self.ending = False  # the push is being interrupted: nothing is sent again

    @property
    def stopping(self) -> bool:
        return self.ending or self._report.stop is not None

    def stop(self, cause: StopCause) -> None:
        """Nothing more is sent. The first cause is the one that counts. Sets nothing but that, so that a signal's
        handler may call it at any moment.
        """
        if self._report.stop is None:
            self._report.stop = cause

    def sent(self, batch: Batch, at: float) -> None:
        """The batch's call leaves now."""
        self._report.calls[batch.command] += 1
        for operation in batch.operations:
            if operation.calls:
                self._report.resent_rows += 1
            else:
                operation.attempts_since = at
            operation.calls += 1
            operation.company = len(batch.operations)
            operation.batch_id = batch.batch_id

    def never_sent(self, batch: Batch) -> None:
        """The batch was recorded, but its call does not leave any more."""
        self.settled.append(Settled(batch.batch_id, batch.command))
        for operation in batch.operations:
            self.give_up(operation)

    def without_operation(self, change: Change) -> None:
        """A change that asks for nothing is as it should be."""
        self._conclude(Outcome.of(change, ()))

    def apply(self, batch: Batch, settlement: Settlement, *, at: float, usersig_number: int) -> None:
        """The batch's call has ended; `usersig_number` is of the signature in use when it began."""
        operations = {operation.change.account: operation for operation in batch.operations}
        maybe_written = self._note(settlement, operations)
        if settlement.stop is not None:
            self.stop(settlement.stop)
        if settlement.answered:
            self._answered_at = at
            self._usersig_works = self._usersig_works or usersig_number == self.usersig_number
        if settlement.acknowledged:
            self._all_refused.acknowledged()
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
        self._stop_if(self._errored_in_a_row.ended(settlement, given_up=not kept))
        acknowledged = [operations[account].change.number for account in settlement.acknowledged]
        refused, self._refused = dict(self._refused), defaultdict(list)
        self.settled.append(Settled(batch.batch_id, batch.command, acknowledged, maybe_written, refused))

    def give_up(self, operation: Operation) -> None:
        """The run stops before the operation could be (re)sent."""
        kind = OutcomeKind.ERRORED if operation.cause else OutcomeKind.NOT_ATTEMPTED
        self._refuse(operation, kind)

    def _note(self, settlement: Settlement, operations: Mapping[str, Operation]) -> list[int]:
        """Why each row was not acknowledged, for the refusal that it may end in; the numbers that may be written."""
        maybe_written = []
        for rows in (settlement.rejected, settlement.errored, settlement.resend, settlement.split):
            for account, cause in rows.items():
                operation = operations[account]
                operation.cause = cause
                if cause.maybe_written:
                    operation.maybe_written = True
                    maybe_written.append(operation.change.number)
        return maybe_written

    def _resend(self, operations: list[Operation], *, whole: bool, at: float, chance: float) -> bool:
        """Sends again what has attempts left, after one wait for all, or is narrowed; whether there was any."""
        kept: list[Operation] = []
        used_up: list[Operation] = []
        wait_seconds = 0.0
        for operation in operations:
            wait = self._wait_seconds(operation, at=at, chance=chance)
            if wait is None:
                used_up.append(operation)
            else:
                kept.append(operation)
                wait_seconds = max(wait_seconds, wait)
        narrowed = self._narrow(used_up, at=at)
        for operation in () if narrowed else used_up:
            self._exhausted(operation)
        if self.stopping:
            for operation in kept:
                self.give_up(operation)
        elif kept:
            attempt = None if whole else max(operation.failures + operation.throttled for operation in kept)
            self._backlog.resend(kept, due=at + wait_seconds, attempt=attempt)
        return bool(kept) or narrowed

    def _narrow(self, operations: list[Operation], *, at: float) -> bool:
        """Halves what an error of the API's own has used up the attempts of, when that may be the doing of one row.

        It may be where the API answered other calls since these attempts began, and where too little is left to show
        whether it would. Halves get two more levels without such a sign: both may hold a row like that. All else is an
        outage, and halves would only be more calls into it. Each half has few attempts.
        """
        if len(operations) < 2 or self.stopping or not all(op.cause and op.cause.narrows for op in operations):
            return False
        whole_batch = all(operation.narrowings == 0 for operation in operations)
        others_pass = all(self._answered_at > operation.attempts_since for operation in operations)
        if not (others_pass or all(operation.blind_levels < BLIND_LEVELS for operation in operations)):
            return False
        if whole_batch and not self._may_begin_to_narrow(others_pass=others_pass):
            return False
        for operation in operations:
            operation.narrowings += 1
            operation.blind_levels = 0 if others_pass else operation.blind_levels + 1
            operation.failures = 0
            operation.attempts_since = at
        self._resend_halves(operations, due=at)
        return True

    def _may_begin_to_narrow(self, *, others_pass: bool) -> bool:
        last_ones = self._backlog.unsettled <= self._settings.batch_size
        if not (others_pass or last_ones) or self._narrowed_batches >= self._settings.narrowed_batches:
            return False
        self._narrowed_batches += 1
        return True

    def _wait_seconds(self, operation: Operation, *, at: float, chance: float) -> float | None:
        if operation.cause is not None and operation.cause.reason is Reason.THROTTLED:
            operation.throttled += 1
            backoff, attempt = self._settings.throttled_backoff, operation.throttled
        else:
            operation.failures += 1
            backoff = self._settings.narrowed_backoff if operation.narrowings else self._settings.backoff
            attempt = operation.failures
        return backoff.wait_seconds(attempt, elapsed_seconds=at - operation.attempts_since, random=lambda: chance)

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
        if cause is not None and cause.code is not None and lookup(cause.code).too_large:
            self._backlog.batch_size = min(self._backlog.batch_size, math.ceil(len(operations) / 2))
        halvings = min(operation.halvings for operation in operations)
        if cause is not None and cause.split_levels is not None and halvings >= cause.split_levels:
            for operation in operations:
                self._exhausted(operation, kind=OutcomeKind.REJECTED)
        elif self.stopping:
            for operation in operations:
                self.give_up(operation)
        else:
            for operation in operations:
                operation.halvings += 1
            self._resend_halves(operations, due=at)

    def _resend_halves(self, operations: list[Operation], *, due: float) -> None:
        middle = len(operations) // 2
        for half in (operations[:middle], operations[middle:]):
            self._backlog.resend(half, due=due, attempt=None)

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
            whole=cause.whole,
        )
        if kind is OutcomeKind.REJECTED:
            self._stop_if(self._all_refused.rejected(cause.code))
            if operation.company == 1 and cause.code is not None and lookup(cause.code).too_large:
                self._backlog.batch_size = self._settings.batch_size  # it was this row, and not the size of the calls
        # What failed alone after its neighbours had passed will fail them again the next time they meet.
        if cause.code is not None and (
            kind is OutcomeKind.REJECTED or (operation.narrowings and operation.company == 1)
        ):
            self._refused[cause.code, cause.whole].append(operation.change.number)
        self._finish(operation, (*operation.refusals, refusal))

    def _finish(self, operation: Operation, refusals: tuple[Refusal, ...]) -> None:
        following = operation.after(refusals)
        if following is None:
            self._conclude(Outcome.of(operation.change, refusals))
            self._backlog.finish(operation.change)
        elif self.stopping:
            self.give_up(following)
        else:
            self._backlog.follow(following)

    def _conclude(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._stop_if(self._too_many_failed.settled(outcome))

    def _stop_if(self, cause: StopCause | None) -> None:
        if cause is not None:
            self.stop(cause)


_RUN_STOPPED = Cause(Reason.RUN_STOPPED, None, None, maybe_written=False)
