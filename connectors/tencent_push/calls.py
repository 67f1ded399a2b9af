"""The calls in flight: each one runs in a thread of its own, and the sink is woken when some have ended.

Nothing here knows batches, quotas or outcomes; a call is started once and never again.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from connectors.tencent_push.client import CallResult
from connectors.tencent_push.protocol import Command


class CallingClient(Protocol):
    """What the sink needs of a client (client.Client has it)."""

    def call(self, command: Command, body: bytes) -> CallResult: ...
    def renew_usersig(self) -> None: ...


@dataclass(slots=True, eq=False)
class RunningCall:
    """A call that was started. `ended_at` is set last: until then the call may still be answered."""

    result: CallResult | None = field(default=None, repr=False)
    error: BaseException | None = None  # a fault of this program: a client never raises for what the network does
    ended_at: float | None = None


class Calls(Protocol):
    """Starts calls and waits for them, so that tests can do both in virtual time."""

    def start(self, command: Command, body: bytes) -> RunningCall: ...

    def wait(self, timeout_seconds: float) -> None:
        """Returns once a call has ended or `wake` was called since the last return, and after `timeout_seconds` at the
        latest.
        """

    def wake(self) -> None:
        """Ends a wait; callable from any thread."""

    def close(self) -> None:
        """Starts no more calls; those in flight go on until their time-outs."""


class ThreadedCalls:
    """Up to `max_in_flight` calls at a time, over as many threads."""

    def __init__(
        self, client: CallingClient, *, max_in_flight: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._threads = ThreadPoolExecutor(max_in_flight, thread_name_prefix="tencent-push")
        # No queue: after a signal, Python 3.11's SimpleQueue.get may wait for ever, whatever its time-out.
        self._ended = threading.Event()

    def start(self, command: Command, body: bytes) -> RunningCall:
        call = RunningCall()
        self._threads.submit(self._run, call, command, body)
        return call

    def wait(self, timeout_seconds: float) -> None:
        if timeout_seconds > 0:
            self._ended.wait(timeout_seconds)
        self._ended.clear()  # what ends from here on is seen by who looks after this wait, or ends the next one

    def wake(self) -> None:
        self._ended.set()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, call: RunningCall, command: Command, body: bytes) -> None:
        try:
            call.result = self._client.call(command, body)
        except BaseException as error:  # noqa: BLE001  # raised again in the sink's thread
            call.error = error
        call.ended_at = self._clock()
        self._ended.set()
