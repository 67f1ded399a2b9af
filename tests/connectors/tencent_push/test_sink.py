from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.tencent_push.client import Fault
from connectors.tencent_push.errors import Reason
from connectors.tencent_push.outcomes import Change, StopCause
from connectors.tencent_push.pacing import Backoff
from connectors.tencent_push.protocol import RowError
from connectors.tencent_push.sink import SinkSettings
from tests.connectors.tencent_push.simulation import (
    ACKNOWLEDGED,
    ERRORED,
    NOT_ATTEMPTED,
    REJECTED,
    REMOVE,
    SET,
    TODAY,
    Answer,
    Push,
    Seen,
    accepted,
    always,
    changes_of,
    faulty,
    kinds,
    one_by_number,
    refused,
    scripted,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


# Batches and outcomes


@pytest.mark.parametrize(("changes", "sizes"), [(0, []), (1, [1]), (99, [99]), (100, [100]), (101, [1, 100])])
def test_a_call_takes_up_to_100_accounts(path: Path, changes: int, sizes: list[int]) -> None:
    push = Push(path, on_record=True)
    outcomes = push.run(changes_of(changes))
    assert sorted(len(call.accounts) for call in push.calls.seen) == sizes
    assert kinds(outcomes) == ({ACKNOWLEDGED: changes} if changes else {})
    assert push.contents.acknowledged[SET].tolist() == list(range(changes))


def test_success_with_an_error_list_is_no_success_for_those_it_names(path: Path) -> None:
    push = Push(path, scripted(_0=lambda call: accepted(call, [RowError("user-3", 70107, "no such account")])))
    by_number = one_by_number(push.run(changes_of(10)))
    refusal = by_number[3].refusals[0]
    assert by_number[3].kind is REJECTED
    assert (refusal.reason, refusal.code, refusal.info) == (Reason.ACCOUNT_UNKNOWN, 70107, "no such account")
    assert (refusal.call_attempts, refusal.failed_at, refusal.command) == (1, TODAY, SET)
    assert not refusal.maybe_written
    assert kinds(list(by_number.values())) == {ACKNOWLEDGED: 9, REJECTED: 1}
    assert len(push.calls.seen) == 1


def test_a_change_that_sets_and_removes_is_one_outcome_of_two_calls_one_after_the_other(path: Path) -> None:
    push = Push(path)
    outcomes = push.run([Change(0, "a", {"city": "x"}, ("sex",)), Change(1, "b", {}, ("sex",))])
    assert kinds(outcomes) == {ACKNOWLEDGED: 2}
    assert [(call.command, call.accounts) for call in push.calls.seen] == [
        (SET, ["a"]),
        (REMOVE, ["b", "a"]),
    ]
    assert push.contents.acknowledged[REMOVE].tolist() == [0, 1]


def test_the_outcome_of_a_change_is_the_worst_of_its_commands(path: Path) -> None:
    def script(call: Seen) -> Answer:
        return accepted(call, [RowError("a", 70107)]) if call.command is REMOVE else accepted(call)

    push = Push(path, script)
    outcome = push.run([Change(0, "a", {"city": "x"}, ("sex",))])[0]
    assert outcome.kind is REJECTED
    assert [refusal.command for refusal in outcome.refusals] == [REMOVE]
    assert push.contents.acknowledged[SET].tolist() == [0]


def test_a_change_that_asks_for_nothing_is_acknowledged_without_a_call(path: Path) -> None:
    push = Push(path)
    assert kinds(push.run([Change(0, "a", {})])) == {ACKNOWLEDGED: 1}
    assert not push.calls.seen


def test_repeated_accounts_are_sent_one_after_the_other_in_their_order(path: Path) -> None:
    changes = [Change(n, f"user-{n % 3}", {"city": str(n)}) for n in range(30)]
    push = Push(path, scripted(_1=refused(91000), _2=lambda call: faulty(call, Fault.TIMEOUT, written=True)))
    assert kinds(push.run(changes)) == {ACKNOWLEDGED: 30}
    assert push.calls.state == {"user-0": {"city": "27"}, "user-1": {"city": "28"}, "user-2": {"city": "29"}}


def test_few_removals_among_many_changes_wait_for_each_other(path: Path) -> None:
    changes = [Change(n, f"u{n}", {"city": "x"}, ("sex",) if n % 50 == 0 else ()) for n in range(10_000)]
    push = Push(path)
    push.run(changes)
    removals = [len(call.accounts) for call in push.calls.seen if call.command is REMOVE]
    assert sum(removals) == 200
    assert len(removals) <= 5, "each would otherwise cost a call of its own"


# Resends


@pytest.mark.parametrize("code", [91000, 60008, 70500])
def test_a_call_refused_for_the_services_own_trouble_is_sent_again_after_a_wait(path: Path, code: int) -> None:
    push = Push(path, scripted(_0=refused(code), _1=refused(code)))
    assert kinds(push.run(changes_of(5))) == {ACKNOWLEDGED: 5}
    assert [len(call.accounts) for call in push.calls.seen] == [5, 5, 5]
    assert push.sink.report.resent_rows == 10


def test_only_the_rows_that_need_it_are_sent_again(path: Path) -> None:
    errors = [RowError("user-3", 91000), RowError("user-8", 70107), RowError("user-77", 60007)]
    push = Push(path, scripted(_0=lambda call: accepted(call, errors)))
    outcomes = one_by_number(push.run(changes_of(100)))
    assert [call.accounts for call in push.calls.seen[1:]] == [["user-3", "user-77"]]
    assert kinds(list(outcomes.values())) == {ACKNOWLEDGED: 99, REJECTED: 1}


def test_single_rows_of_several_calls_are_sent_again_together(path: Path) -> None:
    def script(call: Seen) -> Answer:
        errors = [RowError(account, 91000) for account in call.accounts[:5]] if len(call.accounts) == 100 else []
        return accepted(call, errors)

    push = Push(path, script)
    assert kinds(push.run(changes_of(2000))) == {ACKNOWLEDGED: 2000}
    assert len(push.calls.seen) <= 20 + 10, "five rows of each of 20 calls, in fewer calls than that"


@pytest.mark.parametrize(
    ("fault", "written", "reason", "maybe_written"),
    [
        (Fault.TIMEOUT, True, Reason.TIMEOUT, True),
        (Fault.BROKEN_CONNECTION, True, Reason.CONNECTION_FAILED, True),
        (Fault.UNREADABLE_REPLY, True, Reason.UNREADABLE_REPLY, True),
        (Fault.CONNECT_FAILED, False, Reason.CONNECTION_FAILED, False),
    ],
)
def test_a_fault_that_stays_uses_up_the_attempts_and_its_rows_are_errored(
    path: Path, fault: Fault, written: bool, reason: Reason, maybe_written: bool
) -> None:
    push = Push(path, lambda call: faulty(call, fault, written=written))
    outcomes = push.run(changes_of(3))
    assert kinds(outcomes) == {ERRORED: 3}
    assert {(r.reason, r.call_attempts, r.code) for o in outcomes for r in o.refusals} == {(reason, 6, None)}
    assert all(outcome.refusals[0].maybe_written is maybe_written for outcome in outcomes)
    assert push.contents.uncertain[SET].tolist() == ([0, 1, 2] if maybe_written else [])


def test_what_one_attempt_may_have_written_stays_so_when_a_later_one_is_refused(path: Path) -> None:
    push = Push(
        path,
        scripted(
            _0=lambda call: faulty(call, Fault.TIMEOUT, written=True),
            _1=lambda call: accepted(call, [RowError("user-0", 70107)]),
        ),
    )
    refusal = push.run(changes_of(1))[0].refusals[0]
    assert (refusal.reason, refusal.maybe_written, refusal.call_attempts) == (Reason.ACCOUNT_UNKNOWN, True, 2)
    assert push.contents.uncertain[SET].tolist() == [0]


def test_an_error_list_that_names_a_stranger_makes_the_reply_unreadable(path: Path) -> None:
    push = Push(path, lambda call: accepted(call, [RowError("somebody", 70107)]))
    outcomes = push.run(changes_of(2))
    assert kinds(outcomes) == {ERRORED: 2}
    assert outcomes[0].refusals[0].reason is Reason.UNREADABLE_REPLY
    assert push.contents.acknowledged[SET].tolist() == []


def test_waits_grow_and_end_with_the_total_time(path: Path) -> None:
    slow = Backoff(attempts=50, total_seconds=60, first_seconds=5, longest_seconds=20)
    push = Push(path, always(91000), settings=SinkSettings(backoff=slow))
    assert kinds(push.run(changes_of(1))) == {ERRORED: 1}
    assert 2 < len(push.calls.seen) < 50
    assert push.calls.seen[-1].at - push.calls.seen[0].at <= 60.2


def test_being_too_fast_slows_the_pace_down_and_costs_no_rows(path: Path) -> None:
    def script(call: Seen) -> Answer:
        recent = [seen for seen in push.calls.seen if seen.at > call.at - 1]
        return refused(60007) if len(recent) > 60 else accepted(call)

    push = Push(path, script)
    assert kinds(push.run(changes_of(100 * 600))) == {ACKNOWLEDGED: 60_000}
    report = push.sink.report
    assert report.slow_downs > 0
    assert report.resent_rows / 60_000 < 0.2, "the pace follows what the API takes"


# Splitting


@pytest.mark.parametrize("bad", [0, 37, 99])
def test_one_bad_row_that_fails_whole_calls_costs_one_row(path: Path, bad: int) -> None:
    def script(call: Seen) -> Answer:
        return refused(90001, "quoted text") if f"user-{bad}" in call.accounts else accepted(call)

    push = Push(path, script)
    outcomes = one_by_number(push.run(changes_of(300)))
    assert [number for number, outcome in outcomes.items() if outcome.kind is REJECTED] == [bad]
    assert kinds(list(outcomes.values())) == {ACKNOWLEDGED: 299, REJECTED: 1}
    assert len(push.calls.seen) <= 3 + 2 * 7, "at most seven levels of halves"
    assert outcomes[bad].refusals[0].call_attempts <= 8
    assert push.sink.report.resent_rows == sum(push.calls.rows_sent().values()) - 300


def test_a_call_that_may_be_halved_once_stops_the_run_when_a_half_is_refused_too(path: Path) -> None:
    push = Push(path, always(60003))
    outcomes = push.run(changes_of(250))
    assert push.sink.report.stop is not None
    assert push.sink.report.stop.code == 60003
    assert kinds(outcomes)[REJECTED] == 0
    assert len(push.calls.seen) <= 3 + 3 * 2


def test_once_a_call_was_too_large_the_next_ones_are_smaller(path: Path) -> None:
    push = Push(path, lambda call: refused(90018) if len(call.accounts) > 50 else accepted(call))
    assert kinds(push.run(changes_of(10_000))) == {ACKNOWLEDGED: 10_000}
    too_large = [call for call in push.calls.seen if len(call.accounts) > 50]
    assert len(too_large) <= 20, "those that were under way or on record"


# The signature


def test_a_signature_that_has_run_out_is_renewed_once_for_all_calls_in_flight(path: Path) -> None:
    push = Push(path, lambda call: refused(70001) if call.usersig == 0 and call.number >= 30 else accepted(call))
    assert kinds(push.run(changes_of(6000))) == {ACKNOWLEDGED: 6000}
    assert push.calls.usersig == 1


def test_a_new_signature_that_is_refused_too_stops_the_run(path: Path) -> None:
    push = Push(path, always(70001))
    outcomes = push.run(changes_of(6000))
    assert push.sink.report.stop is not None
    assert push.sink.report.stop.code == 70001
    assert push.calls.usersig == 1
    assert set(kinds(outcomes)) == {ERRORED, NOT_ATTEMPTED}
    assert len(one_by_number(outcomes)) == push.read < 6000


def test_a_signature_that_worked_may_run_out_again(path: Path) -> None:
    push = Push(path, lambda call: refused(70001) if call.usersig < call.number // 40 else accepted(call))
    assert kinds(push.run(changes_of(15_000))) == {ACKNOWLEDGED: 15_000}
    assert push.calls.usersig >= 3


# Memory, progress


def test_a_push_that_is_stopped_before_it_began_sends_and_reads_nothing(path: Path) -> None:
    push = Push(path)
    push.sink.stop(StopCause(None, Reason.RUN_STOPPED, "the other frame's push was stopped"))
    assert push.run(changes_of(2500)) == []
    assert push.read == 0
    assert not push.calls.seen


def test_changes_are_read_only_as_far_ahead_as_they_can_soon_be_sent(path: Path) -> None:
    push = Push(path)
    read = 0

    def changes() -> Iterator[Change]:
        nonlocal read
        for change in changes_of(50_000):
            read += 1
            sent = 100 * len(push.calls.seen)
            assert read - sent <= 1500
            yield change

    for outcomes in push.sink.push(changes()):
        assert len(outcomes) <= 64 * 100
    assert read == 50_000


def test_an_outage_does_not_read_the_whole_frame_into_memory(path: Path) -> None:
    patient = SinkSettings(errored_batches_in_a_row=10**9, max_in_flight=4)
    push = Push(path, lambda call: refused(91000), settings=patient)
    most_unsettled = 0
    for _outcomes in push.sink.push(iter(changes_of(10_000))):
        most_unsettled = max(most_unsettled, push.sink._backlog.unsettled)
    assert 0 < most_unsettled <= 2 * 100 * (4 + 5)
    assert push.sink.report.changes == {ERRORED: 10_000}


def test_a_change_that_gets_lost_is_a_loud_fault_and_not_an_endless_wait(path: Path) -> None:
    push = Push(path)

    def lose() -> None:
        push.sink._backlog._fresh[SET].clear()

    push.calls.on_wait = lose
    with pytest.raises(RuntimeError, match="lost track of"):
        push.run(changes_of(2000))


def test_the_report_adds_up(path: Path) -> None:
    push = Push(path, scripted(_1=refused(91000), _2=lambda call: accepted(call, [RowError("user-250", 70107)])))
    push.run(changes_of(1000))
    report = push.sink.report
    assert sum(report.changes.values()) == 1000
    assert report.refusals == {(Reason.ACCOUNT_UNKNOWN, 70107): 1}
    assert report.calls == {SET: 11}
    assert report.resent_rows == 100
    assert report.latencies.percentile(50) == pytest.approx(0.05, rel=0.06)
    assert report.seconds == pytest.approx(sum(report.waits_seconds.values()), rel=0.01)


def test_changes_that_ask_for_nothing_do_not_pile_up_in_memory(path: Path) -> None:
    push = Push(path, settings=SinkSettings(max_in_flight=1))
    sizes = [len(outcomes) for outcomes in push.sink.push(Change(n, f"user-{n}", {}) for n in range(20_000))]
    assert sum(sizes) == 20_000
    assert max(sizes) <= 2 * 100 * (1 + 5)


def test_a_sink_pushes_once(path: Path) -> None:
    push = Push(path)
    push.run(changes_of(1))
    with pytest.raises(ValueError, match="pushes once"):
        push.sink.push(changes_of(1))


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"batch_size": 101},
        {"max_in_flight": 0},
        {"max_failed_fraction": -0.1},
        {"max_failed_fraction": 5},
    ],
)
def test_useless_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SinkSettings(**settings)  # type: ignore[arg-type]  # names and numbers as given above
