"""The quota: when the next call may leave, and how long to wait before sending something again.

Nothing here sleeps, sends or knows what a call holds: time and chance come in, moments and waits go out. All times are
seconds of one monotonic clock.
"""

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

Clock = Callable[[], float]

QUOTA_SHARE = 0.99  # of the quota, evenly: what clocks that differ by a percent leave room for
UNSTEADY_SHARE = 0.983  # where answers vary, so that a call may be late by twice as much before it crowds a second
EXCESS_SECONDS = 0.008  # what answers may take beyond the allowance, on average: it costs as much of the permits' time
LONGEST_ALLOWANCE_SECONDS = 1.0  # more would free no permit earlier
ANSWERS_REMEMBERED = 500  # a few seconds of them: networks change
ANSWERS_BELIEVED_SECONDS = 20.0
ANSWERS_NEEDED = 20  # fewer may all have been held up, and say nothing of the others
CATCH_UP_SECONDS = 0.1  # slots missed by a stalled machine are made up for no further back than this

SLOW_DOWN_FACTOR = 0.9  # a network's jitter can crowd a second now and then: a few calls of it are refused
SLOW_DOWN_MUCH_FACTOR = 0.7  # when many are, or it happens again: others use the quota, too
MANY_REFUSED = 5  # calls, within the rest
SLOW_DOWN_AGAIN_SECONDS = 10.0
SLOWEST_SHARE = 0.05
SLOW_DOWN_PAUSE_SECONDS = 2.0  # at the lower pace, before it begins to recover
RECOVERY_SHARE_PER_SECOND = 0.05
NEAR_REFUSED_SHARE = 0.95  # of the pace that was refused last: from there on the pace recovers with care
CAREFUL_SHARE_PER_SECOND = 0.01
SLOW_DOWN_REST_SECONDS = 1.0  # refusals of the same second are one piece of news


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """The right to send one call; it is handed back when the call has ended, however it did."""

    sent_at: float


class Pacer:
    """At most `calls_per_second` calls of one command arrive in any second, however late they leave this machine.

    Two rules together. Calls leave evenly at 99 % of the quota (98.3 % where answers vary much). And there are
    `calls_per_second` permits. A call's permit is free again one second after the call had left whole, and later by
    what its answer took beyond the allowance; where it is not known when the call left, or no answer came, one second
    after its end.

    So two arrivals with one permit are at least a second apart if the first call's way there took as long as the
    second's: stalls of this machine and new connections end before a call has left. They are so, too, if the first one
    was late by any time on its way, as long as the rest of its round trip took no less than the allowance. That is
    always so while answers keep within about `EXCESS_SECONDS` of the fastest one, for the allowance is then below the
    fastest. With more jitter the allowance lies as little above it as the pace needs, and calls that are late by less
    than that difference, but by more than the even spacing leaves room for (17 ms), can crowd a second: no sender that
    waits for answers can tell them from slow answers.

    Below one call a second, the even spacing alone decides. Safe to share between threads.
    """

    def __init__(self, calls_per_second: float, *, clock: Clock = time.monotonic) -> None:
        if not (calls_per_second > 0 and math.isfinite(calls_per_second)):
            raise ValueError(f"calls_per_second is {calls_per_second}; it must be a number above 0")
        self._clock = clock
        self._lock = Lock()
        self._calls_per_second = calls_per_second
        self._permits = max(1, math.floor(calls_per_second))
        self._unanswered: set[Permit] = set()
        self._held: list[_Held] = []  # heap: the permits of calls that have ended, by when they are free again
        self._next_slot = clock()
        self._allowance = _Allowance()
        self._slowed_at = -math.inf
        self._slowed_share = 1.0
        self._refused_share = 1.0  # in use when the API last said that calls come too fast
        self._refused_calls = 0  # for that one reason

    def ready_at(self) -> float:
        """When the next call may leave; infinity while only an answer can free a permit."""
        with self._lock:
            return self._ready_at(self._clock())

    def take(self) -> Permit | None:
        """A permit for a call that leaves now, or None when it is not time yet."""
        now = self._clock()
        with self._lock:
            if self._ready_at(now) > now:
                return None
            permit = Permit(now)
            self._unanswered.add(permit)
            self._next_slot = max(self._next_slot, now - CATCH_UP_SECONDS) + self._interval(now)
            return permit

    def answered(self, permit: Permit, *, at: float | None = None, waited_seconds: float | None = None) -> None:
        """The call has ended; saying so twice changes nothing.

        `waited_seconds`: from when the call had left whole to its answer; None where that is not known, or where no
        answer came.
        """
        now = self._clock() if at is None else at
        with self._lock:
            if permit not in self._unanswered:
                return
            self._unanswered.discard(permit)
            heapq.heappush(self._held, _Held.until(self._allowance.seconds, now, waited_seconds))
            if waited_seconds is not None and self._allowance.add(waited_seconds, now):
                self._held = [_Held.until(self._allowance.seconds, held.ended_at, held.waited) for held in self._held]
                heapq.heapify(self._held)

    def slow_down(self) -> None:
        """The API said that calls come too fast: the pace falls at once, more if it fell of late. It recovers within
        seconds to near the pace that was refused, and goes beyond that slowly.
        """
        now = self._clock()
        with self._lock:
            passed_seconds = now - self._slowed_at
            if passed_seconds < SLOW_DOWN_REST_SECONDS:
                self._refused_calls += 1
                if self._refused_calls == MANY_REFUSED:
                    self._slow_to(self._refused_share * SLOW_DOWN_MUCH_FACTOR, now)
                return
            self._refused_calls = 1
            self._refused_share = self._share(now)
            self._slowed_at = now
            is_again = passed_seconds < SLOW_DOWN_AGAIN_SECONDS
            self._slow_to(self._refused_share * (SLOW_DOWN_MUCH_FACTOR if is_again else SLOW_DOWN_FACTOR), now)

    def share(self) -> float:
        """The part of the quota in use now: 1 unless `slow_down` was called of late."""
        with self._lock:
            return self._share(self._clock())

    def _slow_to(self, share: float, now: float) -> None:
        self._slowed_share = max(SLOWEST_SHARE, share)
        self._next_slot = max(self._next_slot, now + self._interval(now))

    def _ready_at(self, now: float) -> float:
        while self._held and self._held[0].free_at <= now:
            heapq.heappop(self._held)
        if len(self._unanswered) + len(self._held) < self._permits:
            return self._next_slot
        return max(self._next_slot, self._held[0].free_at) if self._held else math.inf

    def _interval(self, now: float) -> float:
        share = QUOTA_SHARE if self._allowance.is_steady else UNSTEADY_SHARE
        return 1.0 / (share * self._calls_per_second * self._share(now))

    def _share(self, now: float) -> float:
        recovering_seconds = max(0.0, now - self._slowed_at - SLOW_DOWN_PAUSE_SECONDS)
        near = max(self._slowed_share, NEAR_REFUSED_SHARE * self._refused_share)
        careful_seconds = recovering_seconds - (near - self._slowed_share) / RECOVERY_SHARE_PER_SECOND
        if careful_seconds <= 0:
            return self._slowed_share + recovering_seconds * RECOVERY_SHARE_PER_SECOND
        return min(1.0, near + careful_seconds * CAREFUL_SHARE_PER_SECOND)


class Quota:
    """The pacers of one app: limits are counted per command (1047/60256). Every sink of the app shares one quota."""

    def __init__(self, calls_per_second: float, *, clock: Clock = time.monotonic) -> None:
        self.calls_per_second = calls_per_second
        self._clock = clock
        self._lock = Lock()
        self._pacers: dict[str, Pacer] = {}
        self.pacer("")  # so that an unusable number is refused here, not at the first call

    def pacer(self, command: str) -> Pacer:
        """The one pacer of this command."""
        with self._lock:
            if command not in self._pacers:
                self._pacers[command] = Pacer(self.calls_per_second, clock=self._clock)
            return self._pacers[command]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double, drawn between nothing and their bound (full jitter), bounded in number and in total.

    `attempts` counts all calls for the same rows, the first included; `total_seconds` run from that first call.
    """

    attempts: int = 6
    total_seconds: float = 120.0
    first_seconds: float = 1.0
    longest_seconds: float = 30.0

    def wait_seconds(self, attempt: int, *, elapsed_seconds: float, random: Callable[[], float]) -> float | None:
        """How long to wait after `attempt` (from 1) failed, or None when attempts or time are used up."""
        left_seconds = self.total_seconds - elapsed_seconds
        if attempt >= self.attempts or left_seconds <= 0:
            return None
        bound = min(self.longest_seconds, self.first_seconds * 2.0 ** (attempt - 1))
        return min(random() * bound, left_seconds)


@dataclass(frozen=True, slots=True, order=True)
class _Held:
    """The permit of a call that has ended; `waited` for its answer, in seconds."""

    free_at: float
    ended_at: float
    waited: float | None = field(compare=False)

    @classmethod
    def until(cls, allowance_seconds: float, ended_at: float, waited: float | None) -> "_Held":
        beyond = 0.0 if waited is None else -min(waited, allowance_seconds)
        return cls(ended_at + beyond + 1.0, ended_at, waited)


class _Allowance:
    """How long an answer may take before its permit is held for longer: the least that answers of late exceeded by
    `EXCESS_SECONDS` on average; nothing while there are too few.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.is_steady = True  # no answer of late came sooner than the allowance
        self._answers: deque[tuple[float, float]] = deque(maxlen=ANSWERS_REMEMBERED)  # when, and after how long
        self._added = 0

    def add(self, waited_seconds: float, now: float) -> bool:
        """Whether the allowance has changed. It is worked out anew every few answers: sorting them has its price."""
        self._answers.append((now, waited_seconds))
        self._added += 1
        if self._added % (ANSWERS_NEEDED // 2):
            return False
        while self._answers[0][0] < now - ANSWERS_BELIEVED_SECONDS:
            self._answers.popleft()
        before, self.seconds = self.seconds, 0.0
        waits = [waited for _, waited in self._answers]
        if len(waits) >= ANSWERS_NEEDED:
            self.seconds = least_exceeded(waits, by=EXCESS_SECONDS)
            self.is_steady = self.seconds <= min(waits)
        return self.seconds != before


def least_exceeded(numbers: Sequence[float], *, by: float) -> float:
    """The bound, from 0 to the longest allowance, that the numbers exceed by `by` on average."""
    allowed = by * len(numbers)
    ordered = sorted(numbers, reverse=True)
    above = 0.0
    for count, (number, following) in enumerate(zip(ordered, [*ordered[1:], -math.inf], strict=True), start=1):
        above += number
        bound = (above - allowed) / count
        if bound >= following:
            break
    return min(LONGEST_ALLOWANCE_SECONDS, max(0.0, bound))
