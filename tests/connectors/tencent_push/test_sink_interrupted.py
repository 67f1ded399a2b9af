"""What is on record, and when: full disks, interruptions, and going on afterwards."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from connectors.tencent_push.errors import LedgerError
from connectors.tencent_push.ledger import Ledger
from connectors.tencent_push.outcomes import Change, Outcome
from connectors.tencent_push.pacing import Quota
from connectors.tencent_push.sink import Sink
from tests.connectors.tencent_push.simulation import (
    ACKNOWLEDGED,
    SET,
    Push,
    changes_of,
    kinds,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def test_outcomes_are_on_record_before_they_are_yielded(path: Path) -> None:
    push = Push(path, on_record=True)
    for outcomes in push.sink.push(changes_of(2000)):
        recorded = set(push.contents.acknowledged[SET].tolist())
        assert {outcome.change.number for outcome in outcomes} <= recorded


class FailingLedger(Ledger):
    """A disk that is full from the nth record on."""

    records_left = 0

    def record(self, *args: object, **kwargs: object) -> int:
        if self.records_left <= 0:
            raise LedgerError("The ledger cannot be written: No space left on device.")
        self.records_left -= 1
        return super().record(*args, **kwargs)  # type: ignore[arg-type]  # handed through as they came


@pytest.mark.parametrize("records", [0, 1, 5])
def test_no_call_leaves_and_no_outcome_counts_once_the_record_cannot_be_kept(path: Path, records: int) -> None:
    push = Push(path)
    ledger = FailingLedger.open(path.with_name("failing"), {})
    assert isinstance(ledger, FailingLedger)
    ledger.records_left = records
    push.sink._ledger = ledger
    taken: list[Outcome] = []
    with pytest.raises(LedgerError, match="No space left"):
        for outcomes in push.sink.push(changes_of(100_000)):
            taken += outcomes
    assert len(push.calls.seen) <= records * 10
    assert push.calls.in_flight == 0, "the calls in flight were waited for"
    assert push.calls.closed


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interrupted_push_waits_for_its_calls_records_them_and_sends_nothing_more(
    path: Path, interruption: type[BaseException]
) -> None:
    push = Push(path)

    def interrupt() -> None:
        if len(push.calls.seen) >= 50 and push.calls.in_flight:
            push.calls.on_wait = lambda: None
            raise interruption

    push.calls.on_wait = interrupt
    taken: list[Outcome] = []
    with pytest.raises(interruption):
        for outcomes in push.sink.push(changes_of(100_000)):
            taken += outcomes
    assert len(push.calls.seen) == 50
    contents = push.contents
    assert contents.unsettled_calls == 0
    assert contents.acknowledged[SET].tolist() == list(range(5000))
    assert contents.uncertain[SET].size == 0, "what was on record and never left was not written"


def test_calls_that_never_end_are_waited_for_within_bounds_and_stay_uncertain(path: Path) -> None:
    push = Push(path, latency=lambda: 1e9)

    def changes() -> Iterator[Change]:
        yield from changes_of(2000)
        raise RuntimeError("the frame cannot be read any further")

    with pytest.raises(RuntimeError, match="any further"):
        list(push.sink.push(changes()))
    assert push.clock.now - 1000 < 60
    assert 0 < push.contents.unsettled_calls == len(push.calls.seen)
    assert push.contents.uncertain[SET].size == 100 * len(push.calls.seen)


def test_leaving_the_loop_early_ends_the_push_cleanly(path: Path) -> None:
    push = Push(path)
    with push.sink as sink:
        for _outcomes in sink.push(changes_of(100_000)):
            break
    assert push.contents.unsettled_calls == 0
    assert push.contents.acknowledged[SET].size == 100 * len(push.calls.seen)


def test_a_faulty_client_is_an_error_of_the_program_and_no_outcome(path: Path) -> None:
    class Broken:
        def call(self, command: object, body: bytes) -> None:
            raise ZeroDivisionError

        def renew_usersig(self) -> None: ...

    with closing(Ledger.open(path, {})) as ledger, pytest.raises(ZeroDivisionError):
        list(Sink(Broken(), ledger, quota=Quota(100)).push(changes_of(1)))  # type: ignore[arg-type]  # broken on purpose


def test_a_push_goes_on_in_the_same_ledger_after_an_interruption(path: Path) -> None:
    first = Push(path)
    with first.sink as sink:
        next(iter(sink.push(changes_of(5000))))
    first.ledger.close()
    done = set(first.contents.acknowledged[SET].tolist())
    assert 0 < len(done) < 5000
    second = Push(path)
    outcomes = second.run(change for change in changes_of(5000) if change.number not in done)
    assert kinds(outcomes) == {ACKNOWLEDGED: 5000 - len(done)}
    assert second.contents.acknowledged[SET].tolist() == list(range(5000))
