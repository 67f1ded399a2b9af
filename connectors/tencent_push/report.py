"""What a push has done so far, in numbers: for progress while it works, and for the run's metadata at its end.

Counts, codes and seconds only: no account, value or text of Tencent's stands here. Nothing here decides anything.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from connectors.tencent_push.errors import Reason
from connectors.tencent_push.outcomes import Outcome, OutcomeKind, StopCause
from connectors.tencent_push.protocol import Command

_BUCKET_GROWTH = 1.05  # percentiles are right within 5 %
_SMALLEST_LATENCY_SECONDS = 1e-4


class WaitCause(StrEnum):
    """What the sink's own thread spent its time on when it could send nothing."""

    QUOTA = "quota"  # calls were ready, their time had not come
    ANSWERS = "answers"  # everything allowed was in flight
    BACKOFF = "backoff"  # only rows to be sent again were left
    CHANGES = "changes"  # reading the changes
    LEDGER = "ledger"  # making the record durable
    CONSUMER = "consumer"  # the taker of the outcomes was at work


class Latencies:
    """A histogram with buckets that grow by 5 %: percentiles of any number of calls in constant memory."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, latency_seconds: float) -> None:
        ratio = max(latency_seconds, _SMALLEST_LATENCY_SECONDS) / _SMALLEST_LATENCY_SECONDS
        self._buckets[math.ceil(math.log(ratio, _BUCKET_GROWTH))] += 1

    def percentile(self, percent: float) -> float | None:
        """Seconds that `percent` of the calls took at most; None before the first call."""
        wanted = self._buckets.total() * percent / 100
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return float(_SMALLEST_LATENCY_SECONDS * _BUCKET_GROWTH**bucket)
        return None


@dataclass(slots=True)
class SinkReport:
    """The sum of `changes` is the number of outcomes yielded; `resent_rows` counts rows of calls after their first.

    `refusals` counts commands that were not acknowledged, by reason and ErrorCode, so a change can stand in it twice.
    `stop` is set when the run stopped before everything was sent. `quota` is in calls per second, for each command.
    """

    calls: Counter[Command] = field(default_factory=Counter)
    changes: Counter[OutcomeKind] = field(default_factory=Counter)
    refusals: Counter[tuple[Reason, int | None]] = field(default_factory=Counter)
    resent_rows: int = 0
    slow_downs: int = 0
    waits_seconds: defaultdict[WaitCause, float] = field(default_factory=lambda: defaultdict(float))
    latencies: Latencies = field(default_factory=Latencies)
    seconds: float = 0.0
    quota: float = 0.0
    stop: StopCause | None = None

    @property
    def calls_per_second(self) -> float:
        """Of all commands together, over the whole push."""
        return self.calls.total() / self.seconds if self.seconds else 0.0

    @property
    def quota_use(self) -> float:
        """The share of the quota that the busiest command had over the whole push; the others' has no part in it.

        At most all of it: the first calls have no others to wait for, so that a short push can be over its average.
        """
        if not (self.seconds and self.quota):
            return 0.0
        return min(1.0, busiest(self.calls) / (self.seconds * self.quota))

    def count(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self.changes[outcome.kind] += 1
            for refusal in outcome.refusals:
                self.refusals[refusal.reason, refusal.code] += 1


def busiest(calls: Counter[Command]) -> int:
    """The calls of the command that had the most: limits are counted per command."""
    return max(calls.values(), default=0)


@dataclass(frozen=True, slots=True)
class PushCall:
    """One call that has ended. `sent_at` is in UTC.

    `attempt` is the largest number of calls that any of its rows has been in, this one included. `code` is the reply's
    ErrorCode, 0 for OK, and None where no reply could be read; `fault` is set exactly there. `refused_rows` are those
    that it did not acknowledge, for whatever reason.
    """

    batch_id: str
    command: Command
    rows: int
    attempt: int
    sent_at: datetime
    latency_seconds: float
    http_status: int | None
    fault: str | None
    code: int | None
    refused_rows: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a push. `calls_per_second` and `quota_use` are of the `period_seconds` since the progress before."""

    seconds: float
    period_seconds: float
    calls: int
    calls_per_second: float
    changes: dict[OutcomeKind, int]
    resent_rows: int
    in_flight: int
    quota_share: float  # below 1 while the pace is lowered after `slow_down`
    quota_use: float  # of the busiest command
    failures: dict[tuple[Reason, int | None], int]  # commands not acknowledged so far, by reason and ErrorCode
    slow_downs: int
