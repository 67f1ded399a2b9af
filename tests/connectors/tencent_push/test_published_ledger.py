"""A ledger that is published in segments: when its calls may leave, at what pace, and what a lost host costs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from connectors.tencent_push.errors import LedgerError
from connectors.tencent_push.ledger import Ledger, LedgerContents, Sent, Settled, read_ledger
from connectors.tencent_push.outcomes import Change
from connectors.tencent_push.published_ledger import STAGED_SECONDS, PublishedLedger
from connectors.tencent_push.sink import SinkSettings
from tests.connectors.tencent_push.simulation import (
    ACKNOWLEDGED,
    REMOVE,
    SET,
    Answer,
    LateRecord,
    Push,
    Seen,
    accepted,
    kinds,
    most_in_a_second,
)

QUOTA, CALLS = 100, 3_000
SETTINGS = SinkSettings(batch_size=1, staged_seconds=STAGED_SECONDS)


@dataclass(slots=True)
class Elsewhere:
    """Where segments go. `gate` closed: a segment waits there. `fault`: it is refused."""

    segments: dict[int, bytes] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None
    came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self.gate.set()

    def publish(self, number: int, content: bytes) -> None:
        assert self.gate.wait(10)
        if self.fault is not None:
            raise self.fault
        assert number not in self.segments
        self.segments[number] = content

    def contents(self, path: Path) -> LedgerContents:
        whole = path.with_suffix(".published")
        whole.write_bytes(b"".join(self.segments[number] for number in sorted(self.segments)))
        return read_ledger(whole)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.ledger"


def opened(path: Path, elsewhere: Elsewhere, *, may_send: Callable[[], bool] = lambda: True) -> PublishedLedger:
    ledger = PublishedLedger(
        Ledger.open(path, {"frame": "f"}),
        elsewhere.publish,
        may_send=may_send,
        interval_seconds=0.0,
    )
    ledger.on_confirmed(elsewhere.came.release)
    return ledger


def wait_until_confirmed(ledger: PublishedLedger, position: int, elsewhere: Elsewhere) -> None:
    while ledger.confirmed < position:
        assert elsewhere.came.acquire(timeout=10)


def test_what_is_recorded_is_confirmed_when_it_stands_elsewhere(path: Path) -> None:
    elsewhere = Elsewhere()
    with closing(opened(path, elsewhere)) as ledger:
        wait_until_confirmed(ledger, path.stat().st_size, elsewhere)
        elsewhere.gate.clear()
        position = ledger.record(sent=[Sent("a", SET, [1, 2])])
        assert ledger.confirmed < position == path.stat().st_size, "on disk here, and nowhere else yet"
        elsewhere.gate.set()
        wait_until_confirmed(ledger, position, elsewhere)
        assert elsewhere.contents(path).unsettled_calls == 1
        assert elsewhere.contents(path).uncertain[SET].tolist() == [1, 2]


def test_what_came_while_a_segment_was_under_way_is_the_next_one(path: Path) -> None:
    elsewhere = Elsewhere()
    elsewhere.gate.clear()
    with closing(opened(path, elsewhere)) as ledger:
        for number in range(50):
            position = ledger.record(sent=[Sent(str(number), SET, [number])])
        elsewhere.gate.set()
        wait_until_confirmed(ledger, position, elsewhere)
        assert len(elsewhere.segments) <= 2
    assert sorted(elsewhere.segments) == list(range(1, len(elsewhere.segments) + 1))
    assert b"".join(elsewhere.segments.values()) == path.read_bytes()


def test_closing_publishes_what_is_left(path: Path) -> None:
    elsewhere = Elsewhere()
    with closing(opened(path, elsewhere)) as ledger:
        ledger.record(sent=[Sent("a", SET, [1])])
        ledger.record(settled=[Settled("a", SET, [1])])
    assert elsewhere.contents(path).acknowledged[SET].tolist() == [1]
    assert elsewhere.contents(path).unsettled_calls == 0


def test_a_segment_that_cannot_be_written_ends_the_push(path: Path) -> None:
    elsewhere = Elsewhere(fault=OSError("the bucket is gone."))
    with closing(opened(path, elsewhere)) as ledger:
        position = ledger.record(sent=[Sent("a", SET, [1])])
        with pytest.raises(
            LedgerError, match=r"cannot be published: the bucket is gone\. No call may leave unrecorded"
        ):
            wait_until_confirmed(ledger, position, elsewhere)


def test_nothing_is_confirmed_to_who_may_send_no_more(path: Path) -> None:
    def taken_over() -> bool:
        raise InterruptedError("another run has taken over")

    elsewhere = Elsewhere(fault=OSError("it cannot be written any more"))
    with closing(opened(path, elsewhere, may_send=taken_over)) as ledger:
        ledger.record(sent=[Sent("a", SET, [1])])
        assert elsewhere.came.acquire(timeout=10)
        with pytest.raises(InterruptedError, match="taken over"):
            _ = ledger.confirmed


def test_nothing_is_confirmed_while_nobody_can_tell_who_may_send(path: Path) -> None:
    elsewhere, answers = Elsewhere(), [True, False, True]
    with closing(opened(path, elsewhere)) as ledger:
        position = ledger.record(sent=[Sent("a", SET, [1])])
        wait_until_confirmed(ledger, position, elsewhere)
        ledger._may_send = answers.pop
        assert [ledger.confirmed for _ in range(3)] == [position, 0, position]


def changes(count: int) -> Iterator[Change]:
    return (Change(n, f"user-{n}", {"city": "x"}, ("sex",)) for n in range(count))


@pytest.mark.parametrize(("latency", "share"), [(0.0, 0.975), (0.05, 0.975), (0.5, 0.97)])
@pytest.mark.parametrize("segment_seconds", [0.02, 0.1, 0.15])
def test_publishing_costs_nothing_of_the_quota(
    path: Path, latency: float, share: float, segment_seconds: float
) -> None:
    chance = Random(5)
    push = Push(
        path,
        latency=lambda: latency,
        settings=SETTINGS,
        publishing=lambda: chance.uniform(0.5 * segment_seconds, 1.5 * segment_seconds),
    )
    assert kinds(push.run(changes(CALLS))) == {ACKNOWLEDGED: CALLS}
    for command in (SET, REMOVE):
        arrivals = [call.at for call in push.calls.seen if call.command is command]
        assert most_in_a_second(arrivals) <= QUOTA
        assert CALLS / (arrivals[-1] - arrivals[0]) >= share * QUOTA
    assert isinstance(push.record, LateRecord)
    seconds = push.clock.now - push.calls.seen[0].at
    assert push.record.segments <= 5 * seconds + 2, "five writes a second at most"


def test_slow_writes_take_some_of_it_and_no_more(path: Path) -> None:
    push = Push(path, settings=SETTINGS, publishing=lambda: 0.4)
    push.run(changes(CALLS))
    arrivals = [call.at for call in push.calls.seen if call.command is SET]
    assert 0.5 * QUOTA <= CALLS / (arrivals[-1] - arrivals[0]) <= 0.8 * QUOTA


@dataclass(slots=True)
class Watched:
    """At every call: what a host that is lost at this moment leaves, against what it has sent."""

    path: Path
    most_again: int = 0
    push: Push | None = None

    def __call__(self, call: Seen) -> Answer:
        assert self.push is not None
        published = self.path.with_suffix(".published")
        published.write_bytes(self.path.read_bytes()[: self.push.record.confirmed])
        contents = read_ledger(published)
        known = {*contents.acknowledged[call.command].tolist(), *contents.uncertain[call.command].tolist()}
        numbers = {int(account.removeprefix("user-")) for account in call.accounts}
        assert numbers <= known, "a call leaves of which a lost host's successor knows nothing"
        acknowledged = sum(map(len, contents.acknowledged.values()))
        self.most_again = max(self.most_again, len(self.push.calls.seen) - acknowledged)
        return accepted(call)


@pytest.mark.parametrize("latency", [0.0, 0.2, 0.5])
def test_a_host_that_is_lost_costs_at_most_a_second_of_calls(path: Path, latency: float) -> None:
    watched = Watched(path)
    push = Push(path, watched, latency=lambda: latency, settings=SETTINGS, publishing=lambda: 0.1)
    watched.push = push
    push.run(changes(250))
    assert 0 < watched.most_again <= 2 * QUOTA, "of two commands, each with a quota of its own"


def test_when_nothing_is_published_any_more_the_calls_end(path: Path) -> None:
    began_at: list[float] = []

    def stalls_after_three() -> float:
        began_at.append(push.clock.now)
        return 0.1 if len(began_at) <= 3 else 60.0

    push = Push(path, settings=SETTINGS, publishing=stalls_after_three)
    push.run(changes(300))
    stalled = began_at[3]
    during = [call for call in push.calls.seen if stalled <= call.at < stalled + 59]
    assert len(during) <= 2 * QUOTA * STAGED_SECONDS
