"""What a push says of itself while it works: how far, how fast, what failed, how long; and how often it says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connectors.tencent_push.errors import Reason
from connectors.tencent_push.outcomes import OutcomeKind
from connectors.tencent_push.protocol import AccountType
from connectors.tencent_push.report import Progress
from pipelines.frames import Frame
from pipelines.push_progress import (
    LINE_SECONDS,
    PROGRESS_SECONDS,
    WINDOW_SECONDS,
    ProgressTeller,
    Rates,
    RatesOfLate,
    Work,
    duration_text,
    progress_text,
)

USER = AccountType.USER_ID
WORK = Work(USER, 45_583)
RATES = Rates(seconds=5.0, calls_per_second=99.2, rows_per_second=9_000.0, quota_use=0.992)
START = Progress(
    seconds=0.0,
    period_seconds=0.0,
    calls=0,
    calls_per_second=0.0,
    changes={},
    resent_rows=0,
    in_flight=0,
    quota_share=1.0,
    quota_use=0.0,
    failures={},
    slow_downs=0,
)
HALFWAY = replace(
    START,
    seconds=2.0,
    period_seconds=0.25,
    calls=190,
    changes={OutcomeKind.ACKNOWLEDGED: 18_798, OutcomeKind.REJECTED: 102},
    failures={(Reason.ACCOUNT_UNKNOWN, 70107): 100, (Reason.CALL_REFUSED, 90033): 2},
)


def frame(changed: int = 45_583) -> Frame:
    stand_in = SimpleNamespace(account_type=USER, counts=SimpleNamespace(changed=changed))
    return cast("Frame", stand_in)


# The text -----------------------------------------------------------------------------------------------------------


def test_it_tells_how_far_how_fast_what_failed_and_how_long() -> None:
    assert progress_text(HALFWAY, RATES, work=WORK) == (
        "user_id: 18,798 of 45,583 acknowledged, 102 failed (70107: 100, 90033: 2), "
        "99 calls/s (99 % of the quota), about 3 s left"
    )


@pytest.mark.parametrize(
    ("progress", "work", "told"),
    [
        (replace(HALFWAY, quota_share=0.7), WORK, "of the quota), slowed down to 70 %, about 3 s left"),
        (replace(HALFWAY, resent_rows=1_300), WORK, "of the quota), 1,300 rows sent again, about 3 s left"),
        (HALFWAY, replace(WORK, passed_over=9_000), "user_id: 27,798 of 45,583 acknowledged, 102 failed"),
        (HALFWAY, replace(WORK, passed_over=9_000), "about 2 s left"),
        (HALFWAY, replace(WORK, withheld=9_000), "user_id: 18,798 of 45,583 acknowledged, 102 failed"),
        (HALFWAY, replace(WORK, withheld=9_000), "about 2 s left"),
    ],
)
def test_it_tells_what_is_out_of_the_ordinary(progress: Progress, work: Work, told: str) -> None:
    assert told in progress_text(progress, RATES, work=work)


def test_nothing_left_is_not_about_0_seconds() -> None:
    done = replace(HALFWAY, changes={OutcomeKind.ACKNOWLEDGED: 45_583}, failures={})
    told = "user_id: 45,583 of 45,583 acknowledged, 0 failed, 99 calls/s (99 % of the quota)"
    assert progress_text(done, RATES, work=WORK) == told


def test_a_rate_over_less_than_a_second_is_not_told() -> None:
    told = progress_text(HALFWAY, replace(RATES, seconds=0.9), work=WORK)
    assert told == "user_id: 18,798 of 45,583 acknowledged, 102 failed (70107: 100, 90033: 2)"


def test_a_push_that_stands_still_has_no_end_in_sight() -> None:
    told = progress_text(HALFWAY, Rates(5.0, 0.0, 0.0, 0.0), work=WORK)
    assert told.endswith("0 calls/s (0 % of the quota)")


FAILURES = {
    (Reason.TIMEOUT, None): 7,
    (Reason.ACCOUNT_UNKNOWN, 70107): 1_000,
    (Reason.UNKNOWN_CODE, 99_999): 5,
    (Reason.CALL_REFUSED, 90033): 2,
    (Reason.RUN_STOPPED, None): 1,
}


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        (FAILURES, "failed (70107: 1,000, timeout: 7, 99999: 5, others: 3), "),
        (dict(list(FAILURES.items())[:3]), "failed (70107: 1,000, timeout: 7, 99999: 5), "),
        ({(Reason.TIMEOUT, None): 1}, "failed (timeout: 1), "),
        ({}, "failed, "),
    ],
)
def test_the_three_most_frequent_codes_are_named(failures: Mapping[tuple[Reason, int | None], int], told: str) -> None:
    assert told in progress_text(replace(HALFWAY, failures=dict(failures)), RATES, work=WORK)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(1.2, "1 s"), (119.4, "119 s"), (120, "2 min"), (7_100, "118 min"), (7_200, "2 h 0 min"), (11_040, "3 h 4 min")],
)
def test_durations_are_as_exact_as_one_can_tell(seconds: float, told: str) -> None:
    assert duration_text(seconds) == told


# Rates --------------------------------------------------------------------------------------------------------------


def moments(seconds: float, *, per_second: int, quota_use: float = 0.99, since: Progress = START) -> list[Progress]:
    """Every quarter of a second, a call of 100 rows each."""
    return [
        replace(
            since,
            seconds=since.seconds + step * PROGRESS_SECONDS,
            period_seconds=PROGRESS_SECONDS,
            calls=(calls := since.calls + round(step * PROGRESS_SECONDS * per_second)),
            changes={OutcomeKind.ACKNOWLEDGED: calls * 100},
            quota_use=quota_use,
        )
        for step in range(1, round(seconds / PROGRESS_SECONDS) + 1)
    ]


def rates_of(progresses: list[Progress]) -> Rates:
    rates = RatesOfLate()
    for progress in progresses:
        rates.add(progress)
    return rates.rates()


def test_rates_are_of_the_last_seconds_not_of_the_whole_push() -> None:
    fast = moments(60, per_second=100)
    slow = moments(WINDOW_SECONDS, per_second=40, quota_use=0.4, since=fast[-1])
    assert rates_of(fast).calls_per_second == pytest.approx(100)
    assert rates_of(fast).quota_use == pytest.approx(0.99)
    of_late = rates_of(fast + slow)
    assert of_late.calls_per_second == pytest.approx(40)
    assert of_late.rows_per_second == pytest.approx(4_000)
    assert of_late.quota_use == pytest.approx(0.4)
    assert of_late.seconds == pytest.approx(WINDOW_SECONDS)


def test_a_rate_begins_with_the_push() -> None:
    assert rates_of([]) == Rates(0.0, 0.0, 0.0, 0.0)
    assert rates_of(moments(0.5, per_second=100)).seconds == 0.5
    assert rates_of(moments(0.5, per_second=100)).calls_per_second == pytest.approx(100)


def test_a_gap_longer_than_the_window_is_averaged() -> None:
    progresses = moments(1, per_second=100)
    progresses += [replace(progresses[-1], seconds=21.0, period_seconds=20.0, calls=300)]
    assert rates_of(progresses).calls_per_second == pytest.approx(10)


def test_memory_does_not_grow_with_the_push() -> None:
    rates = RatesOfLate()
    for progress in moments(600, per_second=100):
        rates.add(progress)
    assert len(rates._moments) <= WINDOW_SECONDS / PROGRESS_SECONDS + 2


# How often ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Screen:
    """A bar that notes what it is asked to show."""

    shown: list[tuple[str, float]] = field(default_factory=list)
    closed: int = 0

    def show(self, text: str, *, share_done: float) -> None:
        self.shown.append((text, share_done))

    def close(self) -> None:
        self.closed += 1


def tell(progresses: list[Progress], *, bar: Screen | None = None, **of: Any) -> list[str]:
    lines: list[str] = []
    with ProgressTeller(lines.append, bar).of(frame(), **of) as on_progress:
        for progress in progresses:
            on_progress(progress)
    return lines


def test_a_line_goes_out_every_few_seconds_and_at_the_end() -> None:
    lines = tell(moments(16, per_second=25))
    calls = [round(seconds * 25) for seconds in (LINE_SECONDS, 2 * LINE_SECONDS, 3 * LINE_SECONDS, 16)]
    assert [line.split(" acknowledged")[0] for line in lines] == [
        f"user_id: {count * 100:,} of 45,583" for count in calls
    ]


def test_the_end_is_not_told_twice() -> None:
    assert len(tell(moments(LINE_SECONDS, per_second=25))) == 1


def test_a_push_without_progress_says_nothing() -> None:
    assert tell([]) == []


def test_the_bar_shows_every_moment_and_is_closed() -> None:
    bar = Screen()
    tell(moments(4, per_second=100), bar=bar, passed_over=583, withheld=5_000)
    assert len(bar.shown) == 16
    assert bar.shown[-1][0].startswith("user_id: 40,583 of 45,583 acknowledged")
    assert [share for _, share in bar.shown[::5]] == [pytest.approx(n / 16) for n in (1, 6, 11, 16)]
    assert bar.closed == 1


def test_nothing_to_settle_is_all_done() -> None:
    bar = Screen()
    tell([START], bar=bar, passed_over=45_583)
    assert bar.shown[0][1] == 1.0


def test_a_push_that_breaks_closes_its_bar_and_claims_no_end() -> None:
    bar, lines = Screen(), list[str]()
    with (
        pytest.raises(KeyboardInterrupt),
        ProgressTeller(lines.append, bar).of(frame()) as on_progress,
    ):
        on_progress(HALFWAY)
        raise KeyboardInterrupt
    assert (bar.closed, lines) == (1, [])


# Slow-downs ---------------------------------------------------------------------------------------------------------

SLOWED = "user_id: Tencent says calls come too often; the pace is lowered to 70 % and recovers"


def test_slowing_down_is_told_at_once_and_once_until_the_pace_has_recovered() -> None:
    first = replace(HALFWAY, slow_downs=1, quota_share=0.7)
    more = replace(first, slow_downs=5, quota_share=0.5)
    recovered = replace(more, quota_share=1.0)
    again = replace(recovered, slow_downs=6, quota_share=0.7)
    assert tell([HALFWAY, first, more, more, recovered])[:-1] == [SLOWED]
    assert tell([HALFWAY, first, more, recovered, again])[:-1] == [SLOWED, SLOWED]


def test_a_push_at_its_full_pace_says_nothing_of_it() -> None:
    assert [line for line in tell(moments(20, per_second=100)) if "too often" in line or "slowed" in line] == []
