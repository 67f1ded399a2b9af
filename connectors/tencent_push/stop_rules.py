"""When a push should stop by itself: each rule watches what happened and says so once it has seen enough.

Counts only. What a code means stands in errors.py, and stopping itself is the settler's.
"""

from collections.abc import Mapping

from connectors.tencent_push.errors import Reason, lookup
from connectors.tencent_push.outcomes import Cause, OutcomeKind, Settlement, StopCause

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
    """Every row so far, and many of them, was rejected with one code that points at the app and not at the rows."""

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
        if not entry.stops_when_all_refused or self._rows < self._least_rows:
            return None
        text = f"All of the first {self._rows} rows were refused with code {code}. {entry.meaning} {entry.fix}"
        return StopCause(code, entry.reason, text)


class TooManyFailed:
    """More than this share of the settled changes failed, and enough of them are settled to say so."""

    def __init__(self, fraction: float | None, *, rows: int) -> None:
        self._fraction = fraction
        self._least_rows = rows
        self._settled = 0
        self._failed = 0

    def settled(self, kind: OutcomeKind) -> StopCause | None:
        if kind is OutcomeKind.NOT_ATTEMPTED:
            return None
        self._settled += 1
        self._failed += kind in (OutcomeKind.REJECTED, OutcomeKind.ERRORED)
        if self._fraction is None or self._settled < self._least_rows:
            return None
        if self._failed <= self._fraction * self._settled:
            return None
        text = (
            f"{self._failed} of the {self._settled} changes settled so far failed, a share of "
            f"{self._failed / self._settled:.4g}; guards.max_failed_fraction allows {self._fraction:g}. Look at the "
            "failed rows and mend what they name, or raise guards.max_failed_fraction if so many failures are right. "
            "The next run goes on from here."
        )
        return StopCause(None, Reason.RUN_STOPPED, text)
