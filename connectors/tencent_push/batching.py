"""What has been read but not settled, and the order in which it may leave: batches, resends, halves, held-back rows.

Knows accounts, sizes and due times. It sends nothing, decides nothing about replies and writes no record.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from connectors.tencent_push import protocol
from connectors.tencent_push.outcomes import Cause, Change, Refusal
from connectors.tencent_push.protocol import Command

WRITING_COMMANDS = (Command.SET_ATTR, Command.REMOVE_ATTR)


@dataclass(slots=True, eq=False)
class Operation:
    """What one change asks of one command, and how that has gone so far.

    `following` is the command that the change asks for after this one: an account is in flight once, so a change that
    both sets and removes is sent in two calls, one after the other.
    """

    change: Change
    command: Command
    following: Command | None = None
    refusals: tuple[Refusal, ...] = ()  # of the change's command before this one
    calls: int = 0
    failures: int = 0  # calls that ended without a decision about the row
    throttled: int = 0  # calls refused for coming too fast; not among the failures
    halvings: int = 0
    narrowings: int = 0  # halvings of a call whose attempts were used up while others passed
    attempts_since: float = math.inf  # when the attempts that count now began: the first call, or the last narrowing
    blind_levels: int = 0  # narrowings since the API was last seen to answer others
    company: int = 0  # rows of the last call, this one included
    batch_id: str | None = None  # of the last call
    cause: Cause | None = None  # why the last call did not settle it
    maybe_written: bool = False  # by any of its calls

    @classmethod
    def of(cls, change: Change) -> "Operation | None":
        """The first command of the change, or None when it asks for nothing."""
        if change.set:
            return cls(change, Command.SET_ATTR, Command.REMOVE_ATTR if change.remove else None)
        return cls(change, Command.REMOVE_ATTR) if change.remove else None

    def after(self, refusals: tuple[Refusal, ...]) -> "Operation | None":
        """The change's next command, which carries on what was refused before."""
        return Operation(self.change, self.following, refusals=refusals) if self.following else None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One call's rows: 1 to 100 operations of one command, for distinct accounts."""

    batch_id: str
    command: Command
    operations: tuple[Operation, ...]

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(operation.change.account for operation in self.operations)

    @property
    def numbers(self) -> list[int]:
        return [operation.change.number for operation in self.operations]

    def body(self) -> bytes:
        changes = [operation.change for operation in self.operations]
        if self.command is Command.SET_ATTR:
            return protocol.encode_set_attr((change.account, change.set) for change in changes)
        return protocol.encode_remove_attr((change.account, change.remove) for change in changes)


@dataclass(order=True, slots=True)
class _Waiting:
    """Operations to be sent again, together, not before `due`."""

    due: float
    sequence: int
    operations: list[Operation] = field(compare=False)
    attempt: int | None = field(compare=False)  # others of this attempt may join; None: nothing joins


class Backlog:
    """Changes go in as they are read; batches of operations come out as they are due.

    An account is in one operation at a time: a later change for it is held back until the earlier one is finished, so
    no older value can overtake a newer one.
    """

    def __init__(self, *, batch_size: int, partial_batch_seconds: float, clock: Callable[[], float]) -> None:
        self.batch_size = batch_size
        self._clock = clock
        self._partial_batch_seconds = partial_batch_seconds
        self._fresh: dict[Command, deque[Operation]] = {command: deque() for command in WRITING_COMMANDS}
        self._fresh_since = dict.fromkeys(WRITING_COMMANDS, math.inf)
        self._alone: dict[Command, deque[Operation]] = {command: deque() for command in WRITING_COMMANDS}
        self._waiting: dict[Command, list[_Waiting]] = {command: [] for command in WRITING_COMMANDS}
        self._sequence = 0
        self._held_back: dict[str, deque[Operation] | None] = {}  # by account; a key says that the account is taken
        self.unsettled = 0  # changes that were added and are not finished

    @property
    def fresh(self) -> int:
        """Operations that were never sent, are not held back and go in company."""
        return sum(len(queue) for queue in self._fresh.values())

    @property
    def alone(self) -> int:
        """Operations that were never sent, are not held back and go alone."""
        return sum(len(queue) for queue in self._alone.values())

    def add(self, operation: Operation) -> None:
        """A new change's first operation."""
        self.unsettled += 1
        account = operation.change.account
        if account not in self._held_back:
            self._held_back[account] = None
            self._queue(operation)
            return
        held_back = self._held_back[account]
        if held_back is None:
            held_back = self._held_back[account] = deque()
        held_back.append(operation)

    def follow(self, operation: Operation) -> None:
        """The second operation of a change whose first one is settled; its account stays taken."""
        self._queue(operation)

    def finish(self, change: Change) -> None:
        """The change is settled: its account is free for the next change that was held back for it."""
        self.unsettled -= 1
        held_back = self._held_back.pop(change.account, None)
        if held_back:
            self._held_back[change.account] = held_back
            self._queue(held_back.popleft())

    def resend(self, operations: list[Operation], *, due: float, attempt: int | None) -> None:
        """Sent again from `due` on. Rows refused one by one join others of the same `attempt` that wait already, and
        are due when those are; None keeps them to themselves, as the halves of a refused call must be. So does a
        change that goes alone.
        """
        queue = self._waiting[operations[0].command]
        rest = operations
        if operations[0].change.alone:
            attempt = None
        if attempt is not None:
            for waiting in queue:
                if waiting.attempt == attempt and len(waiting.operations) < self.batch_size:
                    room = self.batch_size - len(waiting.operations)
                    waiting.operations += rest[:room]
                    rest = rest[room:]
        if rest:
            self._sequence += 1
            heapq.heappush(queue, _Waiting(due, self._sequence, rest, attempt))

    def take(self, command: Command, *, partial: bool) -> list[Operation]:
        """The next batch that may leave now; nothing if there is none. What waited goes before what is new.

        A batch of new operations is full, unless `partial` or its first one has been waiting for long. One that goes
        alone leaves when no full batch is ready: there is always company to be read until the memory for it is used up.
        """
        now = self._clock()
        waiting = self._waiting[command]
        if waiting and waiting[0].due <= now:
            return self._take_waiting(waiting)
        queue = self._fresh[command]
        long = now - self._fresh_since[command] >= self._partial_batch_seconds
        if not queue or not (len(queue) >= self.batch_size or long):
            if self._alone[command]:
                return [self._alone[command].popleft()]
            if not (queue and partial):
                return []
        taken = [queue.popleft() for _ in range(min(len(queue), self.batch_size))]
        self._fresh_since[command] = now if queue else math.inf
        return taken

    def next_due(self, command: Command) -> float:
        """When `take` has more to give than now, if nothing else happens; infinity for never."""
        waiting = self._waiting[command]
        fresh_due = self._fresh_since[command] + self._partial_batch_seconds if self._fresh[command] else math.inf
        return min(waiting[0].due if waiting else math.inf, fresh_due)

    def drain(self) -> list[Operation]:
        """Everything that would still have to be sent; nothing is left, and no account is taken any more."""
        left: list[Operation] = []
        for command in WRITING_COMMANDS:
            for waiting in self._waiting[command]:
                left += waiting.operations
            left += self._fresh[command]
            left += self._alone[command]
            self._waiting[command].clear()
            self._fresh[command].clear()
            self._alone[command].clear()
        for held_back in self._held_back.values():
            left += held_back or ()
        self._held_back.clear()
        return left

    def _queue(self, operation: Operation) -> None:
        if operation.change.alone:
            self._alone[operation.command].append(operation)
            return
        queue = self._fresh[operation.command]
        if not queue:
            self._fresh_since[operation.command] = self._clock()
        queue.append(operation)

    def _take_waiting(self, waiting: list[_Waiting]) -> list[Operation]:
        first = heapq.heappop(waiting)
        if len(first.operations) > self.batch_size:  # it was lowered since
            rest = first.operations[self.batch_size :]
            self._sequence += 1
            heapq.heappush(waiting, _Waiting(first.due, self._sequence, rest, first.attempt))
        return first.operations[: self.batch_size]
