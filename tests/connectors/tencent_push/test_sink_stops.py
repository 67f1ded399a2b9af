"""When a push stops by itself, and that every change has its outcome then, too."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connectors.tencent_push.client import Fault
from connectors.tencent_push.errors import Reason
from connectors.tencent_push.outcomes import Change, Outcome, StopCause
from connectors.tencent_push.pacing import Backoff
from connectors.tencent_push.protocol import RowError
from connectors.tencent_push.sink import LONGEST_WAIT_SECONDS, SinkSettings
from tests.connectors.tencent_push.simulation import (
    ACKNOWLEDGED,
    ERRORED,
    NOT_ATTEMPTED,
    REJECTED,
    SET,
    Answer,
    Push,
    Script,
    Seen,
    accepted,
    always,
    changes_of,
    faulty,
    kinds,
    one_by_number,
    refused,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.mark.parametrize("code", [70009, 60028, 90045])
def test_a_code_that_ends_the_run_leaves_the_rest_not_attempted_and_the_sum_exact(path: Path, code: int) -> None:
    push = Push(path, lambda call: refused(code) if call.number >= 10 else accepted(call))
    outcomes = push.run(iter(changes_of(50_000)))
    counts = kinds(outcomes)
    assert len(one_by_number(outcomes)) == push.read < 10_000
    assert counts[ACKNOWLEDGED] == 1000
    assert 100 <= counts[ERRORED] <= 64 * 100
    assert counts[NOT_ATTEMPTED] > 0
    assert push.sink.report.stop is not None
    assert push.sink.report.stop.code == code
    unsent = [outcome for outcome in outcomes if outcome.kind is NOT_ATTEMPTED]
    assert {(r.reason, r.call_attempts, r.batch_id) for o in unsent for r in o.refusals} == {
        (Reason.RUN_STOPPED, 0, None)
    }
    assert push.contents.unsettled_calls == 0
    assert push.sink.report.changes == counts


def test_an_unknown_code_on_calls_stops_the_run_after_a_few_attempts(path: Path) -> None:
    push = Push(path, always(12345))
    outcomes = push.run(changes_of(1))
    assert kinds(outcomes) == {ERRORED: 1}
    assert outcomes[0].refusals[0].reason is Reason.UNKNOWN_CODE
    assert push.sink.report.stop is not None
    assert push.sink.report.stop.code == 12345


def test_a_target_that_cannot_be_reached_stops_the_run(path: Path) -> None:
    push = Push(path, lambda call: faulty(call, Fault.CONNECT_FAILED))
    outcomes = push.run(changes_of(100_000))
    stop = push.sink.report.stop
    assert stop is not None
    assert stop.reason is Reason.CONNECTION_FAILED
    assert "20 batches in a row" in stop.text
    assert kinds(outcomes)[ERRORED] + kinds(outcomes)[NOT_ATTEMPTED] == push.read < 100_000


def garbled(call: Seen) -> Answer:
    return faulty(call, Fault.UNREADABLE_REPLY)


@pytest.mark.parametrize(("in_a_row", "stops"), [(3, False), (2, True)])
def test_only_batches_given_up_one_after_the_other_stop_the_run(path: Path, in_a_row: int, stops: bool) -> None:
    once = SinkSettings(backoff=Backoff(attempts=1), errored_batches_in_a_row=in_a_row)
    push = Push(path, lambda call: accepted(call) if call.number % 3 == 0 else garbled(call), settings=once)
    outcomes = push.run(changes_of(3000))
    assert (push.sink.report.stop is not None) is stops
    if not stops:
        assert kinds(outcomes) == {ACKNOWLEDGED: 1000, ERRORED: 2000}


def test_a_forbidden_address_stops_the_run_at_once(path: Path) -> None:
    push = Push(path, lambda call: faulty(call, Fault.HTTP_STATUS, http_status=403))
    outcomes = push.run(changes_of(1000))
    assert push.sink.report.stop is not None
    assert "HTTP 403" in push.sink.report.stop.text
    assert {refusal.http_status for o in outcomes if o.kind is ERRORED for refusal in o.refusals} == {403}


@pytest.mark.parametrize("per_row", [True, False])
def test_attributes_that_nobody_declared_stop_the_run_before_all_rows_are_tried(path: Path, per_row: bool) -> None:
    def script(call: Seen) -> Answer:
        return accepted(call, [RowError(account, 90033) for account in call.accounts]) if per_row else refused(90033)

    push = Push(path, script)
    outcomes = push.run(changes_of(12_000))
    assert push.sink.report.stop is not None
    assert push.sink.report.stop.code == 90033
    assert "All of the first 1000 rows" in push.sink.report.stop.text
    assert len(one_by_number(outcomes)) == push.read < 12_000


def test_rows_refused_for_their_own_sake_never_stop_the_run(path: Path) -> None:
    push = Push(path, lambda call: accepted(call, [RowError(account, 70107) for account in call.accounts]))
    assert kinds(push.run(changes_of(3000))) == {REJECTED: 3000}
    assert push.sink.report.stop is None


def test_one_acknowledged_row_is_proof_that_the_attributes_are_declared(path: Path) -> None:
    def script(call: Seen) -> Answer:
        return accepted(call, [RowError(account, 90033) for account in call.accounts if account != "user-0"])

    push = Push(path, script)
    assert kinds(push.run(changes_of(3000))) == {REJECTED: 2999, ACKNOWLEDGED: 1}
    assert push.sink.report.stop is None


def failing_share(share: float, *, code: int = 70402) -> Callable[[Seen], Answer]:
    """Of the rows of each call, this share is refused for reasons of their own."""

    def script(call: Seen) -> Answer:
        return accepted(call, [RowError(account, code) for account in call.accounts[: round(share * 100)]])

    return script


@pytest.mark.parametrize(("share", "stops"), [(0.05, False), (0.06, True), (0.0, False), (0.99, True)])
def test_a_larger_share_of_failures_than_is_allowed_stops_the_run(path: Path, share: float, stops: bool) -> None:
    push = Push(path, failing_share(share), settings=SinkSettings(max_failed_fraction=0.05))
    outcomes = push.run(changes_of(50_000))
    stop = push.sink.report.stop
    assert (stop is not None) is stops
    if stop is not None:
        assert (stop.code, stop.reason) == (None, Reason.RUN_STOPPED)
        assert f"({share:.2%}, not counting rows" in stop.text
        assert "guards.max_failed_fraction allows 5.00%" in stop.text
        assert len(one_by_number(outcomes)) == push.read < 5000
        assert kinds(outcomes)[REJECTED] + kinds(outcomes)[ACKNOWLEDGED] >= 1000


def test_few_failures_at_the_start_do_not_stop_the_run_whatever_their_share(path: Path) -> None:
    limits = SinkSettings(max_failed_fraction=0.05, max_failed_fraction_rows=1000)
    push = Push(path, lambda call: failing_share(0.4 if call.number == 0 else 0.0)(call), settings=limits)
    assert kinds(push.run(changes_of(5000))) == {REJECTED: 40, ACKNOWLEDGED: 4960}
    assert push.sink.report.stop is None
    early = Push(
        path.with_name("early"),
        lambda call: failing_share(0.4 if call.number == 0 else 0.0)(call),
        settings=SinkSettings(max_failed_fraction=0.05, max_failed_fraction_rows=100),
    )
    early.run(changes_of(5000))
    assert early.sink.report.stop is not None


def test_errored_changes_count_among_the_failures_and_a_small_frame_never_stops(path: Path) -> None:
    once = SinkSettings(backoff=Backoff(attempts=1), max_failed_fraction=0.05, errored_batches_in_a_row=10**6)
    push = Push(path, garbled, settings=once)
    push.run(changes_of(3000))
    assert push.sink.report.stop is not None
    assert "1,000 of the first 1,000 changes failed" in push.sink.report.stop.text
    small = Push(path.with_name("small"), garbled, settings=once)
    assert kinds(small.run(changes_of(999))) == {ERRORED: 999}
    assert small.sink.report.stop is None


def test_without_a_bound_any_share_may_fail(path: Path) -> None:
    push = Push(path, failing_share(0.99))
    assert kinds(push.run(changes_of(5000))) == {REJECTED: 4950, ACKNOWLEDGED: 50}


def test_accounts_that_are_unknown_night_after_night_do_not_count_as_failures(path: Path) -> None:
    """On a quiet night there is little else, and the guard would stop it every time."""
    push = Push(path, failing_share(1.0, code=70107), settings=SinkSettings(max_failed_fraction=0.05))
    assert kinds(push.run(changes_of(5000))) == {REJECTED: 5000}
    assert push.sink.report.stop is None


@pytest.mark.parametrize("code", [70402, 90001, 90033])
def test_a_run_of_which_no_row_is_taken_stops_whatever_the_code_for_good(path: Path, code: int) -> None:
    push = Push(path, lambda call: refused(code))
    push.run(changes_of(50_000))
    assert push.sink.report.stop is not None
    assert push.sink.report.stop.code == code
    assert push.read < 10_000


class ReadTooFarError(AssertionError):
    pass


@pytest.mark.parametrize("by", ["its taker", "itself"])
def test_after_a_stop_no_change_is_read_any_more(path: Path, by: str) -> None:
    """So that a push of many millions of rows ends at once; the caller knows which ones were not read."""
    push = Push(path, lambda call: refused(70009) if by == "itself" and call.number > 50 else accepted(call))
    cause = StopCause(None, Reason.RUN_STOPPED, "the run was cancelled")

    def changes() -> Iterator[Change]:
        for change in changes_of(100_000):
            if push.sink.report.stop is not None:
                raise ReadTooFarError
            yield change

    taken: list[Outcome] = []
    for outcomes in push.sink.push(push.reading(changes())):
        taken += outcomes
        if by == "its taker" and len(taken) > 5000:
            push.sink.stop(cause)
    assert push.sink.report.stop is not None
    assert sorted(one_by_number(taken)) == list(range(push.read))
    assert push.read < 10_000


def test_what_reads_on_after_a_stop_is_noticed(path: Path) -> None:
    """The guard on the test above."""
    push = Push(path)

    def changes() -> Iterator[Change]:
        yield from changes_of(100)
        push.sink.stop(StopCause(None, Reason.RUN_STOPPED, "stopped while it reads"))
        yield Change(100, "user-100", {"city": "x"})
        raise ReadTooFarError

    outcomes = push.run(changes())
    assert kinds(outcomes) == {NOT_ATTEMPTED: 101}, "what was read has its outcome, and nothing after that is read"
    with pytest.raises(ReadTooFarError):
        list(changes())


@pytest.mark.parametrize("latency", [0.05, 3.0])
@pytest.mark.parametrize("script", [accepted, always(91000)], ids=["in flight", "in a wait before a resend"])
def test_a_stop_from_a_signals_handler_is_noticed_within_half_a_second(
    path: Path, script: Script, latency: float
) -> None:
    """The handler runs between two byte codes of the caller's thread, most likely while that waits."""
    patient = SinkSettings(backoff=Backoff(first_seconds=30, total_seconds=600))
    push = Push(path, script, settings=patient, latency=lambda: latency)
    stopped_at: list[float] = []

    def handle() -> None:
        if not stopped_at and push.clock.now >= 1004:
            stopped_at.append(push.clock.now)
            push.sink.stop(StopCause(None, Reason.RUN_STOPPED, "cancelled"))

    push.calls.on_wait = handle
    outcomes = push.run(changes_of(1000 if script is not accepted else 1_000_000))
    assert stopped_at
    in_flight_until = max(call.at for call in push.calls.seen) + latency
    assert push.clock.now <= max(stopped_at[0], in_flight_until) + LONGEST_WAIT_SECONDS + 0.01
    assert all(call.at <= stopped_at[0] for call in push.calls.seen)
    assert len(one_by_number(outcomes)) == push.read


def test_the_taker_of_the_outcomes_can_stop_the_run(path: Path) -> None:
    push = Push(path)
    cause = StopCause(None, Reason.RUN_STOPPED, "too many rows failed")
    taken: list[Outcome] = []
    for outcomes in push.sink.push(push.reading(changes_of(50_000))):
        taken += outcomes
        push.sink.stop(cause)
    assert push.sink.report.stop is cause
    assert len(one_by_number(taken)) == push.read
    assert 0 < kinds(taken)[ACKNOWLEDGED] < 5_000
    assert kinds(taken)[ACKNOWLEDGED] + kinds(taken)[NOT_ATTEMPTED] == push.read
    assert push.contents.acknowledged[SET].size == kinds(taken)[ACKNOWLEDGED]
    assert push.contents.uncertain[SET].size == 0
