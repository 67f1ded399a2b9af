"""What people are told while a push works: a line every few seconds, and every moment of it on a bar.

Counts, rates and codes; no account and no value. Nothing here knows Dagster or a terminal: where lines go and what
draws the bar come in.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from connectors.tencent_push.outcomes import OutcomeKind
from connectors.tencent_push.protocol import AccountType
from connectors.tencent_push.report import Progress
from pipelines.frames import Frame

PROGRESS_SECONDS = 0.25  # how often the sink is asked to tell: a bar that moves
LINE_SECONDS = 5.0  # a line in Dagster's log costs 22 ms
WINDOW_SECONDS = 5.0  # what rates are measured over
SHORTEST_RATE_SECONDS = 1.0  # over less than a second, a rate says nothing about the quota
SHOWN_CODES = 3


class Bar(Protocol):
    """Where the newest text is shown in place of the one before."""

    def show(self, text: str, *, share_done: float) -> None: ...

    def close(self) -> None:
        """Nothing more is shown for now; may be said twice."""


@dataclass(frozen=True, slots=True)
class ProgressTeller:
    """Tells of pushes, one frame after the other. `report` takes a line for people."""

    report: Callable[[str], None]
    bar: Bar | None = None

    @contextmanager
    def of(self, frame: Frame, *, passed_over: int = 0, withheld: int = 0) -> Iterator[Callable[[Progress], None]]:
        """Yields the `on_progress` of the frame's sink.

        `passed_over` changes were acknowledged before this push, and `withheld` ones are not sent: neither comes up in
        the sink's numbers.
        """
        work = Work(frame.account_type, frame.counts.changed, passed_over, withheld)
        teller = _FrameTeller(work, self.report, self.bar)
        try:
            yield teller.tell
            teller.tell_last()
        finally:
            if self.bar is not None:
                self.bar.close()


@dataclass(frozen=True, slots=True)
class Work:
    """What one frame's push has before it."""

    kind: AccountType
    changed: int
    passed_over: int = 0
    withheld: int = 0

    @property
    def to_settle(self) -> int:
        return max(0, self.changed - self.passed_over - self.withheld)


class _FrameTeller:
    """Every moment goes to the bar; a line goes out when the last one is old, and when the pace falls."""

    def __init__(self, work: Work, report: Callable[[str], None], bar: Bar | None) -> None:
        self._work = work
        self._report = report
        self._bar = bar
        self._rates = RatesOfLate()
        self._last: Progress | None = None
        self._line_at_seconds = LINE_SECONDS
        self._slow_downs = 0
        self._slowed = False

    def tell(self, progress: Progress) -> None:
        self._last = progress
        self._rates.add(progress)
        self._tell_slow_down(progress)
        if self._bar is not None:
            self._bar.show(self._text(progress), share_done=self._share_done(progress))
        if progress.seconds >= self._line_at_seconds:
            self._tell_line(progress)

    def tell_last(self) -> None:
        """The end of a push that ran to its end is always in the log."""
        if self._last is not None:
            self._tell_line(self._last)

    def _tell_line(self, progress: Progress) -> None:
        self._line_at_seconds = progress.seconds + LINE_SECONDS
        self._last = None
        self._report(self._text(progress))

    def _tell_slow_down(self, progress: Progress) -> None:
        """Once for all refusals until the pace has recovered."""
        if progress.slow_downs > self._slow_downs and not self._slowed:
            self._report(
                f"{self._work.kind}: Tencent says calls come too often; the pace is lowered to "
                f"{_percent(progress.quota_share)} and recovers"
            )
        self._slowed = progress.quota_share < 1
        self._slow_downs = progress.slow_downs

    def _share_done(self, progress: Progress) -> float:
        return settled_rows(progress) / self._work.to_settle if self._work.to_settle else 1.0

    def _text(self, progress: Progress) -> str:
        return progress_text(progress, self._rates.rates(), work=self._work)


class _Moment(NamedTuple):
    seconds: float
    calls: int
    rows: int
    used_seconds: float  # of the quota: its share in use, added up over time


@dataclass(frozen=True, slots=True)
class Rates:
    """Over the last `seconds`. `quota_use` is the share of the quota that the busiest command made use of."""

    seconds: float
    calls_per_second: float
    rows_per_second: float
    quota_use: float


class RatesOfLate:
    """Rates over the last few seconds of a push: those of a quarter of a second jump too much to be read."""

    def __init__(self) -> None:
        self._moments = deque([_Moment(0.0, 0, 0, 0.0)])

    def add(self, progress: Progress) -> None:
        used = self._moments[-1].used_seconds + progress.quota_use * progress.period_seconds
        self._moments.append(_Moment(progress.seconds, progress.calls, settled_rows(progress), used))
        while len(self._moments) > 2 and self._moments[1].seconds <= progress.seconds - WINDOW_SECONDS:
            self._moments.popleft()

    def rates(self) -> Rates:
        first, last = self._moments[0], self._moments[-1]
        seconds = last.seconds - first.seconds
        if seconds <= 0:
            return Rates(0.0, 0.0, 0.0, 0.0)
        return Rates(
            seconds=seconds,
            calls_per_second=(last.calls - first.calls) / seconds,
            rows_per_second=(last.rows - first.rows) / seconds,
            quota_use=(last.used_seconds - first.used_seconds) / seconds,
        )


def settled_rows(progress: Progress) -> int:
    return sum(progress.changes.values())


def progress_text(progress: Progress, rates: Rates, *, work: Work) -> str:
    """`user_id: 18,798 of 45,583 acknowledged, 102 failed (70107: 100, 90033: 2), 99 calls/s (99 % of the quota)...`"""
    settled = settled_rows(progress)
    acknowledged = progress.changes.get(OutcomeKind.ACKNOWLEDGED, 0)
    parts = [
        f"{work.kind}: {acknowledged + work.passed_over:,} of {work.changed:,} acknowledged",
        f"{settled - acknowledged:,} failed{_codes_text(progress)}",
    ]
    rated = rates.seconds >= SHORTEST_RATE_SECONDS
    if progress.calls and rated:
        parts.append(f"{rates.calls_per_second:.0f} calls/s ({_percent(min(1.0, rates.quota_use))} of the quota)")
    if progress.quota_share < 1:
        parts.append(f"slowed down to {_percent(progress.quota_share)}")
    if progress.resent_rows:
        parts.append(f"{progress.resent_rows:,} rows sent again")
    left_seconds = (work.to_settle - settled) / rates.rows_per_second if rates.rows_per_second else 0.0
    if rated and left_seconds >= 1:
        parts.append(f"about {duration_text(left_seconds)} left")
    return ", ".join(parts)


def _codes_text(progress: Progress) -> str:
    """The most frequent codes; where Tencent gave none, the reason."""
    by_code: Counter[str] = Counter()
    for (reason, code), commands in progress.failures.items():
        by_code[reason.value if code is None else str(code)] += commands
    if not by_code:
        return ""
    ordered = sorted(by_code.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{code}: {commands:,}" for code, commands in ordered[:SHOWN_CODES]]
    others = sum(commands for _, commands in ordered[SHOWN_CODES:])
    return f" ({', '.join([*shown, f'others: {others:,}'] if others else shown)})"


def duration_text(seconds: float) -> str:
    """As exact as one can tell: seconds, then minutes, then hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
