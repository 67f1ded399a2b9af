import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from connectors.tencent_push.pacing import (
    ANSWERS_REMEMBERED,
    EXCESS_SECONDS,
    QUOTA_SHARE,
    UNSTEADY_SHARE,
    Backoff,
    Pacer,
    Permit,
    Quota,
    least_exceeded,
)


@dataclass
class VirtualClock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Sent:
    """One simulated call: when it got its permit, when it reached the API."""

    sent_at: float
    arrived_at: float


def nothing() -> float:
    return 0.0


def drive(
    pacer: Pacer,
    clock: VirtualClock,
    *,
    seconds: float,
    way_there: Callable[[], float],
    way_back: Callable[[], float],
    wakes_late: Callable[[], float] = nothing,
    leaves_late: Callable[[], float] = nothing,
) -> list[Sent]:
    """A sender that is never short of work, on a simulated network. The machine `wakes_late`; and after a call got its
    permit it `leaves_late`: a stall, or a new connection that is made first.
    """
    ends_at = clock.now + seconds
    calls: list[Sent] = []
    in_flight: list[tuple[float, int, Permit, float]] = []
    while clock.now < ends_at:
        ready_at = pacer.ready_at()
        answer_at = in_flight[0][0] if in_flight else math.inf
        clock.now = max(clock.now, min(ready_at + wakes_late(), answer_at))
        while in_flight and in_flight[0][0] <= clock.now:
            at, _, ended, left_at = heapq.heappop(in_flight)
            pacer.answered(ended, at=at, waited_seconds=at - left_at)
        while (permit := pacer.take()) is not None:
            left_at = clock.now + leaves_late()
            arrived_at = left_at + way_there()
            calls.append(Sent(clock.now, arrived_at))
            heapq.heappush(in_flight, (arrived_at + way_back(), len(calls), permit, left_at))
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


def uniform(seconds: float, random: Random) -> Callable[[], float]:
    return lambda: seconds * (0.8 + 0.4 * random.random())


def lognormal(seconds: float, random: Random) -> Callable[[], float]:
    return lambda: seconds * random.lognormvariate(-0.02, 0.2)


@pytest.mark.parametrize("drawn", [uniform, lognormal])
@pytest.mark.parametrize(("round_trip", "share"), [(0.05, 0.975), (0.2, 0.975), (0.5, 0.97)])
def test_answers_that_vary_cost_next_to_nothing_of_the_quota(
    drawn: Callable[[float, Random], Callable[[], float]], round_trip: float, share: float
) -> None:
    """The server takes its time, the way there is steady."""
    clock = VirtualClock()
    calls = drive(
        Pacer(100, clock=clock),
        clock,
        seconds=20,
        way_there=lambda: 0.02,
        way_back=drawn(round_trip, Random(1)),
    )
    assert len(calls) >= share * 100 * 20
    assert most_in_a_second(calls) <= 100


@settings(max_examples=40, deadline=None)
@given(
    quota=st.sampled_from([1, 2, 7, 100]),
    there=st.floats(0, 0.3),
    jitter=st.floats(0, 0.3),
    back=st.floats(0, 0.3),
    late=st.floats(0, 2),
    seed=st.integers(0, 1000),
)
def test_the_quota_holds_however_late_calls_leave_and_however_long_answers_take(
    *, quota: int, there: float, jitter: float, back: float, late: float, seed: int
) -> None:
    random = Random(seed)
    clock = VirtualClock()
    calls = drive(
        Pacer(quota, clock=clock),
        clock,
        seconds=8,
        way_there=lambda: there,
        way_back=lambda: back + random.random() * jitter,
        wakes_late=lambda: random.random() * 0.02,
        leaves_late=lambda: random.random() * late if random.random() < 0.1 else 0.0,
    )
    assert most_in_a_second(calls) <= quota


@settings(max_examples=40, deadline=None)
@given(
    quota=st.sampled_from([1, 2, 7, 100]),
    there=st.floats(0, 0.3),
    back=st.floats(0, 0.3),
    late=st.floats(0, 2),
    every=st.integers(200, 400),
)
def test_the_quota_holds_when_calls_are_late_on_their_way_and_answers_steady(
    *, quota: int, there: float, back: float, late: float, every: int
) -> None:
    """A few are held up by the network: a lost packet, a route that changes.

    As many as the quota holds for: on average over the answers remembered, they are late by less than the excess.
    """
    held_up = math.ceil(ANSWERS_REMEMBERED / every)  # of the answers remembered, at most
    assume(late * held_up < EXCESS_SECONDS * ANSWERS_REMEMBERED)
    clock = VirtualClock()
    numbers = iter(range(10_000))
    calls = drive(
        Pacer(quota, clock=clock),
        clock,
        seconds=20,
        way_there=lambda: there + (late if next(numbers) % every == 150 else 0.0),
        way_back=lambda: back,
    )
    assert most_in_a_second(calls) <= quota


@pytest.mark.parametrize("round_trip", [0.05, 0.2, 0.4, 0.5])
def test_new_connections_at_first_do_not_let_too_many_through_later(round_trip: float) -> None:
    """With TLS the first calls leave two round trips late: until the first of their connections are free again."""
    clock = VirtualClock()
    began_at = clock.now
    calls = drive(
        Pacer(100, clock=clock),
        clock,
        seconds=8,
        way_there=lambda: round_trip / 2,
        way_back=lambda: round_trip / 2,
        leaves_late=lambda: 2 * round_trip if clock.now < began_at + 3 * round_trip else 0.0,
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


def hold_after(answers: int, *, waited_seconds: float | None = 0.4) -> float:
    """How long two permits are held after their calls' ends, once so many answers had taken 0.4 s."""
    clock = VirtualClock()
    pacer = Pacer(2, clock=clock)
    for _ in range(answers):
        clock.now = max(clock.now, pacer.ready_at())
        permit = pacer.take()
        assert permit is not None
        clock.now += 0.4
        pacer.answered(permit, at=clock.now, waited_seconds=0.4)
    clock.now += 5
    permits = [pacer.take()]
    clock.now += 5
    permits.append(pacer.take())
    for permit in permits:
        assert permit is not None
        pacer.answered(permit, at=clock.now, waited_seconds=waited_seconds)
    return pacer.ready_at() - clock.now


def test_a_permit_is_free_a_second_after_its_call_left_once_enough_answers_were_seen() -> None:
    assert hold_after(18) == pytest.approx(1)
    assert hold_after(30) == pytest.approx(1 - 0.4 + EXCESS_SECONDS)


def test_what_an_answer_takes_beyond_the_allowance_is_charged_as_late_on_the_way_there() -> None:
    assert hold_after(30, waited_seconds=2.0) == pytest.approx(1 - 0.4 + EXCESS_SECONDS)
    assert hold_after(30, waited_seconds=0.1) == pytest.approx(1 - 0.1)


def test_a_call_without_an_answer_may_have_arrived_as_late_as_it_ended() -> None:
    assert hold_after(30, waited_seconds=None) == pytest.approx(1)


@given(numbers=st.lists(st.floats(0, 0.9), min_size=1, max_size=60), by=st.floats(0.001, 0.1))
def test_the_allowance_is_the_least_that_is_exceeded_by_so_much_on_average(numbers: list[float], by: float) -> None:
    bound = least_exceeded(numbers, by=by)
    excess = sum(max(0.0, number - bound) for number in numbers) / len(numbers)
    assert excess == pytest.approx(by) if bound > 0 else excess <= by * (1 + 1e-9)


def test_slow_down_lowers_the_pace_more_when_it_did_not_help_and_it_recovers() -> None:
    clock = VirtualClock()
    pacer = Pacer(100, clock=clock)
    pacer.slow_down()
    assert pacer.share() == pytest.approx(0.9)
    clock.now += 1.5
    pacer.slow_down()
    assert pacer.share() == pytest.approx(0.63)
    clock.now += 60
    assert pacer.share() == 1
    pacer.slow_down()
    assert pacer.share() == pytest.approx(0.9), "that was another piece of news"


def test_the_pace_recovers_quickly_to_near_what_was_refused_and_goes_beyond_it_with_care() -> None:
    clock = VirtualClock()
    pacer = Pacer(100, clock=clock)
    for _ in range(3):
        pacer.slow_down()
        clock.now += 1.0
    clock.now += 1.0
    assert pacer.share() == pytest.approx(0.9 * 0.7 * 0.7)
    shares = []
    for _ in range(60):
        shares.append(pacer.share())
        clock.now += 1.0
    assert shares == sorted(shares)
    assert shares[4] == pytest.approx(0.95 * 0.63, abs=0.02)
    assert shares[10] < 0.67
    assert shares[-1] == 1


def test_one_crowded_second_costs_half_a_second_of_calls_at_most() -> None:
    clock = VirtualClock()
    pacer = Pacer(100, clock=clock)
    pacer.slow_down()
    lost = 0.0
    while pacer.share() < 1:
        lost += (1 - pacer.share()) * 0.1
        clock.now += 0.1
    assert lost < 0.5


def test_where_answers_vary_calls_leave_a_little_slower_and_still_use_the_quota() -> None:
    shares = {}
    for kind, waits in {"steady": [0.2], "varying": [0.16, 0.18, 0.2, 0.22, 0.24]}.items():
        clock = VirtualClock()
        pacer = Pacer(100, clock=clock)
        for number in range(60):
            permit = pacer.take()
            assert permit is not None
            pacer.answered(permit, at=clock.now, waited_seconds=waits[number % len(waits)])
            clock.now = pacer.ready_at()
        taken_at = clock.now
        assert pacer.take() is not None
        shares[kind] = 1 / (pacer.ready_at() - taken_at) / 100
    assert shares["steady"] == pytest.approx(QUOTA_SHARE)
    assert shares["varying"] == pytest.approx(UNSTEADY_SHARE)
    assert 0.975 < shares["varying"] < shares["steady"]


@pytest.mark.parametrize(("refusals", "share"), [(1, 0.9), (4, 0.9), (5, 0.7), (40, 0.7)])
def test_refusals_of_the_same_second_are_one_piece_of_news_that_weighs_more_if_they_are_many(
    refusals: int, share: float
) -> None:
    clock = VirtualClock()
    pacer = Pacer(100, clock=clock)
    for _ in range(refusals):
        pacer.slow_down()
        clock.now += 0.01
    assert pacer.share() == pytest.approx(share)


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
