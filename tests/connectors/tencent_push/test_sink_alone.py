"""Changes that are sent in calls of their own, and refusals of whole calls on record."""

from pathlib import Path

import pytest

from connectors.tencent_push.outcomes import Change
from connectors.tencent_push.protocol import RowError
from connectors.tencent_push.sink import SinkSettings
from tests.connectors.tencent_push.simulation import (
    ACKNOWLEDGED,
    REJECTED,
    REMOVE,
    SET,
    Answer,
    Push,
    Seen,
    accepted,
    changes_of,
    kinds,
    one_by_number,
    refused,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def alone(number: int) -> Change:
    return Change(number, f"user-{number}", {"city": "x"}, ("sex",), alone=True)


def test_a_change_that_goes_alone_never_shares_a_call(path: Path) -> None:
    """Neither when it is new, nor for its removals, nor when it is sent again for an error of its own."""
    lonely = {f"user-{number}" for number in range(0, 1000, 50)}

    def script(call: Seen) -> Answer:
        errors = [RowError(account, 91000) for account in call.accounts if call.number % 3 == 0][:5]
        return accepted(call, errors)

    push = Push(path, script)
    changes = [alone(n) if n % 50 == 0 else Change(n, f"user-{n}", {"city": "x"}, ("sex",)) for n in range(1000)]
    assert kinds(push.run(changes)) == {ACKNOWLEDGED: 1000}
    for call in push.calls.seen:
        assert len(call.accounts) == 1 or lonely.isdisjoint(call.accounts)
    assert push.calls.rows_sent().keys() == {change.account for change in changes}


def test_others_do_not_wait_for_those_that_go_alone(path: Path) -> None:
    push = Push(path)
    changes = [alone(n) for n in range(300)] + changes_of(5000, first=300)
    assert kinds(push.run(changes)) == {ACKNOWLEDGED: 5300}
    sizes = [len(call.accounts) for call in push.calls.seen if call.command is SET]
    assert sizes == [100] * 50 + [1] * 300


def test_more_that_go_alone_than_memory_is_for_leave_the_batches_of_the_others_full(path: Path) -> None:
    push = Push(path, settings=SinkSettings(max_in_flight=2))
    changes = [alone(n) for n in range(3000)] + changes_of(20_000, first=3000)
    assert kinds(push.run(changes)) == {ACKNOWLEDGED: 23_000}
    sizes = [len(call.accounts) for call in push.calls.seen if call.command is SET]
    assert sizes.count(1) == 3000
    assert len(sizes) - 3000 <= 200 + 35, "at most one batch a second is not full"


def test_removals_that_go_alone_leave_the_batches_of_what_is_set_full(path: Path) -> None:
    push = Push(path, settings=SinkSettings(max_in_flight=2))
    removals = [Change(n, f"user-{n}", {}, ("sex",), alone=True) for n in range(3000)]
    assert kinds(push.run(removals + changes_of(20_000, first=3000))) == {ACKNOWLEDGED: 23_000}
    sizes = [len(call.accounts) for call in push.calls.seen if call.command is SET]
    assert len(sizes) <= 200 + 100, "at most one batch a second is not full"


def test_one_that_goes_alone_keeps_its_place_among_the_changes_of_its_account(path: Path) -> None:
    changes = [Change(n, "user", {"city": str(n)}, alone=n % 2 == 0) for n in range(6)]
    push = Push(path)
    assert kinds(push.run(changes)) == {ACKNOWLEDGED: 6}
    assert push.calls.state == {"user": {"city": "5"}}


def test_a_stop_gives_those_that_go_alone_their_outcomes_too(path: Path) -> None:
    push = Push(path, lambda call: refused(70009))
    outcomes = push.run([alone(n) for n in range(500)])
    assert len(one_by_number(outcomes)) == push.read == 500


def test_a_row_that_fails_whole_calls_is_refused_as_a_whole_call_and_on_record_so(path: Path) -> None:
    push = Push(path, lambda call: refused(90001) if "user-37" in call.accounts else accepted(call))
    outcomes = one_by_number(push.run(changes_of(300)))
    assert [(r.kind, r.code, r.whole) for r in outcomes[37].refusals] == [(REJECTED, 90001, True)]
    refused_sets = push.contents.refused[SET]
    assert {cause: numbers.tolist() for cause, numbers in refused_sets.items()} == {(90001, True): [37]}
    assert push.contents.refused[REMOVE] == {}


def test_rows_refused_one_by_one_are_on_record_with_their_codes(path: Path) -> None:
    errors = [RowError("user-3", 70107), RowError("user-4", 90030), RowError("user-5", 70107)]
    push = Push(path, lambda call: accepted(call, [e for e in errors if e.account in call.accounts]))
    outcomes = one_by_number(push.run(changes_of(300)))
    assert [outcomes[n].refusals[0].whole for n in (3, 4, 5)] == [False] * 3
    refused_sets = push.contents.refused[SET]
    assert {cause: numbers.tolist() for cause, numbers in refused_sets.items()} == {
        (70107, False): [3, 5],
        (90030, False): [4],
    }


def test_rows_that_the_next_run_may_get_through_are_not_on_record_as_refused(path: Path) -> None:
    push = Push(path, lambda call: refused(91000))
    push.run(changes_of(1))
    assert push.contents.refused == {SET: {}, REMOVE: {}}
