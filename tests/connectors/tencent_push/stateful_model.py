"""What a program of nights runs on: the API's state and faults, the fuse that ends a night, and the nightly diff.

`World` remembers from night to night what a real installation would (the ledgers), and beside it what only the API
knows. What must hold is not decided here but in stateful_invariants.py.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import orjson

from connectors.tencent_push.calls import RunningCall
from connectors.tencent_push.client import Fault
from connectors.tencent_push.ledger import Ledger, LedgerContents, Sent, Settled
from connectors.tencent_push.outcomes import Change
from connectors.tencent_push.protocol import Command, RowError
from tests.connectors.tencent_push.simulation import (
    REMOVE,
    SET,
    Answer,
    Seen,
    SimulatedCalls,
    VirtualClock,
    accepted,
    faulty,
    refused,
)
from tests.connectors.tencent_push.stateful_programs import (
    ACCOUNTS,
    ATTRIBUTES,
    CallTrouble,
    End,
    EndKind,
    Night,
    Program,
    Trouble,
)

Item = tuple[str, str]  # account, attribute
Row = tuple[Command, str, bytes]  # command, account, attributes as they were sent
Position = tuple[int, int]  # ledger, change number: what is newer stands higher


class Killed(BaseException):
    """Nothing of the process goes on after it."""


class InterruptedNight(Exception):  # noqa: N818  # the taker's own exception, whatever it is
    pass


class Fuse:
    """Burns down as the night goes on; at its end the night ends as `End` says."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.is_burnt = False
        self.on_stop: Callable[[], None] = lambda: None
        self._left = end.step

    @property
    def is_dead(self) -> bool:
        return self.is_burnt and self.end.kind is EndKind.KILLED

    def burn(self, *, own_code: bool = True, in_a_write: bool = False) -> None:
        """A moment at which the night may end; only a kill can come in the midst of what is not the caller's own."""
        if self.is_dead:
            raise Killed
        if self.is_burnt or self.end.kind is EndKind.BY_ITSELF:
            return
        if self.end.in_a_write and self.end.kind is EndKind.KILLED and not in_a_write:
            return
        self._left -= 1
        if self._left < 0 and (own_code or self.end.kind is EndKind.KILLED):
            self._end()

    def _end(self) -> None:
        self.is_burnt = True
        if self.end.kind is EndKind.KILLED:
            raise Killed
        if self.end.kind is EndKind.INTERRUPTED:
            raise InterruptedNight
        self.on_stop()


class FusedLedger(Ledger):
    """A kill may come before, in the midst of or after a write; the line is torn then."""

    fuse: Fuse
    on_sent: Callable[[Sent], None]

    def record(self, sent: Iterable[Sent] = (), settled: Iterable[Settled] = ()) -> int:
        self.fuse.burn(own_code=False)
        before = self.path.stat().st_size
        for batch in sent:
            self.on_sent(batch)
        position = super().record(sent, settled)
        try:
            self.fuse.burn(own_code=False, in_a_write=True)
        except Killed:
            whole = self.path.stat().st_size
            with self.path.open("r+b") as file:
                file.truncate(max(before, whole - self.fuse.end.torn_bytes))
            raise
        return position


class ItemStatus(StrEnum):
    """What the program may know of the last call for an account's attribute."""

    UNKNOWN = "unknown"  # no answer that says it is written
    IN_FLIGHT = "in_flight"  # or not yet on record, when it was killed
    ANSWERED = "answered"  # with its success
    YIELDED = "yielded"  # and the taker has the outcome


@dataclass
class LastCall:
    value: str | None
    status: ItemStatus
    at: float = 0.0
    night: int = 0


@dataclass
class World:
    """What outlives a night. `known` and `uncertain` are folded from the ledgers; the rest only the API knows."""

    program: Program
    folder: Path
    desired: dict[Item, str | None] = field(default_factory=dict)
    known: dict[Item, str] = field(default_factory=dict)
    uncertain: set[Item] = field(default_factory=set)
    state: dict[str, dict[str, str]] = field(default_factory=dict)
    writes: dict[Item, list[Position]] = field(default_factory=lambda: defaultdict(list))
    last_calls: dict[Item, LastCall] = field(default_factory=dict)
    plans: list[list[Change]] = field(default_factory=list)
    ledgers: dict[int, LedgerContents] = field(default_factory=dict)
    nights: int = 0
    is_resumable: bool = False
    alone: set[str] = field(default_factory=set)  # accounts that a whole call was refused for

    def ledger_path(self, number: int) -> Path:
        return self.folder / f"{number:04d}.ledger"

    def begin(self, night: Night) -> tuple[int, list[Change]]:
        """Tonight's ledger and changes: the diff, or what is left of the plan that was cut off."""
        self.nights += 1
        if night.resumed and self.is_resumable:
            number = len(self.plans) - 1
            return number, self._left_of(number)
        self.plans.append([replace(change, alone=change.account in self.alone) for change in self._plan(night)])
        return len(self.plans) - 1, self.plans[-1]

    def end(self, api: "Api", contents: LedgerContents, *, flush_seconds: float) -> None:
        """Takes over the night's ledger. What was answered shortly before a kill may not be on record yet."""
        self.ledgers[len(self.plans) - 1] = contents
        self._take_over()
        plan = self.plans[-1]
        for refused_by_cause in contents.refused.values():
            for (_, whole), numbers in refused_by_cause.items():
                self.alone |= {change.account for change in plan if whole and change.number in numbers}
        self.is_resumable = api.fuse.is_burnt and len({change.account for change in plan}) == len(plan)
        flushed_at = api.clock.now - 1.01 * flush_seconds  # the simulation wakes up a trifle later
        for last in self.last_calls.values() if api.fuse.is_dead else ():
            if last.status is ItemStatus.ANSWERED and last.night == self.nights and last.at >= flushed_at:
                last.status = ItemStatus.IN_FLIGHT  # as far as the record can know

    def _take_over(self) -> None:
        """Folds all ledgers anew, as pipelines/acknowledged.py does: what is acknowledged, and what is uncertain."""
        self.known, self.uncertain = {}, set()
        for number, contents in self.ledgers.items():
            done = {command: set(contents.acknowledged[command].tolist()) for command in (SET, REMOVE)}
            maybe = {command: set(contents.uncertain[command].tolist()) for command in (SET, REMOVE)}
            for change in self.plans[number]:
                for command, wanted in items_of(change).items():
                    if change.number in done[command]:
                        self._know(wanted)
                    elif change.number in maybe[command]:
                        self.uncertain |= wanted.keys()

    def _know(self, wanted: dict[Item, str | None]) -> None:
        for item, value in wanted.items():
            self.uncertain.discard(item)
            self.known.pop(item, None)
            if value is not None:
                self.known[item] = value

    def _plan(self, night: Night) -> list[Change]:
        """Tonight's changes: the diff against what is known, then `later` as changes of their own."""
        for update in night.updates:
            self.desired[ACCOUNTS[update.account], update.attribute] = update.value
        for number in range(night.crowd):
            self.desired[f"crowd-{number}", ATTRIBUTES[0]] = night.crowd_value
        first = {
            item: value
            for item, value in self.desired.items()
            if self.known.get(item) != value or item in self.uncertain
        }
        before = dict(self.desired)
        for update in night.later:
            self.desired[ACCOUNTS[update.account], update.attribute] = update.value
        second = {item: value for item, value in self.desired.items() if before.get(item) != value}
        changes = _changes(first, since=0)
        return [*changes, *_changes(second, since=len(changes))]

    def _left_of(self, number: int) -> list[Change]:
        """What the ledger does not prove of the plan that it belongs to."""
        contents = self.ledgers[number]
        done = {command: set(contents.acknowledged[command].tolist()) for command in (SET, REMOVE)}
        left = []
        for change in self.plans[number]:
            to_set = {} if change.number in done[SET] else change.set
            to_remove = () if change.number in done[REMOVE] else change.remove
            if to_set or to_remove:
                left.append(replace(change, set=to_set, remove=to_remove))
        return left


def items_of(change: Change) -> dict[Command, dict[Item, str | None]]:
    """What each command of the change writes; None is a removal."""
    return {
        SET: {(change.account, name): value for name, value in change.set.items()},
        REMOVE: {(change.account, name): None for name in change.remove},
    }


def _changes(wanted: dict[Item, str | None], *, since: int) -> list[Change]:
    by_account: dict[str, dict[str, str | None]] = defaultdict(dict)
    for (account, name), value in wanted.items():
        by_account[account][name] = value
    return [
        Change(
            number,
            account,
            {name: value for name, value in values.items() if value is not None},
            tuple(name for name, value in values.items() if value is None),
        )
        for number, (account, values) in enumerate(by_account.items(), start=since)
    ]


class Api(SimulatedCalls):
    """The simulation over the world's state: carries calls out at once or only as they end, and remembers each item."""

    def __init__(self, world: World, night: Night, *, plan: int, fuse: Fuse) -> None:
        self.latency_of = night.latencies
        super().__init__(VirtualClock(), self._answer, latency=self._latency)
        self.world, self.night, self.fuse = world, night, fuse
        self.state = world.state
        self.positions: dict[Row, Position] = {
            (command, change.account, _payload(change, command)): (plan, change.number)
            for change in world.plans[plan]
            for command in (SET, REMOVE)
        }
        self.least_usersig = 0
        self._to_carry_out: dict[int, tuple[Seen, frozenset[str]]] = {}

    def start(self, command: Command, body: bytes) -> RunningCall:
        self.fuse.burn(own_code=False)
        running = super().start(command, body)
        for item, value in _items_of_call(self.seen[-1]):
            self.world.last_calls[item] = LastCall(value, ItemStatus.IN_FLIGHT, night=self.world.nights)
        self.fuse.burn(own_code=False)
        return running

    def wait(self, timeout_seconds: float) -> None:
        self.fuse.burn()
        super().wait(timeout_seconds)

    def first_sent(self) -> dict[Item, str | None]:
        """What the night's first call for each item wrote."""
        first: dict[Item, str | None] = {}
        for call in self.seen:
            for item, value in _items_of_call(call):
                first.setdefault(item, value)
        return first

    def carry_out_what_is_left(self) -> None:
        """After a kill, before the next night: each call in flight as the night's end says."""
        for place, (call, written) in enumerate(self._to_carry_out.values()):
            if self.fuse.end.carried_out >> place % 8 & 1:
                self._carry_out(call, written)

    def _latency(self) -> float:
        return self.latency_of[(len(self.seen) - 1) % len(self.latency_of)]

    def _write(self, call: Seen, written: frozenset[str]) -> None:
        if self.night.carried_out_at_once:
            self._carry_out(call, written)
        else:
            self._to_carry_out[call.number] = (call, written)

    def _carry_out(self, call: Seen, written: frozenset[str]) -> None:
        super()._write(call, written)
        for row, account in zip(call.sent_rows(), call.accounts, strict=True):
            if account in written:
                for name in orjson.loads(row[2]):
                    self.world.writes[account, name].append(self.positions[row])

    def _note_settled(self, call: Seen, answer: Answer) -> None:
        """The call ends: what waited is carried out at last, and its rows are answered or not."""
        if call.number in self._to_carry_out:
            self._carry_out(*self._to_carry_out.pop(call.number))
        super()._note_settled(call, answer)
        for row in call.sent_rows():
            status = ItemStatus.ANSWERED if row in self._settled else ItemStatus.UNKNOWN
            for name in orjson.loads(row[2]):
                last = self.world.last_calls[row[1], name]
                last.status, last.at = status, self.clock.now

    def _answer(self, call: Seen) -> Answer:
        trouble = self.night.troubles[call.number] if call.number < len(self.night.troubles) else CallTrouble()
        if trouble.kind is Trouble.EXPIRED:
            self.least_usersig = self.usersig + 1
        if call.usersig < self.least_usersig:
            return refused(70001)
        if trouble.kind is Trouble.CODE and (trouble.code != 93000 or len(call.accounts) > 1):
            return _refused(call, trouble.code, written=trouble.written)
        if trouble.kind in _FAULTS:
            fault, status, may_be_written = _FAULTS[trouble.kind]
            return faulty(call, fault, written=trouble.written and may_be_written, http_status=status)
        return self._row_by_row(call, trouble)

    def _row_by_row(self, call: Seen, trouble: CallTrouble) -> Answer:
        poison = {ACCOUNTS[number] for number in self.world.program.poison}
        if poison & set(call.accounts):
            written = frozenset(call.accounts) - poison if self.world.program.poison_written else frozenset[str]()
            return replace(refused(90033), written=written)
        strangers = {ACCOUNTS[number] for number in self.world.program.strangers}
        errors = [RowError(account, 70107) for account in call.accounts if account in strangers]
        if trouble.kind is Trouble.FOREIGN_ROW:
            return accepted(call, [*errors, RowError("nobody", 70107)])
        if trouble.kind is not Trouble.ROWS:
            return accepted(call, errors)
        in_trouble = [a for place, a in enumerate(call.accounts) if trouble.rows >> place % len(ACCOUNTS) & 1]
        answer = accepted(call, [*errors, *(RowError(account, trouble.row_code) for account in in_trouble)])
        if trouble.row_code == 0 or (trouble.written and trouble.row_code in MAYBE_WRITTEN):
            return replace(answer, written=frozenset(call.accounts) - {error.account for error in errors})
        return answer


MAYBE_WRITTEN = frozenset({91000, 60008, 90033, 12345})
_FAULTS = {
    Trouble.BROKEN: (Fault.BROKEN_CONNECTION, None, True),
    Trouble.TIMEOUT: (Fault.TIMEOUT, None, True),
    Trouble.CONNECT_FAILED: (Fault.CONNECT_FAILED, None, False),
    Trouble.UNREADABLE: (Fault.UNREADABLE_REPLY, 200, True),
    Trouble.HTTP_502: (Fault.HTTP_STATUS, 502, True),
    Trouble.HTTP_429: (Fault.HTTP_STATUS, 429, False),
    Trouble.HTTP_403: (Fault.HTTP_STATUS, 403, False),
}


def _refused(call: Seen, code: int, *, written: bool) -> Answer:
    return replace(refused(code), written=frozenset(call.accounts if written and code in MAYBE_WRITTEN else ()))


def _payload(change: Change, command: Command) -> bytes:
    return orjson.dumps(change.set if command is SET else list(change.remove))


def _items_of_call(call: Seen) -> Iterator[tuple[Item, str | None]]:
    for account, attributes in zip(call.accounts, call.attributes, strict=True):
        for name in attributes:
            yield (account, name), attributes[name] if isinstance(attributes, dict) else None
