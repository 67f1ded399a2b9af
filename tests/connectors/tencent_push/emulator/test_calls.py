"""What the emulator remembers of its calls, and the quota counted over them."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.tencent_push.emulator import CallLog, Emulator
from connectors.tencent_push.emulator.calls import Quota, Totals
from connectors.tencent_push.protocol import Command

SET = Command.SET_ATTR


def log_of(arrivals: list[float]) -> CallLog:
    log = CallLog()
    for arrived_at in arrivals:
        log.arrived(SET, at=arrived_at, random=None)
    return log


@pytest.mark.parametrize(
    ("arrivals", "worst"),
    [
        ([], 0),
        ([0.0], 1),
        ([0.0, 0.999], 2),
        ([0.0, 1.0], 1),
        ([0.0, 0.5, 1.0, 1.2, 1.4, 3.0], 4),
        ([5.0, 0.0, 0.1], 2),
    ],
)
def test_the_worst_second_is_the_fullest_sliding_one(arrivals: list[float], worst: int) -> None:
    assert log_of(arrivals).worst_second(SET) == worst


def test_the_worst_second_counts_one_command_only() -> None:
    log = log_of([0.0, 0.1])
    log.arrived(Command.GET_ATTR, at=0.1, random=None)
    assert (log.worst_second(SET), log.worst_second(Command.GET_ATTR), log.worst_second(Command.REMOVE_ATTR)) == (
        2,
        1,
        0,
    )


def test_totals_tell_each_command_apart_and_what_was_served_from_what_came() -> None:
    log = CallLog()
    for arrived_at, accounts, code in ((5.0, 100, 0), (5.5, 100, 60007), (6.5, 50, 0), (6.75, 7, None)):
        record = log.arrived(SET, at=arrived_at, random=None)
        record.accounts, record.code, record.answered_at = accounts, code, arrived_at + 0.125
    log.arrived(Command.GET_ATTR, at=9.0, random=None)
    log.arrived(None, at=9.0, random=None)
    totals = log.totals()
    assert list(totals) == ["set_attr", "get_attr"]
    assert totals["set_attr"] == Totals(
        calls=4,
        accounts=257,
        served_accounts=150,
        codes={"0": 2, "60007": 1, "none": 1},
        worst_second=2,
        arriving_seconds=1.75,
        answering_seconds=1.875,
    )
    assert totals["get_attr"].answering_seconds == 0.0, "a call without an answer yet"


def test_old_records_go_and_the_total_stays() -> None:
    log = CallLog(keep=2)
    for number in range(5):
        log.arrived(SET, at=number, random=None)
    assert ([record.number for record in log], len(log), log.total) == ([4, 5], 2, 5)
    log.clear()
    assert (list(log), log.total) == ([], 5)


def test_records_can_be_picked_and_cut() -> None:
    log = log_of([1.0, 2.0, 3.0])
    assert (log[-1].arrived_at, [record.number for record in log[:2]]) == (3.0, [1, 2])


def test_a_call_is_recorded_with_what_became_of_it(call: Any, emulator: Emulator) -> None:
    call.set("user0", city="x")
    call.code("get_attr", {"To_Account": ["a", "b"]}, random=7)
    call.code("nothing")
    recorded = [
        (row.number, row.command, row.accounts, row.code, row.http_status, row.random) for row in emulator.calls
    ]
    assert recorded == [
        (1, Command.SET_ATTR, 1, 0, 200, 4294967295),
        (2, Command.GET_ATTR, 2, 0, 200, 7),
        (3, None, 0, 60009, 200, 4294967295),
    ]
    assert len(emulator.calls.of(Command.GET_ATTR)) == 1
    assert all(row.answered_at is not None and row.answered_at >= row.arrived_at for row in emulator.calls)


ARRIVALS = st.lists(st.floats(min_value=0, max_value=3, allow_nan=False), max_size=60).map(sorted)


@given(ARRIVALS, st.integers(min_value=1, max_value=5))
def test_the_quota_admits_never_more_than_its_calls_in_any_second(arrivals: list[float], limit: int) -> None:
    """1047/60565"""
    quota = Quota(limit)
    admitted = [arrived_at for arrived_at in arrivals if quota.admit(SET, arrived_at=arrived_at)]
    assert log_of(admitted).worst_second(SET) <= limit


@given(ARRIVALS, st.integers(min_value=1, max_value=5))
def test_the_quota_refuses_nobody_who_keeps_to_it(arrivals: list[float], limit: int) -> None:
    """1047/60565"""
    if log_of(arrivals).worst_second(SET) <= limit:
        quota = Quota(limit)
        assert all(quota.admit(SET, arrived_at=arrived_at) for arrived_at in arrivals)


def test_refused_calls_do_not_use_up_the_quota() -> None:
    """1047/60565; not documented"""
    quota = Quota(2)
    arrivals = [number / 10 for number in range(31)]
    admitted = [arrived_at for arrived_at in arrivals if quota.admit(SET, arrived_at=arrived_at)]
    assert admitted == [0.0, 0.1, 1.0, 1.1, 2.0, 2.1, 3.0]
    assert all(later > earlier for earlier, later in pairwise(admitted))


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_quota_is_at_least_one_call(wrong: int) -> None:
    with pytest.raises(ValueError, match="calls_per_second"):
        Quota(wrong)


def test_without_a_quota_every_call_is_admitted() -> None:
    quota = Quota(None)
    assert all(quota.admit(SET, arrived_at=0.0) for _ in range(1000))
