"""What the emulator saw: one record per call, and the quota that is counted over the calls it admitted.

No account, value or signature is kept here. Times are seconds of the emulator's monotonic clock.
"""

import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from connectors.tencent_push.protocol import Command


@dataclass(slots=True)
class CallRecord:
    """One call, written down when it arrived; what became of it is filled in when that is known.

    `code` is the ErrorCode that the emulator decided on, also when a fault then kept it from the client; it is None
    for a call that was not carried out. `command` is None for a URL that names none. `answered_at` is when the answer
    (or the break) began to leave.
    """

    number: int
    command: Command | None
    arrived_at: float
    random: int | None
    accounts: int = 0
    code: int | None = None
    http_status: int | None = None
    fault: str | None = None
    answered_at: float | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """All calls of one command. `served_accounts` stood in calls that were carried out, each time they did.

    `codes` counts the ErrorCodes decided on, by their text; "none" is for calls that were not carried out. The two
    times run from the first arrival: to the last one, and to when the last answer began to leave.
    """

    calls: int
    accounts: int
    served_accounts: int
    codes: Mapping[str, int]
    worst_second: int
    arriving_seconds: float
    answering_seconds: float


class CallLog(Sequence[CallRecord]):
    """The last `keep` calls in order of arrival, and how many there were in all."""

    def __init__(self, keep: int = 200_000) -> None:
        self._records: deque[CallRecord] = deque(maxlen=keep)
        self._lock = threading.Lock()
        self._total = 0

    @property
    def total(self) -> int:
        return self._total

    def arrived(self, command: Command | None, *, at: float, random: int | None) -> CallRecord:
        with self._lock:
            self._total += 1
            record = CallRecord(self._total, command, at, random)
            self._records.append(record)
        return record

    def of(self, command: Command) -> list[CallRecord]:
        return [record for record in self if record.command is command]

    def worst_second(self, command: Command) -> int:
        """Most arrivals in any half-open second, refused ones included; the quota is 100 (1047/60565)."""
        arrivals = sorted(record.arrived_at for record in self.of(command))
        worst = first = 0
        for last, arrived_at in enumerate(arrivals):
            while arrived_at - arrivals[first] >= 1.0:
                first += 1
            worst = max(worst, last - first + 1)
        return worst

    def totals(self) -> dict[str, Totals]:
        """By command, for those that were called; of the calls that are still remembered."""
        return {command.value: self._totals(command, calls) for command in Command if (calls := self.of(command))}

    def _totals(self, command: Command, calls: Sequence[CallRecord]) -> Totals:
        first = min(record.arrived_at for record in calls)
        codes = Counter("none" if record.code is None else str(record.code) for record in calls)
        return Totals(
            calls=len(calls),
            accounts=sum(record.accounts for record in calls),
            served_accounts=sum(record.accounts for record in calls if record.code == 0),
            codes=dict(codes),
            worst_second=self.worst_second(command),
            arriving_seconds=max(record.arrived_at for record in calls) - first,
            answering_seconds=max(record.answered_at or record.arrived_at for record in calls) - first,
        )

    def clear(self) -> None:
        """Forgets the records; `total` goes on counting."""
        with self._lock:
            self._records.clear()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[CallRecord]:
        with self._lock:
            return iter(list(self._records))

    @overload
    def __getitem__(self, index: int) -> CallRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[CallRecord]: ...
    def __getitem__(self, index: int | slice) -> CallRecord | list[CallRecord]:
        return list(self)[index]


class Quota:
    """At most `calls_per_second` calls of one command are admitted in any second; None: as many as come.

    Counted by arrival. A refused call does not count, so a client that is a little too fast loses a few calls, not all
    of them; how Tencent counts is not documented.
    """

    def __init__(self, calls_per_second: int | None) -> None:
        if calls_per_second is not None and calls_per_second < 1:
            raise ValueError("calls_per_second is a whole number from 1, or None for no quota")
        self._calls_per_second = calls_per_second
        self._admitted: dict[Command, deque[float]] = {
            command: deque(maxlen=calls_per_second or 1) for command in Command
        }
        self._lock = threading.Lock()

    def admit(self, command: Command, *, arrived_at: float) -> bool:
        if self._calls_per_second is None:
            return True
        admitted = self._admitted[command]
        with self._lock:
            if len(admitted) == self._calls_per_second and arrived_at - admitted[0] < 1.0:
                return False
            admitted.append(arrived_at)
            return True
