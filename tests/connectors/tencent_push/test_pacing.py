import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.tencent_push.pacing import Backoff, Pacer, Permit, Quota


@dataclass
class VirtualClock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Sent:
    """One simulated call: when it left, when it reached the API."""

    sent_at: float
    arrived_at: float


def drive(
    pacer: Pacer,
    clock: VirtualClock,
    *,
    seconds: float,
    way_there: Callable[[], float],
    way_back: Callable[[], float],
    stall: Callable[[], float] = lambda: 0.0,
) -> list[Sent]:
    """A sender that is never short of work, on a simulated network; `stall` is how late the machine wakes up."""
    ends_at = clock.now + seconds
    calls: list[Sent] = []
    in_flight: list[tuple[float, int, object]] = []
    while clock.now < ends_at:
        ready_at = pacer.ready_at()
        answer_at = in_flight[0][0] if in_flight else math.inf
        clock.now = max(clock.now, min(ready_at + stall(), answer_at))
        while in_flight and in_flight[0][0] <= clock.now:
            at, _, permit = heapq.heappop(in_flight)
            pacer.answered(permit, at=at)  # type: ignore[arg-type]  # heap entries are typed loosely here
        while (permit := pacer.take()) is not None:
            arrived_at = clock.now + way_there()
            calls.append(Sent(clock.now, arrived_at))
            heapq.heappush(in_flight, (arrived_at + way_back(), len(calls), permit))
    return calls


def most_in_a_second(calls: list[Sent]) -> int:
    arrivals = sorted(call.arrived_at for call in calls)
    first, most = 0, 0
    for last, at in enumerate(arrivals):
        while arrivals[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("round_trip", [0.0, 0.001, 0.05, 0.2, 0.5])
def test_at_least_97_5_percent_of_the_quota_is_used_and_never_more_than_all_of_it(round_trip: float) -> None:
    clock = VirtualClock()
    calls = drive(
        Pacer(100, clock=clock),
        clock,
        seconds=60,
        way_there=lambda: round_trip / 2,
        way_back=lambda: round_trip / 2,
    )
    assert len(calls) >= 0.975 * 100 * 60
    assert most_in_a_second(calls) <= 100


@settings(max_examples=40, deadline=None)
@given(
    quota=st.sampled_from([1, 2, 7, 100]),
    there=st.floats(0, 0.3),
    jitter=st.floats(0, 0.05),
    back=st.floats(0, 0.3),
    late=st.floats(0, 0.3),
    seed=st.integers(0, 1000),
)
def test_the_quota_holds_when_calls_leave_late_and_answers_take_their_time(
    *, quota: int, there: float, jitter: float, back: float, late: float, seed: int
) -> None:
    """A stall between the permit and the wire delays arrivals; it comes on top of a steady way there."""
    random = Random(seed)
    clock = VirtualClock()
    calls = drive(
        Pacer(quota, clock=clock),
        clock,
        seconds=8,
        way_there=lambda: there + (random.random() * late if random.random() < 0.1 else 0.0),
        way_back=lambda: back + random.random() * jitter,
        stall=lambda: random.random() * 0.02,
    )
    assert most_in_a_second(calls) <= quota


def test_calls_that_are_slow_to_connect_at_first_do_not_let_too_many_through_later() -> None:
    clock = VirtualClock()
    connecting = iter([0.7] * 20)
    calls = drive(
        Pacer(100, clock=clock),
        clock,
        seconds=5,
        way_there=lambda: next(connecting, 0.1),
        way_back=lambda: 0.1,
    )
    assert most_in_a_second(calls) <= 100


def test_even_spacing_alone_would_exceed_the_quota_there() -> None:
    """The guard on the test above: without permits, the same network shows more than 100 in a second."""
    arrivals = [Sent(n / 99, n / 99 + (0.7 if n < 20 else 0.1)) for n in range(300)]
    assert most_in_a_second(arrivals) > 100


@pytest.mark.parametrize("quota", [0.25, 1, 1.5, 2])
def test_small_quotas_are_used_and_never_exceeded(quota: float) -> None:
    clock = VirtualClock()
    calls = drive(Pacer(quota, clock=clock), clock, seconds=100, way_there=lambda: 0.02, way_back=lambda: 0.02)
    assert most_in_a_second(calls) <= max(1, math.floor(quota))
    assert len(calls) >= 0.9 * 100 * min(quota, max(1, math.floor(quota)))
    assert len(calls) <= quota * 100 + 1


def test_unanswered_calls_hold_their_permits_however_long_they_take() -> None:
    clock = VirtualClock()
    pacer = Pacer(2, clock=clock)
    first = pacer.take()
    clock.now += 1
    second = pacer.take()
    clock.now += 1000
    assert first is not None
    assert second is not None
    assert pacer.take() is None
    assert pacer.ready_at() == math.inf
    pacer.answered(first)
    assert clock.now < pacer.ready_at() <= clock.now + 1


def hold_after(round_trips: int, *, then_refused: bool = False) -> float:
    """How long two permits are held after their answers, once so many round trips of 0.4 s were seen."""
    clock = VirtualClock()
    pacer = Pacer(2, clock=clock)
    permits: list[Permit] = []
    for number in range(round_trips):
        clock.now = max(clock.now, pacer.ready_at()) + (5 if number == round_trips - 2 else 0)
        permit = pacer.take()
        assert permit is not None
        permits.append(permit)
        if number < round_trips - 2:
            pacer.answered(permit, at=clock.now + 0.4)
    clock.now += 0.4
    for permit in permits[-2:]:
        pacer.answered(permit, at=clock.now, round_trip=not then_refused)
    return pacer.ready_at() - clock.now


def test_a_permit_returns_earlier_by_nearly_the_smallest_round_trip_once_enough_were_seen() -> None:
    assert hold_after(19) == pytest.approx(1)
    assert hold_after(20) == pytest.approx(1 - 0.95 * 0.4)


def test_a_refused_connection_does_not_pass_for_a_short_round_trip() -> None:
    assert hold_after(22, then_refused=True) == pytest.approx(1 - 0.95 * 0.4)


def test_slow_down_lowers_the_pace_and_it_recovers() -> None:
    clock = VirtualClock()
    pacer = Pacer(100, clock=clock)
    pacer.slow_down()
    assert pacer.share() == pytest.approx(0.7)
    clock.now += 1.5
    pacer.slow_down()
    assert pacer.share() == pytest.approx(0.49)
    clock.now += 5
    assert 0.49 < pacer.share() < 1
    clock.now += 30
    assert pacer.share() == 1


def test_refusals_of_the_same_second_slow_down_once() -> None:
    clock = VirtualClock()
    pacer = Pacer(100, clock=clock)
    for _ in range(40):
        pacer.slow_down()
        clock.now += 0.01
    assert pacer.share() == pytest.approx(0.7)


def test_the_pace_never_falls_to_a_halt() -> None:
    clock = VirtualClock()
    pacer = Pacer(100, clock=clock)
    for _ in range(50):
        pacer.slow_down()
        clock.now += 1.0
    assert pacer.share() >= 0.05
    assert pacer.ready_at() <= clock.now + 1


def test_missed_slots_are_made_up_for_only_a_tenth_of_a_second_back() -> None:
    clock = VirtualClock()
    pacer = Pacer(100, clock=clock)
    clock.now += 60
    burst = 0
    while pacer.take() is not None:
        burst += 1
    assert burst <= 11


def test_sinks_of_one_app_share_the_pacer_of_a_command_and_commands_have_their_own() -> None:
    quota = Quota(10, clock=VirtualClock())
    assert quota.pacer("set_attr") is quota.pacer("set_attr")
    assert quota.pacer("set_attr") is not quota.pacer("remove_attr")


@pytest.mark.parametrize("useless", [0, -1, math.inf, math.nan])
def test_a_quota_that_is_no_number_above_zero_is_refused(useless: float) -> None:
    with pytest.raises(ValueError, match="calls_per_second"):
        Quota(useless)


@given(attempt=st.integers(1, 12), elapsed=st.floats(0, 200), chance=st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded_in_attempts_and_in_total_seconds(attempt: int, elapsed: float, chance: float) -> None:
    backoff = Backoff(attempts=6, total_seconds=120, first_seconds=1, longest_seconds=30)
    wait = backoff.wait_seconds(attempt, elapsed_seconds=elapsed, random=lambda: chance)
    if attempt >= 6 or elapsed >= 120:
        assert wait is None
    else:
        assert wait is not None
        assert 0 <= wait <= min(2.0 ** (attempt - 1), 30)
        assert elapsed + wait <= 120 + 1e-9


def test_the_waits_bound_doubles() -> None:
    backoff = Backoff(attempts=6, first_seconds=1, longest_seconds=10)
    waits = [backoff.wait_seconds(n, elapsed_seconds=0, random=lambda: 1.0) for n in range(1, 7)]
    assert waits == [1, 2, 4, 8, 10, None]
