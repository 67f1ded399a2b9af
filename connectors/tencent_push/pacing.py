"""The quota: when the next call may leave, and how long to wait before sending something again.

Nothing here sleeps, sends or knows what a call holds: time and chance come in, moments and waits go out. All times are
seconds of one monotonic clock.
"""

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

Clock = Callable[[], float]

QUOTA_SHARE = 0.99  # of the quota, evenly: what clocks that differ by a percent leave room for
EARLY_RETURN_SHARE = 0.95  # of the smallest round trip; the rest is for what was measured around the wire
MAX_EARLY_RETURN_SECONDS = 0.5  # a round trip beyond this is mostly waiting, and says little about the way there
ROUND_TRIP_WINDOW_SECONDS = 10.0  # how long the smallest round trip is believed, at least; networks change
ROUND_TRIPS_NEEDED = 20  # fewer may all have been held up, and say nothing of the smallest
CATCH_UP_SECONDS = 0.1  # slots missed by a stalled machine are made up for no further back than this

SLOW_DOWN_FACTOR = 0.7
SLOWEST_SHARE = 0.05
SLOW_DOWN_PAUSE_SECONDS = 2.0  # at the lower pace, before it begins to recover
RECOVERY_SHARE_PER_SECOND = 0.02
SLOW_DOWN_REST_SECONDS = 1.0  # refusals of the same second are one piece of news


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """The right to send one call; it is handed back when the call has ended, however it did."""

    sent_at: float


class Pacer:
    """At most `calls_per_second` calls of one command arrive in any second, whatever the network's delay.

    Two rules together. Calls leave evenly at 99 % of the quota. And there are `calls_per_second` permits: one is free
    again `1 s - 0.95 x the smallest recent round trip` after its call's answer. A call has arrived before its answer
    comes back, and the next one with its permit arrives no sooner than the way there takes, so two arrivals with one
    permit are at least a second apart as long as the way there takes no less than it did. Below one call a second,
    the even spacing alone decides. Safe to share between threads.
    """

    def __init__(self, calls_per_second: float, *, clock: Clock = time.monotonic) -> None:
        if not (calls_per_second > 0 and math.isfinite(calls_per_second)):
            raise ValueError(f"calls_per_second is {calls_per_second}; it must be a number above 0")
        self._clock = clock
        self._lock = Lock()
        self._calls_per_second = calls_per_second
        self._permits = max(1, math.floor(calls_per_second))
        self._unanswered: set[Permit] = set()
        self._answered_at: list[float] = []  # heap: of the calls whose permits are not free again yet
        self._next_slot = clock()
        self._round_trips = _SmallestOfLate(ROUND_TRIP_WINDOW_SECONDS, needed=ROUND_TRIPS_NEEDED)
        self._slowed_at = -math.inf
        self._slowed_share = 1.0

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

    def answered(self, permit: Permit, *, at: float | None = None, round_trip: bool = True) -> None:
        """The call has ended; saying so twice changes nothing.

        `round_trip` is False where no answer came: a refused connection took no way there.
        """
        now = self._clock() if at is None else at
        with self._lock:
            if permit not in self._unanswered:
                return
            if round_trip:
                self._round_trips.add(now - permit.sent_at, now)
            self._unanswered.discard(permit)
            heapq.heappush(self._answered_at, now)

    def slow_down(self) -> None:
        """The API said that calls come too fast: the pace falls at once, and recovers over the next half minute."""
        now = self._clock()
        with self._lock:
            if now - self._slowed_at < SLOW_DOWN_REST_SECONDS:
                return
            self._slowed_share = max(SLOWEST_SHARE, self._share(now) * SLOW_DOWN_FACTOR)
            self._slowed_at = now
            self._next_slot = max(self._next_slot, now + self._interval(now))

    def share(self) -> float:
        """The part of the quota in use now: 1 unless `slow_down` was called of late."""
        with self._lock:
            return self._share(self._clock())

    def _ready_at(self, now: float) -> float:
        # The hold is worked out now, not at the answer: the first calls, slow to connect, must not shorten it for long.
        hold = 1.0 - min(MAX_EARLY_RETURN_SECONDS, EARLY_RETURN_SHARE * self._round_trips.smallest(now))
        while self._answered_at and self._answered_at[0] + hold <= now:
            heapq.heappop(self._answered_at)
        if len(self._unanswered) + len(self._answered_at) < self._permits:
            return self._next_slot
        return max(self._next_slot, self._answered_at[0] + hold) if self._answered_at else math.inf

    def _interval(self, now: float) -> float:
        return 1.0 / (QUOTA_SHARE * self._calls_per_second * self._share(now))

    def _share(self, now: float) -> float:
        recovering_seconds = max(0.0, now - self._slowed_at - SLOW_DOWN_PAUSE_SECONDS)
        return min(1.0, self._slowed_share + recovering_seconds * RECOVERY_SHARE_PER_SECOND)


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


class _SmallestOfLate:
    """The smallest number added in the last one to two windows; 0 while there are fewer than `needed`."""

    def __init__(self, window_seconds: float, *, needed: int) -> None:
        self._window_seconds = window_seconds
        self._needed = needed
        self._since = -math.inf
        self._now = self._before = (math.inf, 0)  # smallest, how many

    def add(self, number: float, now: float) -> None:
        self._turn(now)
        smallest, count = self._now
        self._now = (min(smallest, number), count + 1)

    def smallest(self, now: float) -> float:
        self._turn(now)
        if self._now[1] + self._before[1] < self._needed:
            return 0.0
        return max(0.0, min(self._now[0], self._before[0]))

    def _turn(self, now: float) -> None:
        passed_seconds = now - self._since
        if passed_seconds >= self._window_seconds:
            self._before = self._now if passed_seconds < 2 * self._window_seconds else (math.inf, 0)
            self._now = (math.inf, 0)
            self._since = now
