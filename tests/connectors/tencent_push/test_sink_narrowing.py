"""Calls that fail for an error of the API's own although others pass: halved, so that one row does not cost 100."""

from pathlib import Path

import pytest

from connectors.tencent_push.client import Fault
from connectors.tencent_push.errors import Reason
from connectors.tencent_push.pacing import Backoff
from connectors.tencent_push.sink import SinkSettings
from tests.connectors.tencent_push.simulation import (
    ACKNOWLEDGED,
    ERRORED,
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

FIRST_ATTEMPTS = 6
HALVES_OF_100 = 2 * 7  # levels of halves until a row of 100 stands alone; the other half of each passes at once


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def poisoned(*accounts: str, code: int = 91000) -> Script:
    return lambda call: accepted(call) if set(accounts).isdisjoint(call.accounts) else refused(code)


@pytest.mark.parametrize("changes", [100, 1000])
@pytest.mark.parametrize("bad", [0, 37, 99])
@pytest.mark.parametrize("code", [91000, 60008])
def test_a_row_that_fails_every_call_it_is_in_costs_one_row(path: Path, changes: int, bad: int, code: int) -> None:
    push = Push(path, poisoned(f"user-{bad}", code=code))
    outcomes = one_by_number(push.run(changes_of(changes)))
    assert kinds(list(outcomes.values())) == {ACKNOWLEDGED: changes - 1, ERRORED: 1}
    refusal = outcomes[bad].refusals[0]
    assert (refusal.code, refusal.whole, refusal.maybe_written) == (code, True, True)
    extra = len(push.calls.seen) - changes // 100
    assert extra <= FIRST_ATTEMPTS - 1 + HALVES_OF_100 + 7, "two attempts for each half with the row, one for the other"
    assert refusal.call_attempts <= FIRST_ATTEMPTS + HALVES_OF_100
    assert push.sink.report.stop is None
    assert push.contents.uncertain[SET].tolist() == [bad]


@pytest.mark.parametrize("changes", [100, 500])
def test_several_such_rows_of_one_call_cost_their_own_rows(path: Path, changes: int) -> None:
    bad = [3, 4, 50, 99]
    push = Push(path, poisoned(*(f"user-{number}" for number in bad)))
    outcomes = one_by_number(push.run(changes_of(changes)))
    assert [number for number, outcome in sorted(outcomes.items()) if outcome.kind is ERRORED] == bad


def test_an_outage_in_mid_run_is_not_halved_down_to_single_rows(path: Path) -> None:
    """Those that were under way when it began are halved a few times; then nothing passes any more."""
    push = Push(path, lambda call: accepted(call) if call.number < 200 else refused(91000))
    outcomes = push.run(changes_of(100_000))
    stop = push.sink.report.stop
    assert stop is not None
    assert stop.reason is Reason.INTERNAL_ERROR
    assert "20 batches in a row" in stop.text
    assert len(one_by_number(outcomes)) == push.read < 100_000
    assert min(len(call.accounts) for call in push.calls.seen) >= 12
    lasted_seconds = push.clock.now - push.calls.seen[200].at
    assert lasted_seconds < 60


def test_an_outage_from_the_start_is_errored_after_its_attempts(path: Path) -> None:
    push = Push(path, always(91000), settings=SinkSettings(errored_batches_in_a_row=1000))
    assert kinds(push.run(changes_of(1000))) == {ERRORED: 1000}
    assert len(push.calls.seen) <= 10 * FIRST_ATTEMPTS + 2 * (2 + 4), "only the last batch of all may be odd rows"


def test_a_single_batch_in_an_outage_is_halved_twice(path: Path) -> None:
    push = Push(path, always(91000))
    assert kinds(push.run(changes_of(100))) == {ERRORED: 100}
    assert len(push.calls.seen) == FIRST_ATTEMPTS + 2 * (2 + 4)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(lambda call: faulty(call, Fault.TIMEOUT), id="no reply"),
        pytest.param(lambda call: faulty(call, Fault.HTTP_STATUS, http_status=503), id="not the API"),
        pytest.param(lambda call: refused(60007), id="too fast"),
    ],
)
def test_what_says_nothing_about_rows_is_not_halved(path: Path, script: Script) -> None:
    settings = SinkSettings(throttled_backoff=Backoff(attempts=3))

    def some(call: Seen) -> Answer:
        return script(call) if "user-7" in call.accounts else accepted(call)

    push = Push(path, some, settings=settings)
    assert kinds(push.run(changes_of(2000))) == {ACKNOWLEDGED: 1900, ERRORED: 100}


def test_a_code_that_stops_the_run_when_it_stays_is_not_halved(path: Path) -> None:
    push = Push(path, poisoned("user-7", code=60004))
    push.run(changes_of(2000))
    assert push.sink.report.stop is not None
    assert push.sink.report.stop.code == 60004
    assert min(len(call.accounts) for call in push.calls.seen) == 100


def test_more_such_batches_than_a_few_are_not_halved(path: Path) -> None:
    bad = [f"user-{number}" for number in range(0, 1000, 100)]
    settings = SinkSettings(narrowed_batches=4, errored_batches_in_a_row=1000)
    push = Push(path, poisoned(*bad), settings=settings)
    assert kinds(push.run(changes_of(2000))) == {ERRORED: 4 + 6 * 100, ACKNOWLEDGED: 1396}


def test_no_half_leaves_after_a_stop(path: Path) -> None:
    push = Push(path, lambda call: refused(91000) if "user-7" in call.accounts else accepted(call))

    def stop() -> None:
        if any(len(call.accounts) < 100 for call in push.calls.seen):
            push.sink._settler.ending = True

    push.calls.on_wait = stop
    outcomes = one_by_number(push.run(changes_of(1000)))
    assert len([call for call in push.calls.seen if len(call.accounts) < 100]) <= 2
    assert len(outcomes) == 1000
