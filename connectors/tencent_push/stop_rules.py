"""When a push should stop by itself: each rule watches what happened and says so once it has seen enough.

Counts only. What a code means stands in errors.py, and stopping itself is the settler's.
"""

from collections.abc import Mapping

from connectors.tencent_push.errors import Reason, lookup
from connectors.tencent_push.outcomes import Cause, Outcome, OutcomeKind, Settlement, StopCause

_NO_CAUSE = Cause(Reason.RUN_STOPPED, None, None, maybe_written=False)


class ErroredInARow:
    """Many calls in a row were given up without the API having decided about a single row."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._batches = 0

    def ended(self, settlement: Settlement, *, given_up: bool) -> StopCause | None:
        if settlement.answered:
            self._batches = 0
        elif given_up:
            self._batches += 1
        return self._cause(settlement) if self._batches >= self._limit else None

    def _cause(self, settlement: Settlement) -> StopCause:
        causes: Mapping[str, Cause] = settlement.resend or settlement.errored
        cause = next(iter(causes.values()), _NO_CAUSE)
        code = "" if cause.code is None else f" (code {cause.code})"
        text = (
            f"{self._batches} batches in a row were given up after all attempts, the last for {cause.reason}{code}. "
            "Check that the target can be reached and serves the app; the next run goes on from here."
        )
        return StopCause(cause.code, cause.reason, text)


class AllRefused:
    """Every row so far, and many of them, was rejected with one code, and for good: that is the app, not the rows.

    Codes of rows that may be taken another night (an unknown account) say nothing of the kind.
    """

    def __init__(self, rows: int) -> None:
        self._least_rows = rows
        self._code: int | None = None  # the one that rejected all so far
        self._rows = 0
        self._unlike = False

    def acknowledged(self) -> None:
        """Something was taken: the app is as it should be."""
        self._unlike = True

    def rejected(self, code: int | None) -> StopCause | None:
        if self._unlike or code is None or (self._rows and code != self._code):
            self._unlike = True
            return None
        self._code = code
        self._rows += 1
        entry = lookup(code)
        if entry.retryable or self._rows < self._least_rows:
            return None
        text = f"All of the first {self._rows} rows were refused with code {code}. {entry.meaning} {entry.fix}"
        return StopCause(code, entry.reason, text)


class TooManyFailed:
    """More than this share of the settled changes failed, and enough of them are settled to say so.

    Rows that were rejected and may be taken another night do not count, neither among the failed nor among the
    settled: an account that Tencent does not know is tried every night, and on a quiet one there is little else.
    """

    def __init__(self, fraction: float | None, *, rows: int) -> None:
        self._fraction = fraction
        self._least_rows = rows
        self._settled = 0
        self._failed = 0

    def settled(self, outcome: Outcome) -> StopCause | None:
        if outcome.kind is OutcomeKind.NOT_ATTEMPTED or _is_tried_every_night(outcome):
            return None
        self._settled += 1
        self._failed += outcome.kind in (OutcomeKind.REJECTED, OutcomeKind.ERRORED)
        if self._fraction is None or self._settled < self._least_rows:
            return None
        if self._failed <= self._fraction * self._settled:
            return None
        text = (
            f"{self._failed:,} of the first {self._settled:,} changes failed ({self._failed / self._settled:.2%}, not "
            "counting rows that are tried every night); guards.max_failed_fraction allows "
            f"{self._fraction:.2%}. Look at the failed rows and mend what they name, or raise the guard if so many "
            "failures are right."
        )
        return StopCause(None, Reason.RUN_STOPPED, text)


def _is_tried_every_night(outcome: Outcome) -> bool:
    rejected = [refusal for refusal in outcome.refusals if refusal.kind is OutcomeKind.REJECTED]
    return bool(rejected) and all(refusal.code is not None and lookup(refusal.code).retryable for refusal in rejected)
