"""The API and the network in virtual time, for the sink's tests: faults are scripted, and nothing ever sleeps.

It keeps watch by itself: no account twice in a call or in flight, never more than 100 accounts, nothing sent again that
was settled, every call on record before it leaves.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import orjson

from connectors.tencent_push.calls import RunningCall
from connectors.tencent_push.client import CallResult, Fault
from connectors.tencent_push.ledger import Ledger, LedgerContents, Record, Sent, Settled, read_ledger
from connectors.tencent_push.outcomes import Change, Outcome, OutcomeKind
from connectors.tencent_push.pacing import Quota
from connectors.tencent_push.protocol import Command, Reply, RowError
from connectors.tencent_push.published_ledger import INTERVAL_SECONDS
from connectors.tencent_push.report import Progress, PushCall
from connectors.tencent_push.sink import Sink, SinkSettings

SET, REMOVE = Command.SET_ATTR, Command.REMOVE_ATTR
TODAY = datetime(2026, 1, 2, tzinfo=UTC)
ACKNOWLEDGED, REJECTED, ERRORED, NOT_ATTEMPTED = OutcomeKind


@dataclass
class VirtualClock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


Key = tuple[Command, str, bytes]  # command, account, attributes as they were sent


@dataclass(frozen=True)
class Seen:
    """One call, as the API sees it."""

    number: int
    command: Command
    accounts: list[str]
    attributes: list[dict[str, str] | list[str]]
    at: float
    usersig: int

    def sent_rows(self) -> list[Key]:
        return [(self.command, a, orjson.dumps(b)) for a, b in zip(self.accounts, self.attributes, strict=True)]


@dataclass(frozen=True)
class Answer:
    """What the API does with a call: which rows it carries out, and what comes back."""

    result: CallResult
    written: frozenset[str]
    latency_seconds: float | None = None


def accepted(call: Seen, errors: Iterable[RowError] = ()) -> Answer:
    errors = tuple(errors)
    written = frozenset(call.accounts) - {error.account for error in errors}
    return Answer(CallResult(Reply(0, None, errors), None, None, 200, 0.05), written)


def refused(code: int, info: str | None = None) -> Answer:
    return Answer(CallResult(Reply(code, info), None, None, 200, 0.05), frozenset())


def faulty(call: Seen, fault: Fault, *, written: bool = False, http_status: int | None = None) -> Answer:
    result = CallResult(None, fault, "scripted", http_status, 0.05)
    seconds = 10.0 if fault is Fault.TIMEOUT else None
    return Answer(result, frozenset(call.accounts) if written else frozenset(), seconds)


Script = Callable[[Seen], Answer]


def scripted(**by_call: Answer | Script) -> Script:
    """`_0=refused(...)`: what call number 0 gets; every other call is accepted."""

    def script(call: Seen) -> Answer:
        answer = by_call.get(f"_{call.number}")
        if answer is None:
            return accepted(call)
        return answer(call) if callable(answer) else answer

    return script


def always(code: int) -> Script:
    return lambda call: refused(code)


class SimulatedCalls:
    """Runs calls against a script in virtual time, and checks the rules that no call may break."""

    def __init__(
        self, clock: VirtualClock, script: Script, *, latency: Callable[[], float], ledger: Path | None = None
    ) -> None:
        self.clock = clock
        self.script = script
        self.latency = latency
        self.ledger = ledger
        self.seen: list[Seen] = []
        self.state: dict[str, dict[str, str]] = {}
        self.usersig = 0
        self.on_wait: Callable[[], None] = lambda: None
        self._running: list[tuple[float, int, RunningCall, Answer, Seen]] = []
        self._accounts_in_flight: set[str] = set()
        self._settled: set[Key] = set()
        self.most_in_flight = 0
        self.closed = False
        self.wakes: list[float] = []  # when something else than a call ends a wait

    # What the sink needs of a client.

    def call(self, command: Command, body: bytes) -> CallResult:
        raise AssertionError("the sink calls through `start` here")

    def renew_usersig(self) -> None:
        self.usersig += 1

    # What the sink needs of its calls.

    def start(self, command: Command, body: bytes) -> RunningCall:
        assert not self.closed
        users = orjson.loads(body)["UserAttrs"]
        accounts, attributes = [user["To_Account"] for user in users], [user["Attrs"] for user in users]
        call = Seen(len(self.seen), command, accounts, attributes, self.clock.now, self.usersig)
        self._watch(call)
        self.seen.append(call)
        self._accounts_in_flight |= set(accounts)
        answer = self.script(call)
        self._write(call, answer.written)
        seconds = self.latency() if answer.latency_seconds is None else answer.latency_seconds
        running = RunningCall()
        self._running.append((self.clock.now + seconds, call.number, running, answer, call))
        self._running.sort(key=lambda entry: entry[:2])
        self.most_in_flight = max(self.most_in_flight, len(self._running))
        return running

    def wait(self, timeout_seconds: float) -> None:
        self.on_wait()
        self.wakes = [at for at in self.wakes if at > self.clock.now]
        until = min(math.nextafter(self.clock.now + timeout_seconds, math.inf), *self.wakes, math.inf)
        self.clock.now = min(until, max(self.clock.now, self._running[0][0])) if self._running else until
        while self._running and self._running[0][0] <= self.clock.now:
            ended_at, _, running, answer, call = self._running.pop(0)
            self._note_settled(call, answer)
            self._accounts_in_flight -= set(call.accounts)
            waited_seconds = ended_at - call.at if answer.result.http_status is not None else None
            running.result = replace(answer.result, waited_seconds=waited_seconds)
            running.ended_at = ended_at

    def wake(self) -> None:
        """Nothing waits in virtual time."""

    def close(self) -> None:
        self.closed = True

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def rows_sent(self) -> Counter[str]:
        """How often each account was in a call."""
        return Counter(account for call in self.seen for account in call.accounts)

    def _watch(self, call: Seen) -> None:
        assert 1 <= len(call.accounts) <= 100
        assert all(call.attributes), "an empty row is sent"
        assert len(set(call.accounts)) == len(call.accounts), "an account stands twice in a call"
        assert self._accounts_in_flight.isdisjoint(call.accounts), "an account is in flight twice"
        assert self._settled.isdisjoint(call.sent_rows()), "a settled row is sent again"
        if self.ledger is not None:
            contents = read_ledger(self.ledger)
            assert contents.unsettled_calls > len(self._running), "the call is not on record"

    def _note_settled(self, call: Seen, answer: Answer) -> None:
        reply = answer.result.reply
        if reply is None or reply.code != 0:
            return
        if any(error.account not in call.accounts for error in reply.row_errors):
            return
        unsettled = {error.account for error in reply.row_errors if error.code != 0}
        self._settled |= {key for key in call.sent_rows() if key[1] not in unsettled}

    def _write(self, call: Seen, written: frozenset[str]) -> None:
        for account, attributes in zip(call.accounts, call.attributes, strict=True):
            if account not in written:
                continue
            stored = self.state.setdefault(account, {})
            if isinstance(attributes, dict):
                stored |= attributes
            for name in attributes if isinstance(attributes, list) else ():
                stored.pop(name, None)


class LateRecord:
    """A published ledger in virtual time: a segment after the other, each with what was recorded when it began.

    Keeps watch: no call leaves before the segment with its line was there.
    """

    def __init__(self, ledger: Ledger, calls: SimulatedCalls, *, seconds: Callable[[], float]) -> None:
        self._ledger = ledger
        self._calls = calls
        self._seconds = seconds
        self._under_way: tuple[float, float, int] | None = None  # began at, ends at, how far it goes
        self._confirmed = 0
        self._next_at = calls.clock.now
        self.segments = 0

    def next_batch_id(self) -> str:
        return self._ledger.next_batch_id()

    def record(self, sent: Iterable[Sent] = (), settled: Iterable[Settled] = ()) -> int:
        return self._ledger.record(sent, settled)

    @property
    def confirmed(self) -> int:
        now = self._calls.clock.now
        while self._under_way is not None or (self._ledger.confirmed > self._confirmed and now >= self._next_at):
            if self._under_way is None:
                self._under_way = (now, now + self._seconds(), self._ledger.confirmed)
                self._calls.wakes.append(self._under_way[1])
            began_at, ends_at, position = self._under_way
            if now < ends_at:
                break
            self._confirmed, self._under_way = position, None
            self.segments += 1
            self._next_at = max(ends_at, began_at + INTERVAL_SECONDS)
            self._calls.wakes.append(self._next_at)
        return self._confirmed

    def on_confirmed(self, wake: Callable[[], None]) -> None:
        """Virtual time asks, it is not told."""


@dataclass
class Push:
    """One simulated push and everything that it left behind."""

    path: Path
    script: Script = accepted
    quota: float = 100
    settings: SinkSettings | None = None
    latency: Callable[[], float] = lambda: 0.05
    seed: int = 1
    on_record: bool = False  # checks before every call that it is on record: slow
    on_progress: Callable[[Progress], None] | None = None
    on_call: Callable[[PushCall], None] | None = None
    publishing: Callable[[], float] | None = None  # the seconds that each segment of a published ledger takes

    def __post_init__(self) -> None:
        self.read = 0  # changes that the sink took out of its iterator
        self.clock = VirtualClock()
        self.calls = SimulatedCalls(
            self.clock, self.script, latency=self.latency, ledger=self.path if self.on_record else None
        )
        self.ledger = Ledger.open(self.path, {"frame": "test"})
        self.record: Record = self.ledger
        if self.publishing is not None:
            self.record = LateRecord(self.ledger, self.calls, seconds=self.publishing)
        self.sink = Sink(
            self.calls,
            self.record,
            quota=Quota(self.quota, clock=self.clock),
            settings=self.settings,
            on_progress=self.on_progress,
            on_call=self.on_call,
            clock=self.clock,
            now=lambda: TODAY,
            chance=Random(self.seed).random,
            calls=self.calls,
        )

    def run(self, changes: Iterable[Change]) -> list[Outcome]:
        with closing(self.ledger), self.sink as sink:
            return [outcome for outcomes in sink.push(self.reading(changes)) for outcome in outcomes]

    def reading(self, changes: Iterable[Change]) -> Iterator[Change]:
        for change in changes:
            self.read += 1
            yield change

    @property
    def contents(self) -> LedgerContents:
        return read_ledger(self.path)


def changes_of(count: int, *, first: int = 0) -> list[Change]:
    return [Change(n, f"user-{n}", {"city": f"c{n}"}) for n in range(first, first + count)]


def kinds(outcomes: Sequence[Outcome]) -> Counter[OutcomeKind]:
    return Counter(outcome.kind for outcome in outcomes)


def one_by_number(outcomes: Sequence[Outcome]) -> dict[int, Outcome]:
    by_number = {outcome.change.number: outcome for outcome in outcomes}
    assert len(by_number) == len(outcomes), "a change has two outcomes"
    return by_number


def most_in_a_second(arrivals: Sequence[float]) -> int:
    first, most = 0, 0
    for last, at in enumerate(arrivals):
        while arrivals[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most
