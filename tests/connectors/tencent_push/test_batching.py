import math

import pytest

from connectors.tencent_push.batching import Backlog, Batch, Operation
from connectors.tencent_push.outcomes import Change
from connectors.tencent_push.protocol import Command

SET, REMOVE = Command.SET_ATTR, Command.REMOVE_ATTR


class VirtualClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def backlog(clock: VirtualClock) -> Backlog:
    return Backlog(batch_size=3, partial_batch_seconds=1.0, clock=clock)


def operation(number: int, account: str | None = None, *, remove: bool = False) -> Operation:
    change = Change(number, account or f"user-{number}", {"city": "x"}, ("sex",) if remove else ())
    made = Operation.of(change)
    assert made is not None
    return made


def numbers(operations: list[Operation]) -> list[int]:
    return [operation.change.number for operation in operations]


def test_a_change_asks_for_its_commands_one_after_the_other() -> None:
    first = operation(0, remove=True)
    second = first.after(())
    assert (first.command, first.following) == (SET, REMOVE)
    assert second is not None
    assert (second.command, second.following) == (REMOVE, None)
    assert second.after(()) is None
    assert Operation.of(Change(0, "a", {})) is None


def test_new_operations_wait_until_their_batch_is_full(backlog: Backlog) -> None:
    for number in range(4):
        backlog.add(operation(number))
    assert numbers(backlog.take(SET, partial=False)) == [0, 1, 2]
    assert backlog.take(SET, partial=False) == []
    assert numbers(backlog.take(SET, partial=True)) == [3]


def test_new_operations_do_not_wait_for_ever(backlog: Backlog, clock: VirtualClock) -> None:
    backlog.add(operation(0))
    assert backlog.next_due(SET) == clock.now + 1
    clock.now += 1
    assert numbers(backlog.take(SET, partial=False)) == [0]
    assert backlog.next_due(SET) == math.inf


def test_an_account_is_given_out_once_until_its_change_is_finished(backlog: Backlog) -> None:
    first, second, third = operation(0, "a"), operation(1, "a"), operation(2, "a")
    for one in (first, second, third):
        backlog.add(one)
    assert numbers(backlog.take(SET, partial=True)) == [0]
    assert backlog.take(SET, partial=True) == []
    backlog.finish(first.change)
    assert numbers(backlog.take(SET, partial=True)) == [1]
    backlog.finish(second.change)
    assert numbers(backlog.take(SET, partial=True)) == [2]
    backlog.finish(third.change)
    assert backlog.unsettled == 0


def test_what_waits_is_given_out_when_it_is_due_and_before_what_is_new(backlog: Backlog, clock: VirtualClock) -> None:
    backlog.resend([operation(9)], due=clock.now + 2, attempt=None)
    for number in range(3):
        backlog.add(operation(number))
    assert numbers(backlog.take(SET, partial=True)) == [0, 1, 2]
    assert backlog.next_due(SET) == clock.now + 2
    for number in range(3, 6):
        backlog.add(operation(number))
    clock.now += 2
    assert numbers(backlog.take(SET, partial=True)) == [9]


def test_single_rows_of_the_same_attempt_join_up_to_a_full_batch(backlog: Backlog, clock: VirtualClock) -> None:
    backlog.resend([operation(0), operation(1)], due=clock.now, attempt=1)
    backlog.resend([operation(2), operation(3)], due=clock.now + 5, attempt=1)
    backlog.resend([operation(4)], due=clock.now + 1, attempt=2)
    assert numbers(backlog.take(SET, partial=True)) == [0, 1, 2]
    assert backlog.next_due(SET) == clock.now + 1
    clock.now += 5
    assert numbers(backlog.take(SET, partial=True)) == [4]
    assert numbers(backlog.take(SET, partial=True)) == [3]


def test_the_halves_of_a_call_stay_among_themselves(backlog: Backlog, clock: VirtualClock) -> None:
    backlog.resend([operation(0)], due=clock.now, attempt=None)
    backlog.resend([operation(1)], due=clock.now, attempt=None)
    backlog.resend([operation(2)], due=clock.now, attempt=1)
    assert [numbers(backlog.take(SET, partial=True)) for _ in range(3)] == [[0], [1], [2]]


def test_what_waits_in_batches_that_are_too_large_by_now_comes_in_parts(backlog: Backlog, clock: VirtualClock) -> None:
    backlog.resend([operation(n) for n in range(3)], due=clock.now, attempt=None)
    backlog.batch_size = 2
    assert numbers(backlog.take(SET, partial=True)) == [0, 1]
    assert numbers(backlog.take(SET, partial=True)) == [2]


def test_draining_gives_everything_once(backlog: Backlog, clock: VirtualClock) -> None:
    backlog.add(operation(0, "a"))
    backlog.add(operation(1, "a"))
    backlog.add(operation(2))
    backlog.resend([operation(3)], due=clock.now + 9, attempt=None)
    removal = operation(4, remove=True).after(())
    assert removal is not None
    backlog.follow(removal)
    assert sorted(numbers(backlog.drain())) == [0, 1, 2, 3, 4]
    assert backlog.drain() == []
    assert backlog.fresh == 0


def test_a_batch_encodes_what_its_command_needs() -> None:
    both = operation(7, "a", remove=True)
    removal = both.after(())
    assert removal is not None
    assert Batch("b1", SET, (both,)).body() == b'{"UserAttrs":[{"To_Account":"a","Attrs":{"city":"x"}}]}'
    assert Batch("b2", REMOVE, (removal,)).body() == b'{"UserAttrs":[{"To_Account":"a","Attrs":["sex"]}]}'
    assert Batch("b1", SET, (both,)).numbers == [7]
