"""The quota, for each command: nearly all of it used, and never more of it, whatever the network does."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from connectors.tencent_push.client import Fault
from connectors.tencent_push.outcomes import Change
from connectors.tencent_push.sink import SinkSettings
from tests.connectors.tencent_push.simulation import (
    ACKNOWLEDGED,
    REMOVE,
    SET,
    Answer,
    Push,
    Seen,
    accepted,
    changes_of,
    faulty,
    kinds,
    most_in_a_second,
    refused,
)

QUOTA = 100
CALLS = 2000  # of each command: twenty seconds at the quota
ONE_BY_ONE = SinkSettings(batch_size=1)  # as many calls as rows: the pace is the same, and quicker to simulate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def constant(seconds: float, random: Random) -> Callable[[], float]:
    return lambda: seconds


def uniform(seconds: float, random: Random) -> Callable[[], float]:
    return lambda: seconds * (0.8 + 0.4 * random.random())


def lognormal(seconds: float, random: Random) -> Callable[[], float]:
    return lambda: seconds * random.lognormvariate(-0.02, 0.2)


def sets_and_removals(count: int) -> Iterator[Change]:
    return (Change(n, f"user-{n}", {"city": "x"}, ("sex",)) for n in range(count))


def arrivals_of(push: Push) -> list[list[float]]:
    return [[call.at for call in push.calls.seen if call.command is command] for command in (SET, REMOVE)]


@pytest.mark.parametrize(("latency", "share"), [(0.0, 0.975), (0.05, 0.975), (0.2, 0.975), (0.5, 0.97)])
@pytest.mark.parametrize("drawn", [constant, uniform, lognormal])
def test_both_commands_use_their_quota_at_once_and_never_exceed_it(
    path: Path, drawn: Callable[[float, Random], Callable[[], float]], latency: float, share: float
) -> None:
    push = Push(path, latency=drawn(latency, Random(7)), settings=ONE_BY_ONE)
    assert kinds(push.run(sets_and_removals(CALLS))) == {ACKNOWLEDGED: CALLS}
    for arrivals in arrivals_of(push):
        assert len(arrivals) == CALLS
        assert most_in_a_second(arrivals) <= QUOTA
        assert CALLS / (arrivals[-1] - arrivals[0]) >= share * QUOTA


def test_many_calls_are_in_flight_when_answers_take_long_and_few_when_they_come_at_once(path: Path) -> None:
    """Nobody sets this: concurrency follows the round trip."""
    most = {}
    for latency in (0.0, 0.05, 0.5):
        push = Push(path.with_name(str(latency)), latency=constant(latency, Random(1)), settings=ONE_BY_ONE)
        push.run(sets_and_removals(500))
        most[latency] = push.calls.most_in_flight
    assert most[0.0] <= 2
    assert 9 <= most[0.05] <= 12
    assert 95 <= most[0.5] <= 105


class Transient:
    """5 % of the calls fail, each in one of the ways that pass."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def __call__(self, call: Seen) -> Answer:
        if self._random.random() >= 0.05:
            return accepted(call)
        kind = self._random.choice(["refused", "fault", "status"])
        if kind == "refused":
            return refused(self._random.choice([91000, 60008, 60007, 60018]))
        if kind == "status":
            return faulty(call, Fault.HTTP_STATUS, http_status=self._random.choice([429, 502, 503]))
        fault = self._random.choice([Fault.TIMEOUT, Fault.BROKEN_CONNECTION, Fault.UNREADABLE_REPLY])
        return faulty(call, fault, written=self._random.random() < 0.5)


@pytest.mark.parametrize("latency", [0.0, 0.05, 0.2, 0.5])
def test_transient_faults_cost_no_rows_and_their_resends_stay_within_the_quota(path: Path, latency: float) -> None:
    push = Push(path, Transient(3), latency=uniform(latency, Random(7)), settings=ONE_BY_ONE)
    assert kinds(push.run(sets_and_removals(CALLS))) == {ACKNOWLEDGED: CALLS}
    assert push.sink.report.resent_rows > 0.04 * 2 * CALLS
    for arrivals in arrivals_of(push):
        assert most_in_a_second(arrivals) <= QUOTA


def test_faults_that_say_nothing_about_the_pace_leave_nearly_all_of_it(path: Path) -> None:
    """Not the time-outs: their calls may still arrive, and their permits are held that long."""
    random = Random(5)

    def script(call: Seen) -> Answer:
        if random.random() >= 0.05:
            return accepted(call)
        return random.choice(
            [refused(91000), faulty(call, Fault.BROKEN_CONNECTION), faulty(call, Fault.UNREADABLE_REPLY)]
        )

    push = Push(path, script, latency=uniform(0.2, Random(7)), settings=ONE_BY_ONE)
    assert kinds(push.run(sets_and_removals(CALLS))) == {ACKNOWLEDGED: CALLS}
    busy = [at for at in arrivals_of(push)[0] if at < push.calls.seen[0].at + 20]
    assert len(busy) >= 0.97 * QUOTA * 20


def test_the_check_notices_a_sink_that_does_not_keep_to_the_pace(path: Path) -> None:
    push = Push(path, settings=ONE_BY_ONE)
    push.sink._quota.pacer(SET)._permits = 1000
    push.sink._quota.pacer(SET)._interval = lambda now: 1 / 110  # type: ignore[method-assign]  # broken on purpose
    push.run(changes_of(CALLS))
    assert most_in_a_second(arrivals_of(push)[0]) > QUOTA


def test_a_machine_that_stalls_makes_up_for_it_without_exceeding_the_quota(path: Path) -> None:
    push = Push(path)
    random = Random(1)

    def stall() -> None:
        if random.random() < 0.02:
            push.clock.now += random.random() * 0.3

    push.calls.on_wait = stall
    push.run(changes_of(50_000))
    arrivals = [call.at for call in push.calls.seen]
    assert most_in_a_second(arrivals) <= 100
    assert 500 / (arrivals[-1] - arrivals[0]) > 85


def test_two_sinks_of_one_app_share_the_quota(path: Path) -> None:
    one, other = Push(path), Push(path.with_name("other"))
    clock, quota = one.clock, one.sink._quota
    other.calls.clock = clock
    other.sink._quota, other.sink._clock, other.sink._backlog._clock = quota, clock, clock
    pushes = [one.sink.push(changes_of(5000)), other.sink.push(changes_of(5000))]
    while pushes:
        pushes = [push for push in pushes if next(push, None) is not None]
    arrivals = sorted(call.at for push in (one, other) for call in push.calls.seen)
    assert len(arrivals) == 100
    assert most_in_a_second(arrivals) <= 100
    assert arrivals[-1] - arrivals[0] >= 99 / 99.01


@pytest.mark.parametrize("pace", [100, 2])
def test_what_is_on_record_and_not_sent_stays_what_leaves_soon(path: Path, pace: int) -> None:
    """Should the process be killed, it counts as sent. A pace far below the quota does not let it grow."""
    push = Push(path)
    push.sink._quota.pacer(SET)._interval = lambda now: 1 / pace  # type: ignore[method-assign]  # slowed down for good
    most = 0
    for outcomes in push.sink.push(changes_of(20_000)):
        most = max(most, push.contents.unsettled_calls - push.calls.in_flight)
        if len(outcomes) and push.clock.now > 1010:
            break
    push.sink.close()
    assert 0 < most <= 5 + 5, "of each command; and what was answered since the last record"
