"""One run at a time in a data folder that several hosts share, where no kernel can hold a lock.

A lease is a list of numbered objects, each created only if no object of its number was there; the highest one counts.
It says who holds the lease, or that it is free. A holder adds one every few seconds. Who wants a held one watches: if
nothing was added for a while, its holder is dead, and the next number is taken. No two clocks are compared.
A holder that was cut off from the storage stops trusting its lease long before another one may take it, and trusts it
again when its next entry came through and nobody else's had come before.
"""

import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from connectors.object_store.faults import ObjectStoreError
from connectors.object_store.locations import PATIENCE_SECONDS
from connectors.object_store.store import Objects
from pipelines.errors import AppBusyError, DataFolderError

BEAT_SECONDS = 5.0
TRUSTED_SECONDS = 20.0  # since the last entry that came through was begun
DEAD_SECONDS = 30.0  # without a new entry
KEPT_ENTRIES = 20  # a run that slept through fewer beats cannot even write; one that slept longer looks what follows
_LAST_BEAT_SECONDS = 5.0
_LOOK_SECONDS = 0.2  # between two looks of who waits for its own beat

_log = logging.getLogger(__name__)


def this_machine() -> str:
    """One start of one system, and in it one container: a host's name may be that of many."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux, so no containers
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def awake_or_not() -> float:
    """Seconds that go on while the machine sleeps, which those of time.monotonic do not."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease; `started_at` tells a process from a later one of the same number.

    `host` is for people; `machine` is where process numbers mean the same.
    """

    token: str
    host: str
    process: int
    started_at: float
    machine: str

    @classmethod
    def this_process(cls) -> "Holder":
        own = psutil.Process()
        return cls(secrets.token_hex(8), socket.gethostname(), own.pid, own.create_time(), this_machine())

    @property
    def is_dead_here(self) -> bool:
        """Whether it was a process of this very machine that has ended; of another machine's nothing is known."""
        if self.machine != this_machine():
            return False
        try:
            return abs(psutil.Process(self.process).create_time() - self.started_at) > 1.0
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    holder: Holder | None  # None: free


class Lease:
    """The lease `name` in `objects`. For one thread, beside the one that keeps it alive."""

    def __init__(
        self,
        objects: Objects,
        name: str,
        *,
        holder: Holder | None = None,
        clock: Callable[[], float] = awake_or_not,
        wait: Callable[[float], object] = time.sleep,
        dead_seconds: float = DEAD_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._objects = objects
        self._name = name
        self._me = holder or Holder.this_process()
        self._clock = clock
        self._wait = wait
        self._dead_seconds = dead_seconds
        self._beat_seconds = beat_seconds
        self._number = 0
        self._trusted_until = float("-inf")
        self._is_lost = False
        self._is_over = threading.Event()
        self._heart: threading.Thread | None = None

    @property
    def token(self) -> str:
        """Told apart from every other holding's."""
        return self._me.token

    @contextmanager
    def held(self, *, patience_seconds: float = 0.0) -> Iterator["Lease"]:
        """Raises AppBusyError when another run is alive and keeps it for `patience_seconds`.

        Without patience it still takes as long to see whether the holder lives. Raises ObjectStoreError, and
        DataFolderError for a storage that replaces what it is told not to.
        """
        self._acquire(patience_seconds)
        self._heart = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        self._heart.start()
        try:
            yield self
        finally:
            self._release()

    def require_held(self) -> None:
        """Waits while the storage is out of reach; raises as `may_act`."""
        while not self.may_act():
            self._wait(_LOOK_SECONDS)

    def may_act(self) -> bool:
        """False while nobody can tell whether another run has taken over.

        Raises AppBusyError when one has, and when nobody could tell for PATIENCE_SECONDS.
        """
        if self._is_lost:
            raise AppBusyError(
                f"another run has taken over the data folder ({self._name}) while this one slept; it sends no more"
            )
        now = self._clock()
        if now >= self._trusted_until + PATIENCE_SECONDS:
            raise AppBusyError(
                f"the data folder's lease ({self._name}) could not be renewed for "
                f"{TRUSTED_SECONDS + PATIENCE_SECONDS:.0f} s, and another run may have taken over; this one sends no "
                "more. See the network, then run again"
            )
        return now < self._trusted_until

    def _acquire(self, patience_seconds: float) -> None:
        deadline = self._clock() + patience_seconds
        seen, since = -1, self._clock()
        is_alive = is_told = False
        while True:
            entry = self._newest()
            if entry.number != seen:
                is_alive = is_alive or seen >= 0
                seen, since = entry.number, self._clock()
            is_dead = entry.holder is not None and entry.holder.is_dead_here
            if entry.holder is not None and not is_dead and not is_told:
                is_told = True
                _log.warning(
                    "Process %d on %s holds the data folder; within %.0f s it is known whether it lives.",
                    entry.holder.process,
                    entry.holder.host,
                    self._dead_seconds,
                )
            if entry.holder is None or is_dead or self._clock() - since >= self._dead_seconds:
                began_at = self._clock()
                if self._take(entry.number):
                    self._trusted_until = began_at + TRUSTED_SECONDS
                    self._require_refusal()
                    return
                continue
            if is_alive and self._clock() >= deadline:
                raise AppBusyError(
                    f"another run holds the data folder right now (process {entry.holder.process} on "
                    f"{entry.holder.host}); start again when it has ended"
                )
            self._wait(min(1.0, self._beat_seconds))

    def _take(self, number: int) -> bool:
        """Whether the entry after `number` is ours now, and nobody's stands after it."""
        self._number = number
        return self._add(self._me) and self._is_newest()

    def _is_newest(self) -> bool:
        """Whether nobody's entry stands after ours; one of a number that is long gone can be made anew."""
        keys = [listed.key for listed in self._objects.list(self._name)]
        self._objects.delete([key for key in keys if key < self._key(self._number - KEPT_ENTRIES)])
        return keys[-1:] == [self._key(self._number)]

    def _require_refusal(self) -> None:
        """A storage that replaces what it is told to create would let two runs hold the same entry."""
        if self._objects.create(self._key(self._number), b"{}"):
            self._objects.delete([self._key(self._number)])
            raise DataFolderError(
                "the object storage of ATTRIBUTE_SYNC_DATA replaces objects although it is told not to, so that two "
                "runs could not be kept apart. Use a storage with conditional writes (on COS: a bucket without "
                "versioning), or a local folder"
            )

    def _add(self, holder: Holder | None) -> bool:
        """Whether the next entry is ours."""
        content = json.dumps({"holder": asdict(holder) if holder else None}).encode()
        if not self._objects.create(self._key(self._number + 1), content):
            return False
        self._number += 1
        return True

    def _key(self, number: int) -> str:
        return f"{self._name}/{max(0, number):012d}.json"

    def _newest(self) -> _Entry:
        while True:
            listed = self._objects.list(self._name)
            if not listed:
                return _Entry(0, None)
            key = listed[-1].key
            content = self._objects.read(key)
            if content is not None:  # else it was removed meanwhile, since newer ones are there
                return _Entry(int(key.rpartition("/")[2].partition(".")[0]), _holder(key, content))

    def beat(self) -> None:
        """One more sign of life, unless somebody else has given one."""
        began_at = self._clock()
        try:
            if self._is_lost or not self._add(self._me) or not self._is_newest():
                self._is_lost = True
            else:
                self._trusted_until = began_at + TRUSTED_SECONDS
        except ObjectStoreError as error:  # the next beat may come through; `require_held` counts the time
            _log.warning("The lease of the data folder was not renewed: %s", error)

    def _keep_beating(self) -> None:
        """In steps from one beginning to the next, since a beat may have waited for the storage."""
        began_at = self._clock()
        while not self._is_over.wait(max(0.0, began_at + self._beat_seconds - self._clock())):
            began_at = self._clock()
            self.beat()

    def _release(self) -> None:
        self._is_over.set()
        if self._heart is not None:
            self._heart.join(_LAST_BEAT_SECONDS)
        try:
            if not self._is_lost:
                self._add(None)
        except ObjectStoreError as error:  # the next run waits until this one counts as dead
            _log.warning("The lease of the data folder could not be given back: %s", error)


@dataclass(slots=True)
class Holding:
    """The lease that a push holds now, where there is one to hold."""

    lease: Lease | None = None

    @property
    def token(self) -> str:
        """Of the lease; empty for who only reads."""
        return self.lease.token if self.lease is not None else ""

    def require_held(self) -> None:
        """As the lease's own."""
        self._held().require_held()

    def may_act(self) -> bool:
        """As the lease's own."""
        return self._held().may_act()

    def _held(self) -> Lease:
        if self.lease is None:
            raise RuntimeError("the data folder is written without its lease: this is a fault of the program")
        return self.lease


def _holder(key: str, content: bytes) -> Holder | None:
    try:
        said = json.loads(content)["holder"]
        return None if said is None else Holder(**said)
    except (ValueError, KeyError, TypeError):
        raise DataFolderError(f"{key} in the data folder is damaged: remove it when no run is alive") from None
