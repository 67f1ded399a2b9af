"""When a push stops by itself, and that every change has its outcome then, too."""

from pathlib import Path

import pytest

from connectors.tencent_push.client import Fault
from connectors.tencent_push.errors import Reason
from connectors.tencent_push.outcomes import Outcome, StopCause
from connectors.tencent_push.pacing import Backoff
from connectors.tencent_push.protocol import RowError
from connectors.tencent_push.sink import SinkSettings
from tests.connectors.tencent_push.simulation import (
    ACKNOWLEDGED,
    ERRORED,
    NOT_ATTEMPTED,
    REJECTED,
    SET,
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
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.mark.parametrize("code", [70009, 60028, 90045])
def test_a_code_that_ends_the_run_leaves_the_rest_not_attempted_and_the_sum_exact(path: Path, code: int) -> None:
    push = Push(path, lambda call: refused(code) if call.number >= 10 else accepted(call))
    outcomes = push.run(iter(changes_of(50_000)))
    counts = kinds(outcomes)
    assert sum(counts.values()) == 50_000
    assert len(one_by_number(outcomes)) == 50_000
    assert counts[ACKNOWLEDGED] == 1000
    assert 100 <= counts[ERRORED] <= 64 * 100
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
    assert kinds(outcomes)[ERRORED] + kinds(outcomes)[NOT_ATTEMPTED] == 100_000
    assert kinds(outcomes)[NOT_ATTEMPTED] > 80_000


@pytest.mark.parametrize(("in_a_row", "stops"), [(3, False), (2, True)])
def test_only_batches_given_up_one_after_the_other_stop_the_run(path: Path, in_a_row: int, stops: bool) -> None:
    once = SinkSettings(backoff=Backoff(attempts=1), errored_batches_in_a_row=in_a_row)
    push = Push(path, lambda call: accepted(call) if call.number % 3 == 0 else refused(91000), settings=once)
    outcomes = push.run(changes_of(3000))
    assert (push.sink.report.stop is not None) is stops
    assert len(outcomes) == 3000
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
    assert len(outcomes) == 12_000
    assert kinds(outcomes)[NOT_ATTEMPTED] > 2_000


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


def test_the_taker_of_the_outcomes_can_stop_the_run(path: Path) -> None:
    push = Push(path)
    cause = StopCause(None, Reason.RUN_STOPPED, "too many rows failed")
    taken: list[Outcome] = []
    for outcomes in push.sink.push(changes_of(50_000)):
        taken += outcomes
        push.sink.stop(cause)
    assert push.sink.report.stop is cause
    assert len(one_by_number(taken)) == 50_000
    assert 0 < kinds(taken)[ACKNOWLEDGED] < 5_000
    assert kinds(taken)[ACKNOWLEDGED] + kinds(taken)[NOT_ATTEMPTED] == 50_000
    assert push.contents.acknowledged[SET].size == kinds(taken)[ACKNOWLEDGED]
    assert push.contents.uncertain[SET].size == 0
